"""Rows collapsed into cells: all that least squares needs to know of trials with the same design row.

Trials of one cell share a row x of the design, so with weights w their squares sum to

    Σ w(y − xβ)² = W(z − xβ)² + Σ wy² − Wz²,     W = Σ w,   z = Σ wy / W

and the last two terms do not know β. A campaign of a million trials on a grid of a hundred cells is a problem of a
hundred rows; where every row is its own cell, nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.regressing import solving
from llmpower.modelling.rows.moments import Sums

# Ratio of smallest to largest singular value, columns of unit length, below which terms cannot be told apart. The
# square of it is what the eigenvalues of a Gram matrix show, and rounding hides what is below 1e-16 of the largest.
RANK_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells as a form sees them: ``columns`` of its design (n_terms, m), W and Σwy of each (m,), and their products.

    G = Σ W·xxᵀ,     g = Σ x·Σwy

    ``ends`` are the least and the greatest eigenvalue of D⁻¹GD⁻¹ with D = diag(G)^½, both 0 where D has a zero.
    """

    columns: FloatArray
    w: FloatArray
    wy: FloatArray
    G: FloatArray
    g: FloatArray
    ends: tuple[float, float]

    @classmethod
    def of_sums(cls, design: FloatArray, sums: Sums) -> Cells:
        """From the design of the cells, shape (m, n_terms), and the sums of each, which all forms share."""
        columns = np.ascontiguousarray(design.T)
        return cls(columns, sums.w, sums.wy, *solving.gram(columns, sums.w, sums.wy))

    def determined(self) -> bool:
        """Whether the cells can tell all terms apart."""
        least, greatest = self.ends
        return len(self.w) >= len(self.columns) and least > RANK_TOLERANCE**2 * greatest

    def without(self, cells: NDArray[np.bool_]) -> Cells:
        """The same with nothing known of some of them."""
        w, wy = np.where(cells, 0.0, self.w), np.where(cells, 0.0, self.wy)
        return Cells(self.columns, w, wy, *solving.gram(self.columns, w, wy))

    def solve(self, *, non_negative: bool) -> FloatArray:
        """The coefficients β that minimise Σ W(z − xβ)², and with ``non_negative`` subject to β ≥ 0."""
        return solving.solve(self.G, self.g, non_negative=non_negative)
