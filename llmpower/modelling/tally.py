"""What is kept of rows while they go by: sums, the rows that errors are judged by, and what should be said of them.

The tally of a table is made in one step; that of a data set batch by batch; those of several workers are merged. From
any of them :meth:`Tally.models` gives what is fitted, so there is one way to fit however rows came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.boundary import Boundary, Covered
from llmpower.modelling.frames import Rows
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.sample import JUDGED_ROWS, LAST, Sample
from llmpower.modelling.strata import EXACT, LENGTHS, Codes, Strata, classes

TARGETS = ("energy_j", "runtime_s")
PHASES = ("energy_prefill", "energy_decode", "runtime_prefill", "runtime_decode")
"""Parts of energy and runtime, where rows tell them."""

POOLED = ("system", "batch_size", "concurrency")
"""Columns whose values are named where one model's rows differ in them."""

SPANNED = (*LENGTHS, "input_tokens_each", "output_tokens_each")
"""Of what the lowest and highest are kept; the last two are those of one request of a batch."""

MOST_NAMES = 50
STRETCH = 1 << 17
"""Rows that are looked at together."""

PENDING = 1 << 18
"""So many rows, or strata of others, wait before they are merged."""

Key = tuple[object, ...]
"""The values that a model's rows are grouped by."""


@dataclass(slots=True)
class Counts:
    """What is counted of rows that are fitted together; ``allocated`` and ``modelled`` are shares and guesses."""

    rows: int = 0
    below: int = 0
    allocated: int = 0
    modelled: int = 0
    low: FloatArray = field(default_factory=lambda: np.full(len(SPANNED), np.inf))
    high: FloatArray = field(default_factory=lambda: np.full(len(SPANNED), -np.inf))
    values: dict[str, set[object]] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Those of further rows."""
        for name in ("rows", "below", "allocated", "modelled"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        for name, values in other.values.items():
            known = self.values.setdefault(name, set())
            if len(known) <= MOST_NAMES:
                known |= values


@dataclass(frozen=True, slots=True)
class Tallied:
    """One model's part of a tally: all its ``rows``, and strata, judged rows and counts of those that are fitted."""

    key: Key
    covers: str | None
    rows: int
    simulated: int
    strata: Strata
    digits: int
    judged: dict[str, FloatArray]
    counts: Counts


class Tally:
    """Sums, judged rows and counts of models by their keys; see the module.

    ``judged_rows`` is how many rows of a model are kept to judge errors by, ``None`` for all of them.
    """

    def __init__(self, boundary: Boundary, *, judged_rows: int | None = JUDGED_ROWS) -> None:
        self.boundary = boundary
        self._judged_rows = judged_rows
        # All rows and simulated ones of each key, whether their energy was measured or not.
        self._seen: dict[Key, tuple[int, int]] = {}
        # What is fitted together: a key, and what its energy covers.
        self._numbers: dict[tuple[Key, str | None], int] = {}
        self._counts: list[Counts] = []
        self._strata: list[Strata] = [Strata.empty()]
        self._samples: list[Sample] = [Sample.empty()]

    def add(self, keys: Sequence[Key], of_row: Codes, rows: Rows) -> None:
        """Further rows, checked; ``of_row`` numbers each one's key."""
        # In stretches whose columns a cache holds: a row passes through a score of them on its way.
        for start in range(0, len(rows), STRETCH):
            end = min(start + STRETCH, len(rows))
            self._add(keys, of_row[start:end], rows.between(start, end))

    def _add(self, keys: Sequence[Key], of_row: Codes, rows: Rows) -> None:
        seen = np.bincount(of_row, minlength=len(keys))
        simulated = np.bincount(of_row[rows["simulated"]], minlength=len(keys))
        for key, n, n_simulated in zip(keys, seen.tolist(), simulated.tolist(), strict=True):
            self._see(key, n, n_simulated)
        for covered in self.boundary.energies(rows.numbers()):
            part = rows if covered.rows.all() else rows.take(covered.rows)
            self._add_covered(keys, of_row[covered.rows], part, covered)
        self._settle()

    def merge(self, other: Tally) -> None:
        """What another tally has."""
        for key, (n, simulated) in other._seen.items():
            self._see(key, n, simulated)
        numbers = np.zeros(len(other._numbers), dtype=np.int64)
        for pair, theirs in other._numbers.items():
            numbers[theirs] = self._number(pair)
            self._counts[numbers[theirs]].add(other._counts[theirs])
        for strata in other._strata:
            self._strata.append(strata.renumbered(numbers, len(self._numbers)))
        for sample in other._samples:
            self._samples.append(sample.renumbered(numbers, len(self._numbers)))
        self._settle()

    def compact(self) -> Tally:
        """Itself, with nothing left to be merged: what a worker sends."""
        self._strata = [Strata.merged(self._strata)]
        self._samples = [Sample.merged(self._samples, self._judged_rows)]
        return self

    @property
    def rows(self) -> int:
        """How many rows went by."""
        return sum(n for n, _ in self._seen.values())

    def models(self) -> Iterator[Tallied]:
        """Each model's part, in the order of their keys."""
        self.compact()
        for key in sorted(self._seen, key=lambda values: tuple(map(_sortable, values))):
            n, simulated = self._seen[key]
            covers = self._covers(key)
            if covers is None:
                yield Tallied(key, None, n, simulated, Strata.empty(), EXACT, {}, Counts())
                continue
            number = self._numbers[key, covers[0]]
            yield Tallied(
                key,
                covers[0],
                n,
                simulated,
                self._strata[0].of_model(number),
                int(self._strata[0].digits[number]) if number < len(self._strata[0].digits) else EXACT,
                self._samples[0].of_model(number),
                self._counts[number],
            )

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
            self._numbers[pair] = len(self._counts)
            self._counts.append(Counts())
        return self._numbers[pair]

    def _add_covered(self, keys: Sequence[Key], of_row: Codes, rows: Rows, covered: Covered) -> None:
        """Rows of one coverage; those with something left above idle are summed."""
        present = np.bincount(of_row, minlength=len(keys)) > 0
        numbers = np.array(
            [self._number((key, covered.name)) if there else -1 for key, there in zip(keys, present, strict=True)]
        )
        model, energy_j, std_j = numbers[of_row], covered.energy_j, covered.std_j
        kept = energy_j > 0
        if not kept.all():
            below = np.bincount(model[energy_j <= 0], minlength=len(self._counts))
            for number in np.flatnonzero(below):
                self._counts[number].below += int(below[number])
            model, energy_j, rows = model[kept], energy_j[kept], rows.take(kept)
            std_j = None if std_j is None else std_j[kept]
        if not len(model):
            return
        lengths = _lengths(rows)
        self._count(model, rows, lengths)
        runtime_s = rows["runtime_s"]
        variance = None if std_j is None else (std_j / energy_j) ** 2
        phases = _phases(rows, self.boundary)
        values: dict[str, FloatArray] = {}
        for name, y in zip(TARGETS, (energy_j, runtime_s), strict=True):
            inverse = 1 / y
            values |= {f"{name}/w": inverse * inverse, f"{name}/wy": inverse, f"{name}/y": y, f"{name}/yy": y * y}
        certainty = np.zeros(len(model), dtype=np.int64)
        if variance is not None:
            certainty = classes(variance)
            known = ~np.isnan(variance)
            whole = bool(known.all())
            values["variance"] = variance if whole else np.where(known, variance, 0.0)
        for name, y in phases.items():
            told = y > 0
            inverse = np.divide(1, y, out=np.zeros(len(y)), where=told)
            values |= {f"{name}/n": told.astype(np.float64), f"{name}/w": inverse * inverse, f"{name}/wy": inverse}
        digits = np.full(len(self._counts), EXACT)
        digits[: len(self._strata[0].digits)] = self._strata[0].digits
        self._strata.append(Strata.of_rows(digits, model, lengths, certainty, values))
        last = np.full(len(self._counts), LAST, dtype=np.uint64)
        last[: len(self._samples[0].last)] = self._samples[0].last
        columns = {"energy_j": energy_j, "runtime_s": runtime_s, "certainty": certainty.astype(np.float64)}
        columns |= dict(zip(LENGTHS, lengths, strict=True)) | phases
        self._samples.append(Sample.of_rows(last, model, columns))

    def _count(self, model: Codes, rows: Rows, lengths: FloatArray) -> None:
        n = len(self._counts)
        found = [Counts(rows=each) for each in np.bincount(model, minlength=n).tolist()]
        for name in ("allocated", "modelled"):
            if name in rows:
                for each, count in zip(found, np.bincount(model[rows[name]], minlength=n).tolist(), strict=True):
                    setattr(each, name, count)
        each_of = (
            [lengths[0], lengths[1]] if (lengths[2] == 1).all() else [lengths[0] / lengths[2], lengths[1] / lengths[2]]
        )
        for at, column in enumerate((*lengths, *each_of)):
            low, high = np.full(n, np.inf), np.full(n, -np.inf)
            np.minimum.at(low, model, column)
            np.maximum.at(high, model, column)
            for number in range(n):
                found[number].low[at], found[number].high[at] = low[number], high[number]
        for name in POOLED:
            if name in rows:
                for number, value in _pairs(model, rows, name):
                    found[number].values.setdefault(name, set()).add(value)
        for known, more in zip(self._counts, found, strict=True):
            if more.rows:
                known.add(more)

    def _settle(self) -> None:
        """Merge what waits, where it has become much."""
        if sum(map(len, self._strata[1:])) > PENDING:
            self._strata = [Strata.merged(self._strata)]
        if self._judged_rows is not None and sum(map(len, self._samples[1:])) > max(
            self._judged_rows * len(self._counts), 1
        ):
            self._samples = [Sample.merged(self._samples, self._judged_rows)]


def _lengths(rows: Rows) -> FloatArray:
    """Of :data:`LENGTHS`, shape (4, n); a row is one request alone where it does not say."""
    counts = [
        np.where(rows[column] >= 1, rows[column], 1.0) if column in rows else np.ones(len(rows))
        for column in ("batch_size", "concurrency")
    ]
    return np.stack([rows["input_tokens"], rows["output_tokens"], counts[0], counts[0] * counts[1]])


def _phases(rows: Rows, boundary: Boundary) -> dict[str, FloatArray]:
    """The parts of :data:`PHASES` that rows have columns for."""
    phases: dict[str, FloatArray] = {}
    if boundary.name == "gpu" and "prefill_energy_j" in rows and "decode_energy_j" in rows:
        phases |= {"energy_prefill": rows["prefill_energy_j"], "energy_decode": rows["decode_energy_j"]}
    if "time_to_first_token_s" in rows:
        first = rows["time_to_first_token_s"]
        phases |= {"runtime_prefill": first, "runtime_decode": rows["runtime_s"] - first}
    return phases


def _pairs(model: Codes, rows: Rows, name: str) -> Iterator[tuple[int, object]]:
    """Each model with each value that its rows have, words for ``system``."""
    import pandas as pd

    column: NDArray[np.generic] = rows[name]
    if (column == column[0]).all():
        pairs = ((number, column[0]) for number in np.flatnonzero(np.bincount(model)))
    else:
        codes, values = pd.factorize(column)
        known = codes >= 0
        there = np.flatnonzero(np.bincount(model[known] * len(values) + codes[known]))
        pairs = ((number, values[code]) for number, code in zip(*divmod(there, max(1, len(values))), strict=True))
    for number, value in pairs:
        if name == "system":
            yield int(number), rows.systems[int(value)]
        else:
            yield int(number), float(value)


def _sortable(value: object) -> tuple[bool, object]:
    """Empty values after all others."""
    return value != value or value is None, value if value == value else 0
