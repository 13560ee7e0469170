"""Coefficients as they would be without a cell, or without a group of cells, and no refit from the data.

A model is asked about lengths that nobody measured, so the rows of one cell leave together: repeated trials would
otherwise vouch for each other. With x, W, Σwy, G, g of :class:`~llmpower.modelling.regressing.cells.Cells`, deleting
cell c leaves (Sherman and Morrison)

    β₋c = β − G⁻¹x·r/(1 − h),     r = Σwy − W·xβ,   h = W·xᵀG⁻¹x

for all cells in one pass, in C. Where coefficients must not be negative the same holds on the terms above zero as long
as the same terms stay there, which their signs and the gradient of the others, g₋c − G₋c·β₋c, show; a fold for which
they do not is solved for again, a problem of the form's size.
"""

from __future__ import annotations

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.regressing import solving
from llmpower.modelling.regressing.cells import Cells
from llmpower.modelling.rows.strata import Codes

# What may be left of a cell's 1 − h, or of a group's smallest eigenvalue, before the rest is taken not to determine
# the form.
SINGULAR = 1e-8
# How steep the objective may rise with a term at zero, relative to the lengths of its column √W·x and of √W·z.
KKT_TOLERANCE = 1e-9


def without_each_cell(cells: Cells, β: FloatArray, *, non_negative: bool) -> FloatArray | None:
    """β₋c for every cell c, shape (m, n_terms); ``None`` when some cell cannot be spared.

    ``β`` is what :meth:`Cells.solve` gives.
    """
    return solving.folds(cells, β, non_negative=non_negative, singular=SINGULAR, steep=KKT_TOLERANCE)


def without_each_part(cells: Cells, part: Codes, n_parts: int, *, non_negative: bool) -> FloatArray:
    """β without the cells of each part, shape (n_parts, n_terms), NaN where the others do not determine it.

    ``part`` numbers that of each cell from 0.
    """
    return solving.parts(cells, part, n_parts, non_negative=non_negative, singular=SINGULAR)
