"""Fits that let outliers count for less: all rows at once, each by how far the fit before misses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.regressing.cells import Cells
from llmpower.modelling.regressing.weights import huber
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import Sums
from llmpower.modelling.rows.strata import TOKENS

HUBER = "Huber's weights"
"""What an estimator says of them."""

# Rows that Huber's weights leave less than this count as outliers.
OUTLIER = 0.5


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows with their cells; where these are bands, also their own lengths (2, n) and design (n, n_terms)."""

    cells: NDArray[np.int64]
    y: FloatArray
    lengths: FloatArray | None
    design: FloatArray | None

    def predict(self, design: FloatArray, β: FloatArray) -> FloatArray:
        """ŷ of each, by the ``design`` of its cell where it has none."""
        return np.asarray((design @ β)[self.cells] if self.design is None else self.design @ β)

    def summed(self, w: FloatArray, n_cells: int) -> Sums:
        """What they sum to."""
        return Sums.of_rows(self.cells, self.y, w, n_cells, self.lengths)

    def of(self, chosen: NDArray[np.bool_], cells: NDArray[np.int64], y: FloatArray, terms: slice) -> Rows:
        """Those of some cells, with numbers and values of their own, and some terms of their design."""
        lengths = None if self.lengths is None else self.lengths[:, chosen]
        design = None if self.design is None else self.design[chosen, terms]
        return Rows(cells, y, lengths, design)


def rows_of(group: Group, y: FloatArray, row_columns: Sequence[FloatArray]) -> Rows:
    """Those of a model with values ``y`` and the columns of their design, of which there are none but in bands."""
    if group.row_lengths is None:
        return Rows(group.cells, y, None, None)
    return Rows(group.cells, y, group.row_lengths[: len(TOKENS)], np.stack(row_columns, axis=1))


def robust_sums(design: FloatArray, rows: Rows, base: FloatArray) -> tuple[Sums, int]:
    """The sums of all rows with Huber's factors, and how many rows these leave less than :data:`OUTLIER`."""
    inverse_square = 1 / rows.y**2
    if len(design) < 2 * design.shape[1]:
        # A fit of p terms can go through p cells: of fewer than twice as many, the median row may be one of those, and
        # all others would be outliers to it.
        return rows.summed(base * inverse_square, len(design)), 0

    def summed(u: FloatArray) -> Sums:
        return rows.summed(u * inverse_square, len(design))

    def residuals(u: FloatArray) -> FloatArray:
        β = Cells.of_sums(design, summed(u)).solve(non_negative=True)
        return 1 - rows.predict(design, β) / rows.y

    u = huber(residuals, base)
    return summed(u), int((u < OUTLIER).sum())
