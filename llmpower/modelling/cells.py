"""Rows collapsed into cells: all that least squares needs to know of trials with the same design row.

Trials of one cell share a row x of the design, so with weights w their squares sum to

    Σ w(y − xβ)² = W(z − xβ)² + Σ wy² − Wz²,     W = Σ w,   z = Σ wy / W

and the last two terms do not know β. A campaign of a million trials on a grid of a hundred cells is a problem of a
hundred rows; where every row is its own cell, nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.moments import Sums

# Ratio of smallest to largest singular value, columns of unit length, below which terms cannot be told apart. The
# square of it is what the eigenvalues of a Gram matrix show, and rounding hides what is below 1e-16 of the largest.
RANK_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Cells:
    """Weighted cells: A = √W·x of shape (m, n_terms), b = √W·z of shape (m,), and their products G = AᵀA, g = Aᵀb."""

    A: FloatArray
    b: FloatArray
    G: FloatArray
    g: FloatArray

    @classmethod
    def of_sums(cls, design: FloatArray, sums: Sums) -> Cells:
        """From the design of the cells, shape (m, n_terms), and the sums of each, which all forms share."""
        root = np.sqrt(sums.w)
        A = design * root[:, np.newaxis]
        b = sums.wy / root
        return cls(A, b, A.T @ A, A.T @ b)

    def determined(self) -> bool:
        """Whether the cells can tell all terms apart."""
        return len(self.b) >= self.A.shape[1] and _determined(self.G)

    def solve(self, *, non_negative: bool) -> FloatArray:
        """The coefficients β that minimise ‖Aβ − b‖, and with ``non_negative`` subject to β ≥ 0."""
        return solve_normal(self.G, self.g, non_negative=non_negative)


def solve_normal(G: FloatArray, g: FloatArray, *, non_negative: bool) -> FloatArray:
    """β from the normal equations Gβ = g; G positive definite, columns of any scale.

    With D = diag(G)^½ and D⁻¹GD⁻¹ = LLᵀ the bound is kept by scipy's non-negative least squares (Lawson and Hanson's
    active sets) on the n_terms rows of Lᵀ(Dβ) = L⁻¹D⁻¹g.
    """
    D = np.sqrt(np.diag(G))
    scaled = G / (D[:, np.newaxis] * D)
    free: FloatArray = np.linalg.solve(scaled, g / D)
    if not non_negative or free.min() >= 0:
        return free / D
    L = np.linalg.cholesky(scaled)
    target = np.linalg.solve(L, g / D)
    from scipy.optimize import nnls

    β: FloatArray = nnls(L.T, target)[0] / D
    return β


def inverse(G: FloatArray) -> FloatArray:
    """G⁻¹ by way of columns of unit length."""
    D = np.sqrt(np.diag(G))
    return np.asarray(np.linalg.inv(G / np.outer(D, D)) / np.outer(D, D))


def _determined(G: FloatArray) -> bool:
    D = np.sqrt(np.diag(G))
    if not (D > 0).all():
        return False
    eigenvalues = np.linalg.eigvalsh(G / np.outer(D, D))
    return bool(eigenvalues[0] > RANK_TOLERANCE**2 * eigenvalues[-1])
