"""What is kept of rows while they go by: sums, the rows that errors are judged by, and what should be said of them.

The tally of a table is made in one step; that of a data set batch by batch; those of several workers are merged. From
any of them :meth:`Tally.model` gives what is fitted, so there is one way to fit however rows came.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.kernels import Summed, Summer
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows import strata
from llmpower.modelling.rows.boundary import Boundary, Covered
from llmpower.modelling.rows.frames import Rows
from llmpower.modelling.rows.strata import JUDGED, JUDGED_ROWS, SUMS, SURE_SUMS, Strata

POOLED = ("system", "batch_size", "concurrency")
"""Columns whose values are named where one model's rows differ in them."""

MOST_NAMES = 50
KEPT = ("input_tokens", "output_tokens", "batch_size", "concurrency", "runtime_s", "allocated", "modelled")
"""Columns that are summed as they are."""

MOST_THREADS = 4
"""That work at a time: more wait for memory, and for the model that has most rows."""

Key = tuple[object, ...]
"""The values that a model's rows are grouped by; an empty one is ``None``, as NaN is not itself in another process."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of rows that are fitted together; ``allocated`` and ``modelled`` are shares and guesses.

    ``low`` and ``high`` are those of :data:`~llmpower.modelling.rows.strata.SPANNED`.
    """

    rows: int
    below: int
    allocated: int
    modelled: int
    low: FloatArray
    high: FloatArray
    values: dict[str, set[object]]


@dataclass(frozen=True, slots=True)
class Tallied:
    """One model's part of a tally: all its ``rows``, and strata and counts of those that are fitted.

    Both are ``None`` where no energy is known, or where no row has all parts of it that others have; ``apart`` is how
    many rows there are then of each coverage.
    """

    key: Key
    covers: str | None
    rows: int
    simulated: int
    strata: Strata | None
    counts: Counts | None
    apart: Mapping[str | None, int] = field(default_factory=dict)


def processors() -> int:
    """How many threads work at a time in a process that has the machine to itself."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


class Tally:
    """Sums, judged rows and counts of models by their keys; see the module.

    ``judged_rows`` is how many rows of a model are kept to judge errors by, ``None`` for all of them. ``threads`` sum
    at a time; workers beside each other have one each. ``held_rows`` that stay in memory, as a table's do, may be
    summed later than they are added.
    """

    def __init__(
        self, boundary: Boundary, *, judged_rows: int | None = JUDGED_ROWS, threads: int = 1, held_rows: int = 0
    ) -> None:
        self.boundary = boundary
        # All rows and simulated ones of each key, whether their energy was measured or not.
        self._seen: dict[Key, tuple[int, int]] = {}
        # What is fitted together: a key, and what its energy covers.
        self._numbers: dict[tuple[Key, str | None], int] = {}
        self._values: list[dict[str, set[object]]] = []
        most_judged = sys.maxsize if judged_rows is None else judged_rows
        self._summer = Summer(strata.MOST_CELLS, most_judged, threads, held_rows=held_rows)

    def add(self, keys: Sequence[Key], of_row: NDArray[np.integer[Any]], rows: Rows, seen: NDArray[np.intp]) -> None:
        """Further rows, checked; ``of_row`` numbers each one's key, and ``seen`` are how many each key has."""
        flags = rows["simulated"]
        simulated = seen if flags.all() else np.bincount(of_row[flags], minlength=len(keys))
        for key, n, n_simulated in zip(keys, seen.tolist(), simulated.tolist(), strict=True):
            self._see(key, n, n_simulated)
        for covered in self.boundary.energies(rows.numbers()):
            whole = covered.rows.all()
            part, of_part = (rows, of_row) if whole else (rows.take(covered.rows), of_row[covered.rows])
            there = (seen if whole else np.bincount(of_part, minlength=len(keys))) > 0
            self._add_covered(keys, there, of_part, part, covered)

    def merge(self, other: Tally) -> None:
        """What another tally has."""
        for key, (n, simulated) in other._seen.items():
            self._see(key, n, simulated)
        for pair, theirs in other._numbers.items():
            number = self._number(pair)
            self._summer.merge(number, other._summer.of_model(theirs))
            for name, values in other._values[theirs].items():
                self._name(number, name, values)

    @property
    def rows(self) -> int:
        """How many rows went by."""
        return sum(n for n, _ in self._seen.values())

    def model_keys(self) -> list[Key]:
        """In order."""
        return sorted(self._seen, key=lambda values: tuple(map(_sortable, values)))

    def model(self, key: Key) -> Tallied:
        """One model's part."""
        n, simulated = self._seen[key]
        covers = self._covers(key)
        if covers is None:
            found_of = {name: self._summer.of_model(at) for (known, name), at in self._numbers.items() if known == key}
            apart = {name: found.rows + found.below for name, found in found_of.items()}
            return Tallied(key, None, n, simulated, None, None, apart)
        number = self._numbers[key, covers[0]]
        found = self._summer.of_model(number)
        return Tallied(key, covers[0], n, simulated, _strata(found), _counts(found, self._values[number]))

    def _covers(self, key: Key) -> tuple[str | None] | None:
        """Which coverage of a key's rows is fitted: that with every part that any row has; ``None`` where none has."""
        names = [covers for known, covers in self._numbers if known == key]
        if not names:
            return None
        parts = {part for name in names if name is not None for part in Boundary(name).parts_name.split("+")}
        full = [name for name in names if name is None or set(Boundary(name).parts_name.split("+")) == parts]
        return (full[0],) if full else None

    def _see(self, key: Key, n: int, simulated: int) -> None:
        if n:
            before = self._seen.get(key, (0, 0))
            self._seen[key] = before[0] + n, before[1] + simulated

    def _number(self, pair: tuple[Key, str | None]) -> int:
        if pair not in self._numbers:
            self._numbers[pair] = len(self._values)
            self._values.append({})
        return self._numbers[pair]

    def _name(self, number: int, name: str, values: set[object]) -> None:
        known = self._values[number].setdefault(name, set())
        if len(known) <= MOST_NAMES:
            known |= values

    def _add_covered(
        self,
        keys: Sequence[Key],
        there: NDArray[np.bool_],
        of_row: NDArray[np.integer[Any]],
        rows: Rows,
        covered: Covered,
    ) -> None:
        """Rows of one coverage, of those keys that are ``there``; those with something left above idle are summed."""
        numbers = np.zeros(len(keys), dtype=np.uint32)
        numbers[there] = [self._number((key, covered.name)) for key, has in zip(keys, there, strict=True) if has]
        model = numbers[of_row]
        columns = {name: rows[name] for name in KEPT if name in rows} | _phases(rows, self.boundary)
        columns["energy_j"] = covered.energy_j
        if covered.std_j is not None:
            columns["std_j"] = covered.std_j
        self._summer.add(model, len(self._values), columns)
        models = numbers[there]
        above = covered.energy_j > 0
        if not above.all():
            model, rows = model[above], rows.take(above)
            models = np.unique(model)
        for name in POOLED:
            if name in rows and len(rows):
                for number, values in _named(models, model, rows, name).items():
                    self._name(number, name, values)


def _strata(found: Summed) -> Strata:
    sums = dict(zip(SUMS, found.sums, strict=True))
    judged = dict(zip(JUDGED, found.judged, strict=True))
    sure_sums = dict(zip(SURE_SUMS, found.sure_sums, strict=True))
    # Rows that are not equally sure count differently in a band too, so energy's lengths are summed by stratum.
    sums |= {f"energy_j/{name}": np.bincount(found.cells, sure_sums[name]) for name in ("wτin", "wτout")}
    return Strata(found.digits, sums, found.cells, found.certainty, sure_sums, judged, found.judged_strata)


def _counts(found: Summed, values: dict[str, set[object]]) -> Counts:
    return Counts(found.rows, found.below, found.allocated, found.modelled, found.low, found.high, values)


def _phases(rows: Rows, boundary: Boundary) -> dict[str, FloatArray]:
    """The parts of :data:`~llmpower.modelling.rows.strata.PHASES` that rows have columns for."""
    phases: dict[str, FloatArray] = {}
    if boundary.name == "gpu" and "prefill_energy_j" in rows and "decode_energy_j" in rows:
        phases |= {"energy_prefill": rows["prefill_energy_j"], "energy_decode": rows["decode_energy_j"]}
    if "time_to_first_token_s" in rows:
        phases["runtime_prefill"] = rows["time_to_first_token_s"]
    return phases


def _named(models: NDArray[np.uint32], model: NDArray[np.uint32], rows: Rows, name: str) -> dict[int, set[object]]:
    """The values that the rows of each of the ``models`` have, words for ``system``; ``model`` is each row's."""
    import pandas as pd

    column: NDArray[np.generic] = rows[name]
    first = column[0]
    if (column == first).all():
        value = rows.systems[int(first)] if name == "system" else float(first)
        return {number: {value} for number in models.tolist()}
    codes, values = pd.factorize(column)
    known = codes >= 0
    there = np.flatnonzero(np.bincount(model[known].astype(np.int64) * max(1, len(values)) + codes[known]))
    found: dict[int, set[object]] = {}
    for number, code in zip(*divmod(there, max(1, len(values))), strict=True):
        value = rows.systems[int(values[code])] if name == "system" else float(values[code])
        found.setdefault(int(number), set()).add(value)
    return found


def _sortable(value: object) -> tuple[bool, bool, object]:
    """Empty values after all others, words after numbers."""
    return value is None, isinstance(value, str), 0 if value is None else value
