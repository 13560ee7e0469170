"""What the joules of a model cover: which devices, and whether what they draw idle is among it.

``gpu``, ``cpu`` and ``gpu+cpu`` are gross: all that the devices drew while the request ran, as their counters have it.
``-idle`` behind it takes away what they would have drawn with nothing to do, so that ``gpu-idle`` is what the request
added. Joules of different boundaries are different quantities; a plan refuses to compare them, and every figure is
printed with its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.measurements import BOUNDARIES as DEVICES
from llmpower.modelling.rows.measurements import energy_columns

IDLE = "-idle"
BOUNDARIES = (*DEVICES, *(f"{devices}{IDLE}" for devices in DEVICES))
"""Every boundary by its name."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """A boundary by its ``name``, with the device parts that it sums."""

    name: str

    @classmethod
    def parse(cls, name: str) -> Boundary:
        """The boundary called ``name``.

        Raises:
            InputError: there is none.
        """
        if name not in BOUNDARIES:
            raise InputError("--boundary", name, f"unknown; use one of {', '.join(BOUNDARIES)}")
        return cls(name)

    @property
    def parts_name(self) -> str:
        """The devices alone: ``gpu+cpu`` of ``gpu+cpu-idle``."""
        return self.name.removesuffix(IDLE)

    @property
    def net(self) -> bool:
        """Whether the idle share is taken away."""
        return self.name.endswith(IDLE)

    def consulted(self) -> set[str]:
        """Columns that its energy is made of, where a table has them."""
        parts = self.parts_name.split("+")
        names = [f"{part}_{kind}_j" for part in parts for kind in ("energy", "energy_std", "idle_energy")]
        return {*names, "energy_j", "prefill_energy_j", "decode_energy_j"}

    def energies(self, rows: Mapping[str, FloatArray]) -> list[Covered]:
        """Rows by what was measured of them, each with its joules; those of which nothing was are in none.

        A sum takes the parts that any of the model's rows has; a row that lacks one of them is not measured, so that
        sums of different things are never fitted together. Which parts those are, only all rows together can tell.
        """
        columns = [column for column in energy_columns(self.parts_name) if column in rows]
        if not columns:
            if self.net or "energy_j" not in rows:
                return []
            known = _known(rows["energy_j"])
            return [Covered(None, known, rows["energy_j"][known], None)] if known.any() else []
        known_of = {column: _known(rows[column]) for column in columns}
        found = []
        for present in (chosen for n in range(1, len(columns) + 1) for chosen in combinations(columns, n)):
            at = np.logical_and.reduce([known_of[c] if c in present else ~known_of[c] for c in columns])
            if at.any():
                own = dict(rows) if at.all() else {name: column[at] for name, column in rows.items()}
                found.append(self._covered(present, at, own))
        return found

    def energy(self, rows: Mapping[str, FloatArray]) -> FloatArray:
        """Joules per row, NaN where not measured, for rows that are looked at together.

        Raises:
            FitError: no row has its energy measured.
        """
        found = self.energies(rows)
        if not found:
            advice = "no row has it measured; choose another --boundary, or leave it out with --where"
            raise FitError(energy_columns(self.parts_name)[0], "empty", advice)
        most = max(found, key=lambda covered: len(covered.name or ""))
        energy_j = np.full(len(most.rows), np.nan)
        energy_j[most.rows] = most.energy_j
        return energy_j

    def _covered(self, columns: Sequence[str], at: NDArray[np.bool_], rows: Mapping[str, FloatArray]) -> Covered:
        """Rows that have all of these columns; NaN where the idle share is asked for and not known."""
        parts = [column.removesuffix("_energy_j") for column in columns]
        energy_j = _sum([rows[column] for column in columns])
        name = "+".join(parts)
        if self.net:
            name += IDLE
            nothing = np.full(len(energy_j), np.nan)
            energy_j = energy_j - _sum([rows.get(f"{part}_idle_energy_j", nothing) for part in parts])
        return Covered(name, at, energy_j, _std([f"{part}_energy_std_j" for part in parts], rows))


@dataclass(frozen=True, slots=True)
class Covered:
    """Joules of some ``rows`` (a mask), what they cover, and their standard deviations where rows bring them.

    ``name`` is ``None`` for a sum of unknown parts.
    """

    name: str | None
    rows: NDArray[np.bool_]
    energy_j: FloatArray
    std_j: FloatArray | None


def _std(names: Sequence[str], rows: Mapping[str, FloatArray]) -> FloatArray | None:
    """Standard deviation of the energy per row [J], NaN where unknown; ``None`` where no row has one.

    Devices err independently, so variances add. What is subtracted as idle is a mean power and adds nothing here.
    """
    if any(name not in rows for name in names):
        return None
    stds = [rows[name] for name in names]
    total = stds[0] if len(stds) == 1 else np.sqrt(_sum([each**2 for each in stds]))
    return None if np.isnan(total[:1]).all() and np.isnan(total).all() else total


def _known(column: FloatArray) -> NDArray[np.bool_]:
    """Where it has a number; mostly everywhere, which its least one tells."""
    return ~np.isnan(column) if np.isnan(column.min(initial=np.inf)) else np.ones(len(column), dtype=bool)


def _sum(columns: Sequence[FloatArray]) -> FloatArray:
    return columns[0] if len(columns) == 1 else np.asarray(sum(columns))
