"""One form fitted to one target of one model's rows: the coefficients, and what they would be without a cell.

Most forms are one regression. ``phases`` is two, of the prefill's joules and the decode's, whose coefficients stand
side by side; so everything here is a list of blocks, and a prediction is the form's whole design times all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError
from llmpower.modelling.forms import Batched, Phases
from llmpower.modelling.linear import FloatArray, Form
from llmpower.modelling.regressing.cells import Cells
from llmpower.modelling.regressing.designs import Designs
from llmpower.modelling.regressing.folds import without_each_cell, without_each_part
from llmpower.modelling.regressing.outliers import robust_sums, rows_of
from llmpower.modelling.regressing.parts import told_cells
from llmpower.modelling.regressing.solving import Missed, judge, predict
from llmpower.modelling.regressing.totals import Totals
from llmpower.modelling.regressing.weights import Weighting, uncertain
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import Sums
from llmpower.modelling.rows.targets import Target
from llmpower.phrases import plural


@dataclass(frozen=True, slots=True)
class Block:
    """A regression for the coefficients ``terms``: ``present`` numbers the model's cells that it has rows of."""

    terms: slice
    present: NDArray[np.intp]
    cells: Cells


@dataclass(frozen=True, slots=True)
class Regression:
    """``design`` has shape (m, n_terms) over the model's cells; ``sums`` are those of the weights it was fitted with.

    ``row_columns`` are those of the judged rows' design where cells are bands, else none. ``solution`` is what least
    squares give. ``outliers`` counts rows that Huber's weights leave little. ``totals`` are there where predictions
    are to add up to them.
    """

    form: Form
    design: FloatArray
    row_columns: Sequence[FloatArray]
    blocks: tuple[Block, ...]
    sums: Sums
    solution: FloatArray
    outliers: int = 0
    totals: Totals | None = None

    @property
    def scale(self) -> float:
        """κ, by which predictions add up to what was measured; 1 where they need not."""
        return 1.0 if self.totals is None else self.totals.scale(self.solution)

    @property
    def coefficients(self) -> FloatArray:
        """What predictions are made with."""
        return self.scale * self.solution

    @property
    def free(self) -> NDArray[np.bool_]:
        """Terms that are not held at zero by their bound."""
        return self.coefficients > 0 if self.form.non_negative else np.ones(len(self.coefficients), dtype=bool)

    def predict(self, coefficients: FloatArray) -> FloatArray:
        """ŷ of every cell by its own coefficients, shape (m, n_terms)."""
        return predict(np.ascontiguousarray(self.design.T), np.ascontiguousarray(coefficients))

    def judge(
        self, coefficients: FloatArray, predicted: FloatArray, cells: NDArray[np.int64], y: FloatArray
    ) -> tuple[FloatArray, Missed]:
        """Errors of the judged rows ``y`` by the coefficients of their ``cells``, shape (m, n_terms), which predict so.

        Those of rows whose coefficients are NaN are not among them.
        """
        return judge(y, cells, coefficients if self.row_columns else predicted, self.row_columns)

    def without_each_cell(self) -> FloatArray | None:
        """Coefficients without cell c, shape (m, n_terms); ``None`` when some cell cannot be spared."""
        folds = self._solved_without_each_cell()
        if folds is None or self.totals is None:
            return folds
        return self.totals.scales_without(np.arange(len(folds)), folds) * folds

    def _solved_without_each_cell(self) -> FloatArray | None:
        if len(self.blocks) == 1:
            return without_each_cell(self.blocks[0].cells, self.solution, non_negative=self.form.non_negative)
        folds = np.empty((len(self.design), len(self.solution)))
        for block in self.blocks:
            part = without_each_cell(block.cells, self.solution[block.terms], non_negative=self.form.non_negative)
            if part is None:
                return None
            if len(part) == len(folds):
                folds[:, block.terms] = part
            else:
                folds[:, block.terms] = self.solution[block.terms]
                folds[block.present, block.terms] = part
        return folds

    def without(self, cell: int) -> Regression:
        """What it is without one cell that can be spared."""
        blocks = tuple(replace(block, cells=block.cells.without(block.present == cell)) for block in self.blocks)
        totals = None if self.totals is None else self.totals.without(cell)
        return replace(self, blocks=blocks, solution=_solved(blocks, self.form), totals=totals)

    def without_each_part(self, part: NDArray[np.int64], n_parts: int) -> FloatArray:
        """Coefficients without the cells of each part, shape (n_parts, n_terms); NaN where the others do not tell them.

        ``part`` numbers that of each cell from 0.
        """
        β = np.concatenate(
            [
                without_each_part(block.cells, part[block.present], n_parts, non_negative=self.form.non_negative)
                for block in self.blocks
            ],
            axis=1,
        )
        β[np.isnan(β).any(axis=1)] = np.nan
        return β if self.totals is None else self.totals.scales_without(part, β) * β


def regress(
    group: Group,
    target: Target,
    form: Form,
    *,
    designs: Designs | None = None,
    weighting: Weighting | None = None,
    robust: bool = False,
) -> Regression:
    """Fit ``form`` to ``target``.

    ``designs`` and ``weighting`` spare what several forms or targets share; by default they are made for this form.

    Raises:
        FitError: the rows cannot carry the form: fewer cells than terms, terms that cannot be told apart, columns that
            it needs missing or constant.
    """
    if isinstance(form, Batched) and not group.batched:
        advice = (
            f"{group.model_name}: all rows have the same batch size and concurrency; vary them, or take form cached"
        )
        raise FitError("batch_size", f"{group.cell_batch_size[0]:.0f}", advice)
    designs = Designs(group) if designs is None else designs
    row_columns = designs.of_rows(form, target)
    if type(form) is Phases:
        return _phases(group, target, form, designs, row_columns, robust=robust)
    if not form.non_negative:
        design = designs.of_cells(form, target, target.raw)
        cells = Cells.of_sums(design, target.raw)
        refuse_undetermined(group, form, cells)
        return Regression(form, design, row_columns, (_whole(cells),), target.raw, cells.solve(non_negative=False))
    if weighting is None:
        weighting = weigh(group, target, [form], designs)
    design = designs.of_cells(form, target, weighting.sums)
    cells, sums, outliers = Cells.of_sums(design, weighting.sums), weighting.sums, 0
    refuse_undetermined(group, form, cells)
    if robust:
        rows = rows_of(group, target.y, row_columns)
        sums, outliers = robust_sums(design, rows, weighting.factors[group.row_strata])
        cells = Cells.of_sums(design, sums)
    β = cells.solve(non_negative=True)
    return Regression(form, design, row_columns, (_whole(cells),), sums, β, outliers)


def matched(regression: Regression, target: Target, designs: Designs) -> Regression:
    """With predictions that add up to what was measured; ordinary least squares as they are."""
    if not regression.form.non_negative:
        return regression
    totals = Totals.of(designs.of_cells(regression.form, target, target.raw), target.raw)
    return replace(regression, totals=totals)


def weigh(group: Group, target: Target, forms: Sequence[Form], designs: Designs) -> Weighting:
    """What rows count for relative least squares, by the form that misses least where rows say how sure they are."""
    plain = Weighting(np.ones(len(group.strata)), target.relative)
    if target.sure is None:
        return plain
    scatter = []
    for form in forms:
        cells = Cells.of_sums(designs.of_cells(form, target, plain.sums), plain.sums)
        degrees = group.n_obs - len(form.terms)
        if degrees > 0 and cells.determined():
            scatter.append(_missed(group, target, cells, designs.of_rows(form, target)) / degrees)
    if not scatter:
        return plain
    u = uncertain(target.sure.variance, target.sure.sums.n, min(scatter))
    return Weighting(u, target.sure.sums.gathered(group.strata, u))


def _missed(group: Group, target: Target, cells: Cells, row_columns: Sequence[FloatArray]) -> float:
    """Σr² over all rows at the optimum with w = 1/y²; of bands by the judged rows, which have lengths of their own."""
    β = cells.solve(non_negative=True)
    if row_columns:
        missed = 1 - np.dot(β, row_columns) / target.y
        return group.n_obs * float(missed @ missed) / len(missed)
    # Σu − βᵀg, with bounds or without.
    return group.n_obs - float(β @ cells.g)


def refuse_undetermined(group: Group, form: Form, cells: Cells) -> None:
    """Refuse what cannot be solved, with the reason."""
    n_terms, n_cells = cells.columns.shape
    if n_cells < n_terms:
        advice = f"{group.model_name}: fewer (input, output) cells than the {n_terms} terms of form {form.label}"
        raise FitError("cells", n_cells, f"{advice}; measure more cells")
    if not cells.determined():
        advice = f"{group.model_name}: its {plural(n_cells, 'cell')} cannot tell the form's terms apart"
        raise FitError("form", form.label, f"{advice}; measure more lengths of each kind beside the same of the other")


def _phases(
    group: Group,
    target: Target,
    form: Phases,
    designs: Designs,
    row_columns: Sequence[FloatArray],
    *,
    robust: bool,
) -> Regression:
    design, blocks, outliers = designs.of_cells(form, target, target.relative), [], 0
    for terms, phase, told in told_cells(group, target, design):
        present = np.flatnonzero(told)
        part, sums = designs.of_cells(form, target, phase.sums)[:, terms], phase.sums
        if len(present) < len(told):
            part, sums = part[present], sums.of(present)
        solved = Cells.of_sums(part, sums)
        refuse_undetermined(group, form, solved)
        if robust:
            chosen = told[group.cells] & (phase.y > 0)
            cells = (np.cumsum(told) - 1)[group.cells[chosen]]
            rows = rows_of(group, phase.y, row_columns).of(chosen, cells, phase.y[chosen], terms)
            sums, found = robust_sums(part, rows, np.ones(len(cells)))
            outliers = max(outliers, found)  # a row may be one in both
            solved = Cells.of_sums(part, sums)
        blocks.append(Block(terms, present, solved))
    β = _solved(blocks, form)
    return Regression(form, design, row_columns, tuple(blocks), target.relative, β, outliers)


def _solved(blocks: Sequence[Block], form: Form) -> FloatArray:
    """The coefficients of all blocks side by side."""
    return np.concatenate([block.cells.solve(non_negative=form.non_negative) for block in blocks])


def _whole(cells: Cells) -> Block:
    return Block(slice(None), np.arange(len(cells.w)), cells)
