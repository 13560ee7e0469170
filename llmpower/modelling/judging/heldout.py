"""Errors on what a fit has not seen, and the noise below which no error can fall.

Two questions are asked of a form. Leave one cell out: how far is it off between the lengths that were measured?
Leave one length out: how far where a whole column of the grid is missing, so that the ends are extrapolated?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.fitted.models import LEAVE_ONE_CELL_OUT, LEAVE_ONE_LENGTH_OUT, HeldOut
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.regressing.regression import Regression
from llmpower.modelling.regressing.solving import Missed, judge
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import Sums
from llmpower.modelling.rows.strata import Codes

# Where more lengths than this were measured, as real traffic has them, neighbours leave together in so many bands:
# without one of a thousand lengths nothing is extrapolated.
MAX_LENGTHS = 16


def held_out_errors(predicted: FloatArray, y: FloatArray, cells: NDArray[np.integer], scheme: str) -> HeldOut:
    """Summarise predictions of every cell, shape (n_cells,), against the rows ``y``, shape (n_obs,)."""
    heldout, errors = compare(predicted, y, cells, scheme)
    return with_quantiles(heldout, errors)


def compare(
    predicted: FloatArray,
    y: FloatArray,
    cells: NDArray[np.integer],
    scheme: str = LEAVE_ONE_CELL_OUT,
    of_rows: FloatArray | None = None,
) -> tuple[HeldOut, FloatArray]:
    """Errors in all and |ŷ − y|/y of every row; medians, which cost more than all else, are left for later.

    Percentage errors are per row, negative predictions per cell. ``of_rows`` are predictions of the rows themselves,
    where cells are bands.
    """
    places, ŷ = (cells, predicted) if of_rows is None else (np.arange(len(y)), of_rows)
    errors, missed = judge(y, places.astype(np.int64, copy=False), np.ascontiguousarray(ŷ))
    return in_all(missed, int((predicted <= 0).sum()), scheme), errors


def in_all(missed: Missed, negative: int, scheme: str = LEAVE_ONE_CELL_OUT) -> HeldOut:
    """The errors of rows, with how many predictions are ``negative``."""
    bias = missed.predicted / missed.measured - 1
    return HeldOut(missed.errors / missed.n, None, missed.greatest, negative, scheme, bias=bias)


def with_quantiles(heldout: HeldOut, errors: FloatArray) -> HeldOut:
    """With the median, and what 95 % stay below."""
    median, p95 = _quantiles(errors, (0.5, 0.95))
    return replace(heldout, median_ape=median, p95_ape=p95)


def _quantiles(values: FloatArray, shares: Sequence[float]) -> list[float]:
    """What these shares of values ≥ 0 stay below, a straight line between neighbours, as ``np.quantile`` has it.

    Values whose first 16 bits are the same, which are their size to four binary digits, are counted, and those sorted
    that the neighbours are among. Selection takes two to three times as long: at each step it has to guess the middle.
    """
    last = len(values) - 1
    begin = values.view(np.int64) >> 48
    begin -= begin.min()
    n = np.bincount(begin)
    passed = np.cumsum(n)
    found = []
    for q in shares:
        at = int(q * last)
        first, end = np.searchsorted(passed, [at, min(at + 1, last)], side="right")
        alike = np.sort(values[(begin >= first) & (begin <= end)])
        place = at - int(passed[first] - n[first])
        a, b = float(alike[place]), float(alike[min(place + 1, len(alike) - 1)])
        found.append(a + (b - a) * (q * last - at))
    return found


def predict_held_out(regression: Regression) -> tuple[FloatArray, FloatArray] | None:
    """ŷ of every cell from all others, and the coefficients that gave it; ``None`` when some cell cannot be spared."""
    folds = regression.without_each_cell()
    if folds is None:
        return None
    return regression.predict(folds), folds


def leave_one_length_out(
    regression: Regression, group: Group, y: FloatArray, bands: Sequence[Codes] | None = None
) -> HeldOut:
    """Predict all cells of one input length from all others, and the same for each output length.

    Lengths that the others cannot do without are not counted; all errors are ``None`` when no length can be spared.
    ``bands`` spare what forms and targets share; by default they are :func:`length_bands`.
    """

    def without(band: Codes) -> tuple[FloatArray, Missed]:
        β = regression.without_each_part(band, int(band.max()) + 1)[band]
        return regression.judge(β, regression.predict(β), group.cells, y)

    (of_inputs, missed), (of_outputs, more) = map(without, length_bands(group) if bands is None else bands)
    missed += more
    if not missed.n:
        return HeldOut(None, None, None, None, LEAVE_ONE_LENGTH_OUT)
    heldout = in_all(missed, missed.negative, LEAVE_ONE_LENGTH_OUT)
    return with_quantiles(heldout, np.concatenate([of_inputs, of_outputs]))


def replicate_noise(sums: Sums) -> float | None:
    """Relative standard deviation of a trial about its cell's mean, pooled; ``None`` where no cell was repeated.

    s² = Σ_c Σ_i (y_ci/ȳ_c − 1)² / Σ_c (n_c − 1),     Σ_i (y_ci/ȳ_c − 1)² = Σ_i y_ci²/ȳ_c² − n_c

    ``sums`` are those of rows that count 1 each.
    """
    degrees = float((sums.n - 1).sum())
    if degrees == 0:
        return None
    squares = sums.wyy * (sums.n / sums.wy) ** 2 - sums.n
    return float(np.sqrt(max(0.0, float(squares[sums.n > 1].sum())) / degrees))


def length_bands(group: Group) -> tuple[Codes, Codes]:
    """Which cells leave together: the number of each cell's input length, or band of them, and of its output length."""
    return _bands(group.cell_input_tokens), _bands(group.cell_output_tokens)


def _bands(tokens: FloatArray) -> Codes:
    ascending = np.sort(tokens)
    edges = ascending[1:][np.diff(ascending) > 0]
    if len(edges) >= MAX_LENGTHS:
        last = len(ascending) - 1
        edges = np.unique(np.interp(np.arange(1, MAX_LENGTHS) * last / MAX_LENGTHS, np.arange(last + 1), ascending))
    band = np.searchsorted(edges, tokens, side="right")
    there = np.bincount(band) > 0
    return np.asarray((np.cumsum(there) - 1)[band], dtype=np.int64)
