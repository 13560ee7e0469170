"""Held-out error, one (τin, τout) cell at a time, for both estimators, without refitting from the data.

A model is asked about lengths that nobody measured, so the rows of one length pair leave together: repeated trials
of a cell would otherwise vouch for each other. The design is orthogonalised once; after that a fold is a problem of
the size of the form, whatever the number of rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.estimators import non_negative_least_squares
from llmpower.modelling.forms import FloatArray
from llmpower.modelling.models import HeldOut

# Smallest eigenvalue of I − QsᵀQs below which the remaining rows no longer determine the form.
SINGULAR = 1e-10


def leave_one_cell_out(design: FloatArray, y: FloatArray, cells: NDArray[np.intp], *, non_negative: bool) -> HeldOut:
    """Predict each cell from all others and summarise the errors.

    ``design`` has shape (n_obs, n_terms), ``y`` (n_obs,); ``cells`` numbers each row's cell from 0. Absolute
    percentage errors are per row, negative predictions per cell. All errors are ``None`` when some cell cannot be
    spared.
    """
    predicted = predict_held_out(design, y, cells, non_negative=non_negative)
    if predicted is None:
        return HeldOut(None, None, None, None)
    ape = np.abs(predicted - y) / y
    return HeldOut(
        mape=float(ape.mean()),
        median_ape=float(np.median(ape)),
        worst_ape=float(ape.max()),
        negative_predictions=len(np.unique(cells[predicted <= 0])),
    )


def predict_held_out(
    design: FloatArray, y: FloatArray, cells: NDArray[np.intp], *, non_negative: bool
) -> FloatArray | None:
    """ŷ of every row from a fit to the rows of all other cells; ``None`` when some cell cannot be spared.

    With rows weighted by w (1, or 1/y), A = diag(w)·X = Q·R, b = w·y, φ = R·β, and s the rows of one cell:

        minimise ‖A₋ₛβ − b₋ₛ‖  ⇔  minimise ‖Lᵀφ − L⁻¹g‖,   L·Lᵀ = I − QₛᵀQₛ,   g = Qᵀb − Qₛᵀbₛ
        ŷₛ = Qₛφ / wₛ

    because Q₋ₛᵀQ₋ₛ = I − QₛᵀQₛ. Unconstrained, φ = (L·Lᵀ)⁻¹g; where R⁻¹φ has a negative entry and must not, β ≥ 0
    is solved for anew.
    """
    w = 1 / y if non_negative else np.ones_like(y)
    A, b = design * w[:, np.newaxis], y * w
    Q, R = np.linalg.qr(A / np.linalg.norm(A, axis=0))
    n_cells, n_terms = int(cells.max()) + 1, design.shape[1]
    QsQs, Qsb = np.zeros((n_cells, n_terms, n_terms)), np.zeros((n_cells, n_terms))
    np.add.at(QsQs, cells, Q[:, :, np.newaxis] * Q[:, np.newaxis, :])
    np.add.at(Qsb, cells, Q * b[:, np.newaxis])

    LLᵀ = np.eye(n_terms) - QsQs
    g = Q.T @ b - Qsb
    if np.linalg.eigvalsh(LLᵀ).min() < SINGULAR:
        return None
    φ = np.linalg.solve(LLᵀ, g[..., np.newaxis])[..., 0]
    if non_negative:
        β = np.linalg.solve(R, φ.T).T
        for s in np.flatnonzero((β < 0).any(axis=1)):
            L = np.linalg.cholesky(LLᵀ[s])
            φ[s] = R @ non_negative_least_squares(L.T @ R, np.linalg.solve(L, g[s]))
    predicted: FloatArray = np.einsum("ij,ij->i", Q, φ[cells]) / w
    return predicted
