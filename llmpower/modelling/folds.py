"""Coefficients as they would be without a cell, or without a group of cells, and no refit from the data.

A model is asked about lengths that nobody measured, so the rows of one cell leave together: repeated trials would
otherwise vouch for each other. With A, b, G, g of :class:`~llmpower.modelling.cells.Cells` and H = A·G⁻¹, deleting row
c leaves (Sherman and Morrison)

    β₋c = β − H_c·r_c/(1 − h_c),     r = b − Aβ,   h_c = H_c·A_c

for all cells at once, in a few passes over A. Where coefficients must not be negative the same holds on the terms
above zero as long as the same terms stay there, which their signs and the gradient of the others show; a fold for which
they do not is solved for anew, a problem of the form's size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.cells import Cells, inverse, solve_normal
from llmpower.modelling.linear import FloatArray

# What may be left of a cell's 1 − h, or of a group's smallest eigenvalue, before the rest is taken not to determine
# the form.
SINGULAR = 1e-8
# How steep the objective may rise with a term at zero, relative to the lengths of its column and of b.
KKT_TOLERANCE = 1e-9


def without_each_cell(cells: Cells, β: FloatArray, *, non_negative: bool) -> FloatArray | None:
    """β₋c for every cell c, shape (m, n_terms); ``None`` when some cell cannot be spared.

    ``β`` is what :meth:`Cells.solve` gives.
    """
    A, b, G, g = cells.A, cells.b, cells.G, cells.g
    free = β > 0 if non_negative else np.ones(len(β), dtype=bool)
    if not free.all() and _leverage(A, _times(A, inverse(G))).max() > 1 - SINGULAR:
        return None
    if not free.any():
        return np.tile(β, (len(A), 1))
    A_free = A if free.all() else A[:, free]
    H = _times(A_free, inverse(G[np.ix_(free, free)]))
    h = _leverage(A_free, H)
    if h.max() > 1 - SINGULAR:
        return None
    step = (b - A_free @ β[free]) / (1 - h)
    folds = np.zeros_like(A)
    folds[:, free] = β[free] - H * step[:, np.newaxis]
    if non_negative:
        for c in np.flatnonzero(_leaves_the_face(cells, folds, free)):
            folds[c] = solve_normal(G - np.outer(A[c], A[c]), g - A[c] * b[c], non_negative=True)
    return folds


def without(cells: Cells, out: NDArray[np.intp], *, non_negative: bool) -> FloatArray | None:
    """β without the rows ``out`` of ``cells``, shape (n_terms,); ``None`` when the others do not determine it."""
    A, b = cells.A[out], cells.b[out]
    G = cells.G - A.T @ A
    D = np.sqrt(np.diag(cells.G))
    if np.linalg.eigvalsh(G / np.outer(D, D))[0] < SINGULAR:
        return None
    return solve_normal(G, cells.g - A.T @ b, non_negative=non_negative)


def _times(A: FloatArray, inverted: FloatArray) -> FloatArray:
    """H = A·G⁻¹, each column contiguous as those of A are."""
    return np.asarray((inverted @ A.T).T)


def _leverage(A: FloatArray, H: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->j", A.T, H.T))


def _leaves_the_face(cells: Cells, folds: FloatArray, free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Folds whose downdate is not the constrained optimum: a sign is wrong, or a term at zero is worth raising.

    Optimal is what has β ≥ 0 and, on the terms at zero, A₋cᵀ(b₋c − A₋cβ) ≤ 0 (Karush, Kuhn and Tucker).
    """
    wrong = (folds[:, free] < 0).any(axis=1)
    if free.all():
        return np.asarray(wrong)
    A, b, G, g = cells.A, cells.b, cells.G, cells.g
    residual = b - _leverage(A, folds)
    gradient = g[~free] - folds @ G[:, ~free] - A[:, ~free] * residual[:, np.newaxis]
    scale = np.sqrt(np.diag(G))[~free] * np.sqrt(b @ b)
    return np.asarray(wrong | (gradient > KKT_TOLERANCE * scale).any(axis=1))
