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
        """From rows: each one's model, lengths, class, and ``values`` to be summed.

        ``digits`` is what is known so far of how finely each model's lengths can be kept.
        """
        for stride in STRIDES:
            if len(model) >= stride * MOST_CELLS:
                digits = _fewer(digits, model[::stride], lengths[:, ::stride])
        codes, first = number(model, *(rounded := rounded_down(lengths, digits[model])), certainty)
        m = len(first)
        sums: dict[str, FloatArray] = {"n": np.bincount(codes, minlength=m).astype(np.float64)}
        exact = bool((digits == EXACT).all())
        for name, column, kept in zip(LENGTHS, lengths, rounded, strict=True):
            sums[name] = sums["n"] * kept[first] if exact else _summed(codes, column, m)
        for name, column in values.items():
            sums[name] = _summed(codes, column, m)
        return cls(digits, model[first], rounded[:, first], certainty[first], sums)

    @classmethod
    def merged(cls, parts: Sequence[Strata]) -> Strata:
        """The sums of all parts, in as few digits as their cells together need."""
        parts = [part for part in parts if len(part)] or list(parts[:1])
        n_models = max(len(part.digits) for part in parts)
        digits = np.full(n_models, EXACT)
        for part in parts:
            digits[: len(part.digits)] = np.minimum(digits[: len(part.digits)], part.digits)
        names = dict.fromkeys(name for part in parts for name in part.sums)
        model = np.concatenate([part.model for part in parts])
        lengths = np.concatenate([part.lengths for part in parts], axis=1)
        certainty = np.concatenate([part.certainty for part in parts])
        sums = {
            name: np.concatenate([part.sums.get(name, np.zeros(len(part.model))) for part in parts]) for name in names
        }
        fewer = _fewer(digits, model, lengths)
        if len(parts) == 1 and (fewer == digits).all():
            return parts[0]
        digits = fewer
        codes, first = number(model, *(rounded := rounded_down(lengths, digits[model])), certainty)
        added = {name: _summed(codes, column, len(first)) for name, column in sums.items()}
        return cls(digits, model[first], rounded[:, first], certainty[first], added)

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
    """Number the distinct combinations of the columns, in the order in which they come; where each is first found.

    Whole numbers are packed into one, which is hashed once; columns of other numbers are hashed before that.
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
            code, n = _hashed(column) if combinations * n >= 2**62 else (code, n)
        packed = packed * n + code
        combinations *= n
    codes, distinct = pd.factorize(packed)
    first = np.empty(len(distinct), dtype=np.intp)
    first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
    return codes.astype(np.int64, copy=False), first


def _packable(column: NDArray[np.generic]) -> tuple[Codes, int]:
    """The column as numbers from 0, and how many they may be; small whole numbers stay what they are."""
    if len(column) == 0:
        return np.zeros(0, dtype=np.int64), 1
    low, high = float(column.min()), float(column.max())
    if low == high:
        return np.zeros(len(column), dtype=np.int64), 1
    if high - low < 2**40:
        whole = column.astype(np.int64)
        if column.dtype.kind == "i" or (whole == column).all():
            return whole - int(low), int(high - low) + 1
    return _hashed(column)


def _hashed(column: NDArray[np.generic]) -> tuple[Codes, int]:
    import pandas as pd

    codes, distinct = pd.factorize(column)
    return codes.astype(np.int64, copy=False), len(distinct)


def _summed(codes: Codes, values: FloatArray, n: int) -> FloatArray:
    return np.asarray(np.bincount(codes, values, n), dtype=np.float64)


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
