"""Least squares on relative error with coefficients ≥ 0: what trials cost, well enough to plan by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def relative_fit(X: FloatArray, y: FloatArray) -> FloatArray:
    """The β ≥ 0, of shape (n_terms,), that minimises Σ ((Xβ − y)/y)²; X has shape (n, n_terms), y > 0 shape (n,)."""
    from scipy.optimize import nnls

    A = X / y[:, np.newaxis]
    lengths = np.linalg.norm(A, axis=0)
    β: FloatArray = nnls(unit_columns(A), np.ones_like(y))[0] / np.where(lengths > 0, lengths, 1)
    return β


def unit_columns(X: FloatArray) -> FloatArray:
    """Columns of length 1, where they are not 0: those of a form span ten orders of magnitude."""
    lengths = np.linalg.norm(X, axis=0)
    scaled: FloatArray = X / np.where(lengths > 0, lengths, 1)
    return scaled
