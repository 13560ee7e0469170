"""Rows by which errors are judged, where there are more than that takes: the same ones in whatever order they come.

Coefficients are found from all rows. How far predictions are off is an average, and what 16,384 rows of a model say of
it is true within a percent of itself; medians need the rows themselves, which a data set of a hundred million has
no room for. A row's number is a hash of its own values, and those with the smallest numbers stay: a set that does not
depend on order, portions or workers, so that every way to fit the same rows judges by the same ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.strata import Codes

JUDGED_ROWS = 16384
LAST = np.iinfo(np.uint64).max

# Odd constants of SplitMix64 (Steele, Lea and Flood 2014).
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Sample:
    """``columns`` of rows by name, and each one's ``model``; ``last`` has a model's largest number that may stay."""

    last: NDArray[np.uint64]
    model: Codes
    columns: Mapping[str, FloatArray]

    @classmethod
    def empty(cls) -> Sample:
        """No rows."""
        return cls(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.int64), {})

    @classmethod
    def of_rows(cls, last: NDArray[np.uint64], model: Codes, columns: Mapping[str, FloatArray]) -> Sample:
        """Those of some rows that may stay."""
        if (last != LAST).any():
            stay = np.flatnonzero(_numbers(columns) <= last[model])
            model, columns = model[stay], {name: column[stay] for name, column in columns.items()}
        return cls(last, model, columns)

    @classmethod
    def merged(cls, parts: Sequence[Sample], most: int | None = JUDGED_ROWS) -> Sample:
        """Of all parts together, at most so many rows of each model, all of them for ``None``."""
        n_models = max(len(part.last) for part in parts)
        last = np.full(n_models, LAST, dtype=np.uint64)
        for part in parts:
            last[: len(part.last)] = np.minimum(last[: len(part.last)], part.last)
        model = np.concatenate([part.model for part in parts])
        names = dict.fromkeys(name for part in parts for name in part.columns)
        columns = {
            name: np.concatenate([part.columns.get(name, np.full(len(part.model), np.nan)) for part in parts])
            for name in names
        }
        counts = np.bincount(model, minlength=n_models)
        if most is None or (counts <= most).all():
            return cls(last, model, columns)
        numbers = _numbers(columns)
        stay = np.ones(len(model), dtype=bool)
        for each in np.flatnonzero(counts > most):
            own = np.flatnonzero(model == each)
            order = np.argpartition(numbers[own], most - 1)
            last[each] = numbers[own[order[most - 1]]]
            stay[own[order[most:]]] = False
        kept = np.flatnonzero(stay)
        return cls(last, model[kept], {name: column[kept] for name, column in columns.items()})

    def renumbered(self, numbers: Codes, n_models: int) -> Sample:
        """The same with ``numbers`` for its models, of so many."""
        last = np.full(n_models, LAST, dtype=np.uint64)
        last[numbers[: len(self.last)]] = self.last
        return Sample(last, numbers[self.model], self.columns)

    def of_model(self, model: int) -> dict[str, FloatArray]:
        """One model's rows."""
        own = np.flatnonzero(self.model == model)
        return {name: column[own] for name, column in self.columns.items()}

    def __len__(self) -> int:
        return len(self.model)


def _numbers(columns: Mapping[str, FloatArray]) -> NDArray[np.uint64]:
    """A number for each row from its energy, runtime and lengths, as good as drawn by chance."""
    number = np.zeros(len(columns["energy_j"]), dtype=np.uint64)
    for name in ("energy_j", "runtime_s", "input_tokens", "output_tokens"):
        number ^= np.ascontiguousarray(columns[name]).view(np.uint64)
        for shift, factor in zip((30, 27), _MIX, strict=True):
            number ^= number >> np.uint64(shift)
            number *= factor
        number ^= number >> np.uint64(31)
    return number
