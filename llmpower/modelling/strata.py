"""Rows of any number, kept as sums: one stratum for each cell of a model and each class of certainty.

Least squares needs of rows that share a design row no more than a few sums, and sums of two portions of rows add up. So
a table, the batches of a data set and the shares of several workers all come down to the same thing, which is as large
as there are distinct lengths, not rows.

**Certainty.** What a row counts for depends on (s/y)², the variance of its error relative to its energy
(:mod:`~llmpower.modelling.weights`). Rows whose variances lie within the same power of two share a stratum and count
alike, by their mean: weights that are off by less than √2 either way cost 4 % of the estimate's efficiency at most.

**Bands.** A campaign has a hundred cells; traffic has as many as rows, and then nothing collapses. A model with more
than :data:`MOST_CELLS` has its lengths rounded down to so many leading binary digits that it has no more, the most of
:data:`DIGITS` that do: with four, lengths from 256 to 511 fall in eight bands of 32. A band is fitted at the mean
lengths of its rows. How many digits that takes depends on all rows together and not on their order, so portions agree
on it however they were cut. The fit says so in its warnings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray

Codes = NDArray[np.int64]

LENGTHS = ("input_tokens", "output_tokens", "batch_size", "sharing")
"""What makes a cell: token counts of the row, its requests, and the requests that a decode step served."""

MOST_CELLS = 8192
EXACT = 53
DIGITS = (EXACT, 8, 7, 6, 5, 4, 3, 2, 1)
"""Leading binary digits that lengths may be kept to, the first as they are."""

FEW = 1 << 10
TABLE = 1 << 21
"""Whole numbers within so many are taken as they are; so many combinations have a table."""

STRIDES = (64, 16, 4)
"""Every so manieth row is asked first: what is too fine for some of the rows is too fine for all."""

UNKNOWN = -2000
"""The class of rows whose variance is not known; that of 0 is one above it, all others are exponents of two."""


@dataclass(frozen=True, slots=True)
class Strata:
    """Sums by stratum: ``model``, ``lengths`` (4, m) and ``certainty`` tell strata apart, ``sums`` are by name.

    ``digits`` has, for each model by its number, the binary digits that its lengths are kept to.
    """

    digits: NDArray[np.int64]
    model: Codes
    lengths: FloatArray
    certainty: Codes
    sums: Mapping[str, FloatArray]

    @classmethod
    def empty(cls) -> Strata:
        """Of no rows."""
        none = np.zeros(0, dtype=np.int64)
        return cls(none, none, np.zeros((len(LENGTHS), 0)), none, {})

    @classmethod
    def of_rows(
        cls,
        digits: NDArray[np.int64],
        model: Codes,
        lengths: FloatArray,
        certainty: Codes,
        values: Mapping[str, FloatArray],
    ) -> Strata:
        """From rows, each a stratum for now: its model, lengths, class, and ``values`` to be summed.

        ``digits`` is what is known so far of how finely each model's lengths can be kept.
        """
        for stride in STRIDES:
            if len(model) >= stride * MOST_CELLS:
                digits = _fewer(digits, model[::stride], lengths[:, ::stride])
        sums = {"n": np.ones(len(model)), **dict(zip(LENGTHS, lengths, strict=True)), **values}
        return cls(digits, model, lengths, certainty, sums)

    @classmethod
    def merged(cls, parts: Sequence[Strata]) -> Strata:
        """The sums of all parts, in as few digits as their cells together need."""
        parts = [part for part in parts if len(part)] or list(parts[:1])
        n_models = max(len(part.digits) for part in parts)
        digits = np.full(n_models, EXACT)
        for part in parts:
            digits[: len(part.digits)] = np.minimum(digits[: len(part.digits)], part.digits)
        model = np.concatenate([part.model for part in parts])
        certainty = np.concatenate([part.certainty for part in parts])
        lengths = rounded_down(np.concatenate([part.lengths for part in parts], axis=1), digits[model])
        codes, first = number(model, *lengths, certainty)
        model, lengths, certainty = model[first], lengths[:, first], certainty[first]
        fewer = _fewer(digits, model, lengths)
        if (fewer < digits).any():
            digits, lengths = fewer, rounded_down(lengths, fewer[model])
            again, first = number(model, *lengths, certainty)
            codes, model, lengths, certainty = again[codes], model[first], lengths[:, first], certainty[first]
        sums: dict[str, FloatArray] = {}
        for name in dict.fromkeys(name for part in parts for name in part.sums):
            if name in LENGTHS and digits.min() == EXACT:
                sums[name] = sums["n"] * lengths[LENGTHS.index(name)]
                continue
            column = np.concatenate([part.sums.get(name, np.zeros(len(part.model))) for part in parts])
            sums[name] = np.asarray(np.bincount(codes, column, len(model)), dtype=np.float64)
        return cls(digits, model, lengths, certainty, sums)

    def renumbered(self, numbers: Codes, n_models: int) -> Strata:
        """The same with ``numbers`` for its models, of so many."""
        digits = np.full(n_models, EXACT)
        digits[numbers[: len(self.digits)]] = self.digits
        return Strata(digits, numbers[self.model], self.lengths, self.certainty, self.sums)

    def of_model(self, model: int) -> Strata:
        """One model's strata, in the order of their lengths."""
        own = np.flatnonzero(self.model == model)
        own = own[np.lexsort((self.certainty[own], *self.lengths[::-1, own]))]
        return Strata(
            self.digits,
            self.model[own],
            self.lengths[:, own],
            self.certainty[own],
            {name: column[own] for name, column in self.sums.items()},
        )

    def __len__(self) -> int:
        return len(self.model)


def rounded_down(lengths: FloatArray, digits: NDArray[np.int64]) -> FloatArray:
    """Lengths, shape (k, n), to so many leading binary digits, shape (n,).

    A float keeps all but the first of its digits in its last 52 bits, so those that are not wanted are cleared there.
    """
    if len(digits) == 0 or digits.min() == EXACT:
        return lengths
    if digits.min() == digits.max():
        digits = digits[:1]
    kept = ~((np.int64(1) << (EXACT - digits)) - 1)
    return np.asarray((np.ascontiguousarray(lengths).view(np.int64) & kept).view(np.float64))


def classes(relative_variance: FloatArray) -> Codes:
    """The class of each row's variance: the exponent of the power of two above it."""
    found: Codes = np.frexp(relative_variance)[1].astype(np.int64)
    found[relative_variance == 0] = UNKNOWN + 1
    found[np.isnan(relative_variance)] = UNKNOWN
    return found


def number(*columns: NDArray[np.generic]) -> tuple[Codes, NDArray[np.intp]]:
    """Number the distinct combinations of the columns; where each is first found.

    Columns of few values become small numbers, and these are packed into one: where there are no more combinations than
    a table has room for, a table tells which there are; else they are hashed.
    """
    import pandas as pd

    packed = np.zeros(len(columns[0]), dtype=np.int64)
    combinations = 1
    for column in columns:
        code, n = _packable(column)
        if n == 1:
            continue
        if combinations * n >= 2**62:
            packed, distinct = pd.factorize(packed)
            combinations = len(distinct)
        packed = packed * n + code
        combinations *= n
    if combinations <= max(len(packed), TABLE):
        there = np.zeros(combinations, dtype=bool)
        there[packed] = True
        place = np.cumsum(there, dtype=np.int64) - 1
        codes, n_distinct = place[packed], int(place[-1]) + 1
    else:
        codes, distinct = pd.factorize(packed)
        codes, n_distinct = codes.astype(np.int64, copy=False), len(distinct)
    first = np.empty(n_distinct, dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return codes, first


def _packable(column: NDArray[np.generic]) -> tuple[Codes, int]:
    """The column as numbers from 0, and how many they may be; whole numbers that are close stay what they are."""
    if len(column) == 0:
        return np.zeros(0, dtype=np.int64), 1
    low, high = float(column.min()), float(column.max())
    if low == high:
        return np.zeros(len(column), dtype=np.int64), 1
    if high - low < FEW:
        whole = column.astype(np.int64)
        if column.dtype.kind == "i" or (whole == column).all():
            return whole - int(low), int(high - low) + 1
    return _hashed(column)


def _hashed(column: NDArray[np.generic]) -> tuple[Codes, int]:
    import pandas as pd

    codes, distinct = pd.factorize(column)
    return codes.astype(np.int64, copy=False), len(distinct)


def _fewer(digits: NDArray[np.int64], model: Codes, lengths: FloatArray) -> NDArray[np.int64]:
    """The most digits, none above those given, that leave each model no more than the most cells."""
    digits = digits.copy()
    while True:
        # The cells of fewer digits are made of those of more.
        rounded = rounded_down(lengths, digits[model])
        _, first = number(model, *rounded)
        model, lengths = model[first], rounded[:, first]
        many = (np.bincount(model, minlength=len(digits)) > MOST_CELLS) & (digits > DIGITS[-1])
        if not many.any():
            return digits
        for each in np.flatnonzero(many):
            digits[each] = next(d for d in DIGITS if d < digits[each])
        still = many[model]
        model, lengths = model[still], lengths[:, still]
