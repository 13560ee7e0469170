"""Held-out errors against refits from scratch."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmpower.modelling.estimators import ordinary_least_squares, relative_least_squares
from llmpower.modelling.forms import Cached, Form, Paper, Recompute
from llmpower.modelling.heldout import leave_one_cell_out, predict_held_out


def campaign(seed: int, trials: int = 2) -> tuple[NDArray[np.float64], ...]:
    """A 4 × 4 grid with ``trials`` rows a cell, shuffled, and noise enough for bounds to bind in some folds."""
    generator = np.random.default_rng(seed)
    lengths = np.repeat([8, 64, 256, 1024], trials)
    τin, τout = (grid.reshape(-1).astype(float) for grid in np.meshgrid(lengths, [8, 64, 256, 1024]))
    order = generator.permutation(len(τin))
    τin, τout = τin[order], τout[order]
    y = Recompute().design(τin, τout) @ [4.0, 0.03, 1e-7] * generator.lognormal(sigma=0.2, size=len(τin))
    cells = np.unique(np.stack([τin, τout]), axis=1, return_inverse=True)[1].reshape(-1)
    return τin, τout, y, cells


def refitted(
    design: NDArray[np.float64], y: NDArray[np.float64], cells: NDArray[np.intp], form: Form
) -> NDArray[np.float64]:
    estimate = relative_least_squares if form.non_negative else ordinary_least_squares
    predicted = np.empty_like(y)
    for cell in np.unique(cells):
        out = cells == cell
        predicted[out] = design[out] @ estimate(design[~out], y[~out]).coefficients
    return predicted


@pytest.mark.parametrize("form", [Paper(), Paper(intercept=True), Recompute(), Cached()], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_predictions_equal_those_of_explicit_refits(form: Form, seed: int) -> None:
    τin, τout, y, cells = campaign(seed)
    design = form.design(τin, τout)
    predicted = predict_held_out(design, y, cells, non_negative=form.non_negative)
    assert predicted is not None
    np.testing.assert_allclose(predicted, refitted(design, y, cells, form), rtol=1e-7)


def test_bounds_bind_in_some_folds_of_that_test() -> None:
    τin, τout, y, cells = campaign(0)
    design = Cached().design(τin, τout)
    held = [
        (relative_least_squares(design[cells != cell], y[cells != cell]).coefficients == 0).any()
        for cell in np.unique(cells)
    ]
    assert any(held)


def test_summary_is_of_rows_and_negative_predictions_of_cells() -> None:
    τin, τout, y, cells = campaign(1)
    design = Paper().design(τin, τout)
    predicted = refitted(design, y, cells, Paper())
    ape = abs(predicted - y) / y
    heldout = leave_one_cell_out(design, y, cells, non_negative=False)
    assert heldout.mape == pytest.approx(ape.mean())
    assert heldout.median_ape == pytest.approx(np.median(ape))
    assert heldout.worst_ape == pytest.approx(ape.max())
    assert heldout.negative_predictions == len(
        {cell for cell, value in zip(cells, predicted, strict=True) if value <= 0}
    )
    assert heldout.negative_predictions > 0
    assert heldout.scheme == "leave_one_cell_out"


def test_a_cell_that_cannot_be_spared_leaves_no_error() -> None:
    τin, τout = np.array([8.0, 8.0, 8.0, 64.0]), np.array([8.0, 16.0, 32.0, 8.0])
    design = Paper().design(τin, τout)
    heldout = leave_one_cell_out(design, np.array([30.0, 60.0, 125.0, 40.0]), np.arange(4), non_negative=False)
    assert (heldout.mape, heldout.median_ape, heldout.worst_ape, heldout.negative_predictions) == (None,) * 4
