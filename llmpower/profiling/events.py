"""What a campaign reports: each step that it has taken, what is still to come, and where its cells stand."""

from __future__ import annotations

from dataclasses import dataclass

from llmpower.profiling.grid import Cell
from llmpower.types import Span


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """``cell`` has been run unmeasured."""

    cell: Cell


@dataclass(frozen=True, slots=True)
class Trial:
    """The ``number``-th trial of ``cell`` has been run; its joules may still be to come."""

    cell: Cell
    number: int
    span: Span


@dataclass(frozen=True, slots=True)
class Skipped:
    """``cell`` is left out from here on."""

    cell: Cell
    reason: str


Event = WarmedUp | Trial | Skipped


@dataclass(frozen=True, slots=True)
class Plan:
    """What a campaign will do from here on; times are ``None`` before anything was run.

    ``done`` trials are there already. The expected ones are what the order expects by what it knows so far, the most
    are where it stops in any case.
    """

    cells: int
    done: int
    expected_trials: int
    most_trials: int
    expected_s: float | None
    most_s: float | None


@dataclass(frozen=True, slots=True)
class CellResult:
    """Where a cell stands; what no trial has shown is ``None``.

    ``half_width_s`` and ``half_width_j`` are those of the 95 % confidence intervals of the mean runtime [s] and the
    mean energy [J].
    """

    cell: Cell
    trials: int
    mean_runtime_s: float | None
    half_width_s: float | None
    mean_energy_j: float | None
    half_width_j: float | None
    is_narrow: bool
    skipped: str | None
