"""The held-out error of ``--form auto`` as a whole, whose choice of the form has not seen the cell either.

The least of several held-out errors is a little less than what its form will show, because the cells that it is of have
chosen it. So for each cell c the form is chosen once more, by the errors on all other cells, and what that form says
without c is compared with c: choice and assessment each by cells of their own (Stone 1974; Varma and Simon 2006).

    ŷ_c = x_c·β₋c of the form f(c),     f(c) chosen by the errors on all cells c' ≠ c

Those errors are of fits without both c' and c, refits of the form's size. Of more than :data:`FEW_CELLS` the one cell c
hardly matters to what is said of c', and the fits without c' alone serve, which are there already (decision 083).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.fitted.models import NESTED, HeldOut
from llmpower.modelling.judging.choosing import NEGLIGIBLE, Candidate, by_cell, paired_difference
from llmpower.modelling.judging.heldout import held_out_errors, predict_held_out
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.groups import Group

FEW_CELLS = 32
# What follows takes the square of these; the more cells there are, the less any of them has to say in the choice.
MOST_CELLS = 256


def nested(candidates: Sequence[Candidate], group: Group, y: FloatArray) -> HeldOut | None:
    """Errors of the rows ``y`` by the form that is chosen without their cell.

    ``None`` where nothing was chosen, where there are more cells than :data:`MOST_CELLS` or more rows than errors are
    judged by, and where some cell can be spared by no form.
    """
    known = [candidate for candidate in candidates if candidate.folds is not None]
    if len(candidates) < 2 or not known or not group.whole or group.n_cells > MOST_CELLS:
        return None
    other = ~np.eye(group.n_cells, dtype=bool)
    predicted, errors = map(np.stack, zip(*(_without_two(candidate, group, y) for candidate in known), strict=True))
    negative = np.any((predicted <= 0) & other, axis=-1)
    n_terms = np.array([candidate.n_terms for candidate in known])
    form = _chosen(np.where(other, errors, 0), negative, n_terms, np.bincount(group.cells) * other)
    if form is None:
        return None
    c = np.arange(group.n_cells)
    return held_out_errors(predicted[form, c, c], y, group.cells, NESTED)


def _without_two(candidate: Candidate, group: Group, y: FloatArray) -> tuple[FloatArray, FloatArray]:
    """ŷ of cell c' without it and c, and Σ|ŷ − y|/y over its rows, shape (m, m) with c' last.

    NaN where the other cells do not determine the form.
    """
    regression, folds, m = candidate.regression, candidate.folds, group.n_cells
    assert folds is not None
    assert candidate.errors is not None
    if m > FEW_CELLS:
        without_one = regression.predict(folds), by_cell(candidate.errors, group.cells)
        return np.broadcast_to(without_one[0], (m, m)), np.broadcast_to(without_one[1], (m, m))
    predicted = np.full((m, m), np.nan)
    for c in range(m):
        with suppress(np.linalg.LinAlgError):  # weights so far apart that nothing but c told the terms apart
            held_out = predict_held_out(regression.without(c))
            if held_out is not None:
                predicted[c] = held_out[0]
    of_rows = np.abs(predicted[:, group.cells] / y - 1)
    places = np.arange(m)[:, np.newaxis] * m + group.cells
    return predicted, by_cell(of_rows.ravel(), places.ravel()).reshape(m, m)


def _chosen(
    errors: FloatArray, negative: NDArray[np.bool_], n_terms: NDArray[np.intp], n: NDArray[np.intp]
) -> NDArray[np.intp] | None:
    """The form that :func:`~llmpower.modelling.judging.choosing.choose` would keep without cell c, for each c.

    ``None`` where some cell can be spared by no form.
    ``errors`` (n_forms, m, m) are the sums over the ``n`` (m, m) rows of each cell, both 0 for c itself, NaN where the
    form is not determined; ``negative`` (n_forms, m) says where it predicts some other cell at or below zero.
    """
    mape = np.round(errors.sum(axis=-1) / n.sum(axis=-1), 12)
    if np.isnan(mape).all(axis=0).any():
        return None
    standing = np.where(np.isnan(mape), 2, negative)
    terms = np.broadcast_to(n_terms[:, np.newaxis], mape.shape)
    best = np.lexsort((terms, mape, standing), axis=0)[0]
    c = np.arange(len(n))
    excess, error = paired_difference(errors - errors[best, c], n)
    as_good = (standing == standing[best, c]) & (terms < n_terms[best]) & (excess <= np.maximum(error, NEGLIGIBLE))
    as_good[best, c] = True
    chosen: NDArray[np.intp] = np.lexsort((mape, np.where(as_good, terms, n_terms.max() + 1)), axis=0)[0]
    return chosen
