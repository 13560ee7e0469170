"""One form fitted to one target of one model's rows: the coefficients, and what they would be without a cell.

Most forms are one regression. ``phases`` is two, of the prefill's joules and the decode's, whose coefficients stand
side by side; so everything here is a list of blocks, and a prediction is the form's whole design times all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from llmpower.modelling.weights import Weighting, huber, uncertain


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
        if len(self.blocks) == 1:
            return without_each_cell(self.blocks[0].cells, self.coefficients, non_negative=self.form.non_negative)
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


def regress(
    group: Group,
    target: Target,
    form: Form,
    *,
    design: FloatArray | None = None,
    weighting: Weighting | None = None,
    robust: bool = False,
) -> Regression:
    """Fit ``form`` to ``target``.

    ``design`` and ``weighting`` spare what several forms or targets share; by default they are made for this form.

    Raises:
        FitError: the rows cannot carry the form: fewer cells than terms, terms that cannot be told apart, columns that
            it needs missing or constant.
    """
    design = design_of(group, target, form) if design is None else design
    if isinstance(form, Phases):
        return _phases(group, target, form, design, robust=robust)
    if not form.non_negative:
        ones = np.ones(len(target.y))
        cells = Cells.collapse(design, group.cells, target.y, ones)
        refuse_undetermined(group, form, cells)
        return Regression(form, design, (_whole(cells),), ones, cells.solve(non_negative=False))
    if weighting is None:
        weighting = weigh(group, target, [design])
    cells = Cells.of_sums(design, weighting.W, weighting.Wz)
    refuse_undetermined(group, form, cells)
    u = weighting.factors
    if robust:
        u, cells = _robust(design, target.y, group.cells, u)
    return Regression(form, design, (_whole(cells),), u, cells.solve(non_negative=True))


def weigh(group: Group, target: Target, designs: Sequence[FloatArray]) -> Weighting:
    """What rows count for relative least squares, by the design that misses least where rows say how sure they are."""
    n = len(target.y)
    plain = Weighting.of(group.cells, target.y, np.ones(n), group.n_cells)
    if target.relative_variance is None:
        return plain
    scatter = []
    for design in designs:
        cells = Cells.of_sums(design, plain.W, plain.Wz)
        degrees = n - design.shape[1]
        if degrees > 0 and cells.determined():
            # Σr² = Σu − βᵀg at the optimum, with bounds or without.
            scatter.append((n - float(cells.solve(non_negative=True) @ cells.g)) / degrees)
    if not scatter:
        return plain
    return Weighting.of(group.cells, target.y, uncertain(target.relative_variance, min(scatter)), group.n_cells)


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


def refuse_undetermined(group: Group, form: Form, cells: Cells) -> None:
    """Refuse what cannot be solved, with the reason."""
    n_cells, n_terms = cells.A.shape
    if n_cells < n_terms:
        advice = f"{group.model_name}: fewer (input, output) cells than the {n_terms} terms of form {form.label}"
        raise FitError("cells", n_cells, f"{advice}; measure more cells")
    if not cells.determined():
        advice = f"{group.model_name}: its {n_cells} cells cannot tell the form's terms apart; vary both lengths"
        raise FitError("form", form.label, advice)


def _robust(design: FloatArray, y: FloatArray, cells: NDArray[np.intp], base: FloatArray) -> tuple[FloatArray, Cells]:
    """Huber's factors, and the collapsed problem with them."""
    inverse_square = 1 / y**2

    def residuals(u: FloatArray) -> FloatArray:
        β = Cells.collapse(design, cells, y, u * inverse_square).solve(non_negative=True)
        return np.asarray(1 - (design @ β)[cells] / y)

    u = huber(residuals, base)
    return u, Cells.collapse(design, cells, y, u * inverse_square)


def _phases(group: Group, target: Target, form: Phases, design: FloatArray, *, robust: bool) -> Regression:
    blocks = []
    for terms, y, rows in _phase_rows(group, target, form, design):
        phase = design[:, terms]
        if rows.all():
            present, cells, part = np.arange(group.n_cells), group.cells, y
        else:
            part = y[rows]
            present, cells = _renumbered(group.cells[rows], group.n_cells)
            phase = phase[present]
        weighting = Weighting.of(cells, part, np.ones(len(part)), len(present))
        solved = Cells.of_sums(phase, weighting.W, weighting.Wz)
        refuse_undetermined(group, form, solved)
        if robust:
            _, solved = _robust(phase, part, cells, weighting.factors)
        blocks.append(Block(terms, present, solved))
    β = np.concatenate([block.cells.solve(non_negative=True) for block in blocks])
    return Regression(form, design, tuple(blocks), np.ones(len(target.y)), β)


def _renumbered(cells: NDArray[np.intp], n_cells: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The cells that there are rows of, and each row's number among them."""
    there = np.bincount(cells, minlength=n_cells) > 0
    return np.flatnonzero(there), (np.cumsum(there) - 1)[cells]


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
        something = design[:, terms].sum(axis=1) > 0
        told = y > 0
        yield terms, y, told if something.all() else told & something[group.cells]


def _whole(cells: Cells) -> Block:
    return Block(slice(None), np.arange(len(cells.b)), cells)
