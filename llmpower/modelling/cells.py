"""Rows collapsed into cells: all that least squares needs to know of trials with the same design row.

Trials of one cell share a row x of the design, so with weights w their squares sum to

    Σ w(y − xβ)² = W(z − xβ)² + Σ wy² − Wz²,     W = Σ w,   z = Σ wy / W

and the last two terms do not know β. A campaign of a million trials on a grid of a hundred cells is a problem of a
hundred rows; where every row is its own cell, nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpower.modelling import kernels
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.moments import Sums

# Ratio of smallest to largest singular value, columns of unit length, below which terms cannot be told apart. The
# square of it is what the eigenvalues of a Gram matrix show, and rounding hides what is below 1e-16 of the largest.
RANK_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells as a form sees them: ``columns`` of its design (n_terms, m), W and Σwy of each (m,), and their products.

    G = Σ W·xxᵀ,     g = Σ x·Σwy
    """

    columns: FloatArray
    w: FloatArray
    wy: FloatArray
    G: FloatArray
    g: FloatArray

    @classmethod
    def of_sums(cls, design: FloatArray, sums: Sums) -> Cells:
        """From the design of the cells, shape (m, n_terms), and the sums of each, which all forms share."""
        columns = np.ascontiguousarray(design.T)
        (G,), (g,) = kernels.gram(columns, sums.w, sums.wy)
        return cls(columns, sums.w, sums.wy, G, g)

    def determined(self) -> bool:
        """Whether the cells can tell all terms apart."""
        return len(self.w) >= len(self.columns) and _determined(self.G)

    def solve(self, *, non_negative: bool) -> FloatArray:
        """The coefficients β that minimise Σ W(z − xβ)², and with ``non_negative`` subject to β ≥ 0."""
        return solve_normal(self.G, self.g, non_negative=non_negative)


def solve_normal(G: FloatArray, g: FloatArray, *, non_negative: bool) -> FloatArray:
    """β from the normal equations Gβ = g; G positive definite, columns of any scale; or of a stack of them at once.

    With D = diag(G)^½ and D⁻¹GD⁻¹ = LLᵀ the bound is kept by scipy's non-negative least squares (Lawson and Hanson's
    active sets) on the n_terms rows of Lᵀ(Dβ) = L⁻¹D⁻¹g.
    """
    D, scaled = of_unit_length(G)
    target = g / D
    β: FloatArray = np.asarray(np.linalg.solve(scaled, target[..., np.newaxis])[..., 0], dtype=np.float64)
    if non_negative and β.min(initial=0) < 0:
        from scipy.optimize import nnls

        for place in map(tuple, np.argwhere(β.min(axis=-1) < 0)):
            L = np.linalg.cholesky(scaled[place])
            β[place] = nnls(L.T, np.linalg.solve(L, target[place]))[0]
    return β / D


def inverse(G: FloatArray) -> FloatArray:
    """G⁻¹ by way of columns of unit length."""
    D, scaled = of_unit_length(G)
    return np.asarray(np.linalg.inv(scaled) / (D[:, np.newaxis] * D))


def of_unit_length(G: FloatArray) -> tuple[FloatArray, FloatArray]:
    """D = diag(G)^½ and D⁻¹GD⁻¹, of one G or a stack of them."""
    D = np.sqrt(G.diagonal(axis1=-2, axis2=-1))
    return D, G / (D[..., :, np.newaxis] * D[..., np.newaxis, :])


def _determined(G: FloatArray) -> bool:
    if not (G.diagonal() > 0).all():
        return False
    eigenvalues = np.linalg.eigvalsh(of_unit_length(G)[1])
    return bool(eigenvalues[0] > RANK_TOLERANCE**2 * eigenvalues[-1])
