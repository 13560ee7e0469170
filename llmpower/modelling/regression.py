"""One form fitted to one target of one model's rows: the coefficients, and what they would be without a cell.

Most forms are one regression. ``phases`` is two, of the prefill's joules and the decode's, whose coefficients stand
side by side; so everything here is a list of blocks, and a prediction is the form's whole design times all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError
from llmpower.modelling.cells import Cells
from llmpower.modelling.folds import without, without_each_cell
from llmpower.modelling.forms import Batched, Phases
from llmpower.modelling.groups import Group, Target
from llmpower.modelling.linear import FloatArray, Form
from llmpower.modelling.moments import FitMoments, Moments
from llmpower.modelling.weights import row_factors


@dataclass(frozen=True, slots=True)
class Block:
    """A regression for the coefficients ``terms``: ``present`` numbers the model's cells that it has rows of."""

    terms: slice
    present: NDArray[np.intp]
    cells: Cells

    def positions(self, cells: NDArray[np.intp]) -> NDArray[np.intp]:
        """Where these of the model's cells stand in this block."""
        return np.flatnonzero(np.isin(self.present, cells))


@dataclass(frozen=True, slots=True)
class Regression:
    """``design`` has shape (m, n_terms) over the model's cells; ``factors`` is u of every row, shape (n_obs,)."""

    form: Form
    design: FloatArray
    blocks: tuple[Block, ...]
    factors: FloatArray
    coefficients: FloatArray

    @property
    def free(self) -> NDArray[np.bool_]:
        """Terms that are not held at zero by their bound."""
        return self.coefficients > 0 if self.form.non_negative else np.ones(len(self.coefficients), dtype=bool)

    def predicted(self) -> FloatArray:
        """ŷ of every cell, shape (m,)."""
        return np.asarray(self.design @ self.coefficients)

    def without_each_cell(self) -> FloatArray | None:
        """Coefficients without cell c, shape (m, n_terms); ``None`` when some cell cannot be spared."""
        folds = np.tile(self.coefficients, (len(self.design), 1))
        for block in self.blocks:
            part = without_each_cell(block.cells, self.coefficients[block.terms], non_negative=self.form.non_negative)
            if part is None:
                return None
            folds[block.present, block.terms] = part
        return folds

    def without(self, out: NDArray[np.intp]) -> FloatArray | None:
        """Coefficients without these cells, shape (n_terms,); ``None`` when the others do not determine them."""
        whole = len(self.blocks) == 1
        parts = [
            without(block.cells, out if whole else block.positions(out), non_negative=self.form.non_negative)
            for block in self.blocks
        ]
        known = [part for part in parts if part is not None]
        return np.concatenate(known) if len(known) == len(parts) else None


def regress(group: Group, target: Target, form: Form, *, robust: bool = False) -> Regression:
    """Fit ``form`` to ``target``.

    Raises:
        FitError: the rows cannot carry the form: fewer cells than terms, terms that cannot be told apart, columns that
            it needs missing or constant.
    """
    if isinstance(form, Phases):
        return _phases(group, target, form, robust=robust)
    design = design_of(group, target, form)
    if not form.non_negative:
        ones = np.ones(len(target.y))
        cells = Cells.collapse(design, group.cells, target.y, ones)
        refuse_undetermined(group, form, len(form.terms), cells)
        β = cells.solve(non_negative=False)
        return Regression(form, design, (_whole(cells),), ones, β)
    cells, u = _relative(group, form, design, target.y, group.cells, target.relative_variance, robust=robust)
    return Regression(form, design, (_whole(cells),), u, cells.solve(non_negative=True))


def design_of(group: Group, target: Target, form: Form) -> FloatArray:
    """φ of the model's cells as their rows count: joules and seconds of a whole batch are those of its requests."""
    if not isinstance(form, Batched):
        return form.design(group.cell_input_tokens, group.cell_output_tokens)
    if not group.batched:
        advice = (
            f"{group.model_name}: all rows have the same batch size and concurrency; vary them, or take form cached"
        )
        raise FitError("batch_size", f"{group.cell_batch_size[0]:.0f}", advice)
    B = group.cell_batch_size
    φ = form.design(group.cell_input_tokens / B, group.cell_output_tokens / B, group.cell_sharing)
    requests = group.cell_sharing if target.unit == "s" else B
    return np.asarray(φ * requests[:, np.newaxis])


def refuse_undetermined(group: Group, form: Form, n_terms: int, cells: Cells) -> None:
    """Refuse what cannot be solved, with the reason."""
    n_cells = len(cells.b)
    if n_cells < n_terms:
        advice = f"{group.model_name}: fewer (input, output) cells than the {n_terms} terms of form {form.label}"
        raise FitError("cells", n_cells, f"{advice}; measure more cells")
    if not cells.determined():
        advice = f"{group.model_name}: its {n_cells} cells cannot tell the form's terms apart; vary both lengths"
        raise FitError("form", form.label, advice)


def _relative(
    group: Group,
    form: Form,
    design: FloatArray,
    y: FloatArray,
    cells: NDArray[np.intp],
    relative_variance: FloatArray | None,
    *,
    robust: bool,
) -> tuple[Cells, FloatArray]:
    """The collapsed problem with each row's weight u/y², and u."""
    base = 1 / y**2
    plain = Cells.collapse(design, cells, y, base)
    refuse_undetermined(group, form, design.shape[1], plain)
    if relative_variance is None and not robust:
        return plain, np.ones(len(y))

    def residuals(u: FloatArray) -> FloatArray:
        β = Cells.collapse(design, cells, y, u * base).solve(non_negative=True)
        return np.asarray(1 - (design @ β)[cells] / y)

    u = row_factors(residuals, relative_variance, len(y), design.shape[1], robust=robust)
    return Cells.collapse(design, cells, y, u * base), u


def _phases(group: Group, target: Target, form: Phases, *, robust: bool) -> Regression:
    design = form.design(group.cell_input_tokens, group.cell_output_tokens)
    blocks = []
    for terms, y, rows in _phase_rows(group, target, form, design):
        present, cells = np.unique(group.cells[rows], return_inverse=True)
        part, _ = _relative(group, form, design[present, terms], y[rows], cells, None, robust=robust)
        blocks.append(Block(terms, present, part))
    β = np.concatenate([block.cells.solve(non_negative=True) for block in blocks])
    return Regression(form, design, tuple(blocks), np.ones(len(target.y)), β)


def moments_of(group: Group, target: Target, form: Form, design: FloatArray, factors: FloatArray) -> FitMoments:
    """The sums that an update of a fit needs, of rows that count u each; nothing is solved."""
    cells, y = group.cells, target.y
    raw = Moments.of(design, cells, y, np.ones(len(y)))
    if not form.non_negative:
        return FitMoments(raw, raw, raw)
    relative = Moments.of(design, cells, y, factors / y**2)
    if not isinstance(form, Phases):
        return FitMoments(relative, relative, raw)
    n_terms = len(form.terms)
    gram, moment = np.zeros((n_terms, n_terms)), np.zeros(n_terms)
    for part in parts_of(group, target, form, design, factors):
        sums = Moments.of(part.design, part.cells, part.y, part.w)
        gram[part.terms, part.terms], moment[part.terms] = sums.gram, sums.moment
    return FitMoments(replace(relative, gram=gram, moment=moment), relative, raw)


@dataclass(frozen=True, slots=True)
class Part:
    """Rows that the coefficients ``terms`` are solved from: design of all cells, each row's cell, value and weight."""

    terms: slice
    design: FloatArray
    cells: NDArray[np.intp]
    y: FloatArray
    w: FloatArray


def parts_of(group: Group, target: Target, form: Form, design: FloatArray, factors: FloatArray) -> Iterator[Part]:
    """The regressions that a form is: one, or one for each phase."""
    if isinstance(form, Phases):
        for terms, y, rows in _phase_rows(group, target, form, design):
            yield Part(terms, design[:, terms], group.cells[rows], y[rows], y[rows] ** -2)
    else:
        w = factors / target.y**2 if form.non_negative else factors
        yield Part(slice(None), design, group.cells, target.y, w)


def _phase_rows(
    group: Group, target: Target, form: Phases, design: FloatArray
) -> Iterator[tuple[slice, FloatArray, NDArray[np.bool_]]]:
    """Each phase: its terms, its part of every row, and the rows that tell it.

    Where nothing is decoded there is no decode to fit; an empty cell is a phase that was not measured.

    Raises:
        FitError: no row tells both.
    """
    if target.phases is None:
        raise FitError(
            target.phase_columns, "missing", f"{group.model_name}: form phases needs both phases; take form cached"
        )
    for terms, y in zip((slice(0, form.N_PREFILL), slice(form.N_PREFILL, None)), target.phases, strict=True):
        yield terms, y, (y > 0) & (design[group.cells, terms].sum(axis=1) > 0)


def _whole(cells: Cells) -> Block:
    return Block(slice(None), np.arange(len(cells.b)), cells)
