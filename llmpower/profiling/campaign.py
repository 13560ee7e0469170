"""The measuring campaign: which trial comes next, until every cell has had enough.

It knows no model and no meter. A :class:`Workload` runs one trial of a cell and returns its span, which by then is on
its way to the daemon; the campaign decides from the spans' runtimes. Every step is yielded as an event, so that
whoever drives it can show progress, or stop: what was done is in the journal.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmpower.exceptions import LlmpowerError
from llmpower.profiling.grid import Cell, next_cell
from llmpower.profiling.journal import Journal
from llmpower.profiling.stopping import StoppingRule, half_width_s
from llmpower.types import Span


class CellTooLargeError(LlmpowerError):
    """A cell does not fit into the device's memory."""


class Workload(Protocol):
    """Whatever can be run cell by cell."""

    def warm_up(self, cell: Cell) -> None:
        """Run something of the cell's shape once, unmeasured."""

    def measure(self, cell: Cell) -> Span:
        """Run one trial; raises CellTooLargeError when the device cannot hold it."""


@dataclass(frozen=True, slots=True)
class WarmedUp:
    """``cell`` has been run unmeasured."""

    cell: Cell


@dataclass(frozen=True, slots=True)
class Trial:
    """The ``number``-th trial of ``cell`` has been measured."""

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
class CellResult:
    """Where a cell stands. ``half_width_s`` is that of the 95 % confidence interval of the mean runtime."""

    cell: Cell
    trials: int
    mean_runtime_s: float | None
    half_width_s: float | None
    is_narrow: bool
    skipped: str | None


class Campaign:
    """The trials of ``cells`` under ``rule``; those already in ``journal`` count."""

    def __init__(
        self, cells: Sequence[Cell], rule: StoppingRule, *, seed: int = 0, journal: Journal | None = None
    ) -> None:
        self._rule = rule
        self._seed = seed
        self._journal = journal
        self._runtimes_s: dict[Cell, list[float]] = {cell: [] for cell in cells}
        self._skipped: dict[Cell, str] = {}
        if journal is not None:
            self._skipped = {cell: reason for cell, reason in journal.skipped.items() if cell in self._runtimes_s}
            for cell, runtime_s in journal.trials:
                # A resumed campaign may have a smaller grid; what it does not ask for is left alone.
                if cell in self._runtimes_s:
                    self._runtimes_s[cell].append(runtime_s)

    def run(self, workload: Workload) -> Iterator[Event]:
        """Measure until every cell has had enough, an event after each step."""
        for cell in _shapes(self.unfinished()):
            try:
                workload.warm_up(cell)
            except CellTooLargeError:
                # Its own trial will find out, and say so.
                continue
            yield WarmedUp(cell)
        while unfinished := self.unfinished():
            done = {cell: len(runtimes_s) for cell, runtimes_s in self._runtimes_s.items()}
            cell = next_cell(unfinished, done, self._seed)
            try:
                span = workload.measure(cell)
            except CellTooLargeError as error:
                yield self._skip(cell, str(error))
                continue
            self._runtimes_s[cell].append(span.runtime_s)
            if self._journal is not None:
                self._journal.trial(cell, span)
            yield Trial(cell, len(self._runtimes_s[cell]), span)
        if self._journal is not None:
            self._journal.complete()

    def unfinished(self) -> list[Cell]:
        """The cells that still want trials."""
        return [
            cell
            for cell, runtimes_s in self._runtimes_s.items()
            if cell not in self._skipped and not self._rule.is_enough(runtimes_s)
        ]

    def results(self) -> list[CellResult]:
        """Where every cell stands."""
        return [
            CellResult(
                cell=cell,
                trials=len(runtimes_s),
                mean_runtime_s=statistics.fmean(runtimes_s) if runtimes_s else None,
                half_width_s=half_width_s(runtimes_s),
                is_narrow=self._rule.is_narrow(runtimes_s),
                skipped=self._skipped.get(cell),
            )
            for cell, runtimes_s in self._runtimes_s.items()
        ]

    def expected_left_s(self) -> float | None:
        """About how long the remaining trials take; ``None`` before the first.

        A cell not yet seen is taken to cost per output token what the seen ones do on average.
        """
        seen = {cell: statistics.fmean(runtimes_s) for cell, runtimes_s in self._runtimes_s.items() if runtimes_s}
        if not seen:
            return None
        per_token_s = statistics.fmean(runtime_s / cell.output_tokens for cell, runtime_s in seen.items())
        left_s = 0.0
        for cell in self.unfinished():
            runtimes_s = self._runtimes_s[cell]
            trials = self._rule.expected_trials(runtimes_s) - len(runtimes_s)
            left_s += trials * seen.get(cell, per_token_s * cell.output_tokens)
        return left_s

    def _skip(self, cell: Cell, reason: str) -> Skipped:
        self._skipped[cell] = reason
        if self._journal is not None:
            self._journal.skip(cell, reason)
        return Skipped(cell, reason)


def _shapes(cells: Iterable[Cell]) -> list[Cell]:
    """One cell for each shape of prompt: a first call of a shape is many times dearer than the next.

    The one with the fewest output tokens, since a warm-up need not be long.
    """
    shapes: dict[tuple[int, int], Cell] = {}
    for cell in sorted(cells):
        shapes.setdefault((cell.input_tokens, cell.batch_size), cell)
    return list(shapes.values())
