"""Coefficients without a cell against refits from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmpower.modelling.forms import Cached, Form, Paper, Quadratic, Recompute, RecomputeCall, Roofline
from llmpower.modelling.regressing.cells import Cells
from llmpower.modelling.regressing.folds import without_each_cell, without_each_part
from llmpower.modelling.rows.moments import Sums

LENGTHS = [8.0, 64.0, 256.0, 1024.0]
TIN, TOUT = (grid.reshape(-1) for grid in np.meshgrid(LENGTHS, LENGTHS))
FORMS = [Paper(), Paper(intercept=True), Quadratic(), Recompute(), RecomputeCall(), Roofline(), Cached()]


def campaign(seed: int, trials: int = 2) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Rows of a 4 × 4 grid, shuffled, with noise enough for bounds to bind in some folds."""
    generator = np.random.default_rng(seed)
    cells = generator.permutation(np.repeat(np.arange(len(TIN)), trials))
    truth = Recompute().design(TIN, TOUT) @ [4.0, 0.03, 1e-7]
    return truth[cells] * generator.lognormal(sigma=0.2, size=len(cells)), cells


def collapsed(form: Form, y: NDArray[np.float64], cells: NDArray[np.intp]) -> Cells:
    """Of the cells that have rows; the others keep a place and no weight."""
    w = y**-2 if form.non_negative else np.ones_like(y)
    used, numbers = np.unique(cells, return_inverse=True)
    return Cells.of_sums(form.design(TIN, TOUT)[used], Sums.of_rows(numbers, y, w, len(used)))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.label)
@pytest.mark.parametrize("seed", range(4))
def test_predictions_equal_those_of_explicit_refits(form: Form, seed: int) -> None:
    y, cells = campaign(seed)
    whole = collapsed(form, y, cells)
    folds = without_each_cell(whole, whole.solve(non_negative=form.non_negative), non_negative=form.non_negative)
    assert folds is not None
    design = form.design(TIN, TOUT)
    for cell, β in enumerate(folds):
        kept = cells != cell
        refit = collapsed(form, y[kept], cells[kept]).solve(non_negative=form.non_negative)
        np.testing.assert_allclose(design[cell] @ β, design[cell] @ refit, rtol=1e-6)


def test_bounds_bind_in_some_folds_of_that_test_and_not_in_all() -> None:
    y, cells = campaign(0)
    whole = collapsed(Cached(), y, cells)
    folds = without_each_cell(whole, whole.solve(non_negative=True), non_negative=True)
    assert folds is not None
    patterns = {tuple(β > 0) for β in folds}
    assert len(patterns) > 1
    assert any(not all(pattern) for pattern in patterns)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.label)
def test_a_group_leaves_as_a_refit_has_it(form: Form) -> None:
    y, cells = campaign(3)
    part = np.searchsorted(LENGTHS, TIN)
    without = without_each_part(collapsed(form, y, cells), part, len(LENGTHS), non_negative=form.non_negative)
    for number, (length, β) in enumerate(zip(LENGTHS, without, strict=True)):
        kept = part[cells] != number
        refit = collapsed(form, y[kept], cells[kept]).solve(non_negative=form.non_negative)
        np.testing.assert_allclose(form.design(length, TOUT) @ β, form.design(length, TOUT) @ refit, rtol=1e-6)


def test_a_cell_that_cannot_be_spared_gives_no_folds() -> None:
    τin, τout, y = np.array([8.0, 8.0, 8.0, 64.0]), np.array([8.0, 16.0, 32.0, 8.0]), np.array([30.0, 60, 125, 40])
    cells = Cells.of_sums(Paper().design(τin, τout), Sums.of_rows(np.arange(4), y, np.ones(4), 4))
    assert without_each_cell(cells, cells.solve(non_negative=False), non_negative=False) is None
    first, last = without_each_part(cells, np.array([0, 0, 1, 2]), 3, non_negative=False)[[0, 2]]
    assert np.isnan(first).all()
    assert np.isnan(last).all()
