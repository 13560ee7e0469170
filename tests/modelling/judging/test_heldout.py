"""Held-out errors: what they summarise, what is held out, and the noise that no error can fall below."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.modelling.fitted.models import HeldOut
from llmpower.modelling.forms import Paper, Recompute, make_form
from llmpower.modelling.judging.heldout import (
    MAX_LENGTHS,
    compare,
    held_out_errors,
    leave_one_length_out,
    predict_held_out,
    replicate_noise,
    with_quantiles,
)
from llmpower.modelling.regressing.regression import regress
from llmpower.modelling.rows.grouping import group_rows
from llmpower.modelling.rows.groups import Group


def group(lengths: Any = (8, 64, 256, 1024), trials: int = 2, sigma: float = 0.2, seed: int = 1) -> Group:
    τin, τout = (grid.reshape(-1) for grid in np.meshgrid(np.repeat(lengths, trials), lengths))
    energy_j = Recompute().design(τin, τout) @ [4.0, 0.03, 1e-7]
    energy_j *= np.random.default_rng(seed).lognormal(sigma=sigma, size=len(τin))
    columns = {"input_tokens": τin, "output_tokens": τout, "runtime_s": energy_j / 300, "gpu_energy_j": energy_j}
    return group_rows(pd.DataFrame({"model_name": "a", **columns}), None, "gpu")[0]


sizes = st.floats(0, 1e6) | st.sampled_from([0.0, 0.25, 1.0])


@given(errors=st.lists(sizes, min_size=1, max_size=200))
def test_quantiles_are_numpys(errors: list[float]) -> None:
    found = with_quantiles(HeldOut(None, None, None, None), np.array(errors))
    expected = np.quantile(errors, [0.5, 0.95])
    np.testing.assert_allclose([found.median_ape, found.p95_ape], expected, rtol=1e-12, atol=1e-300)


def test_summary_is_of_rows_and_negative_predictions_of_cells() -> None:
    rows = group()
    held_out = predict_held_out(regress(rows, rows.energy, Paper()))
    assert held_out is not None
    predicted, y = held_out[0], rows.energy.y
    ape = abs(predicted[rows.cells] - y) / y
    heldout = held_out_errors(predicted, y, rows.cells, "leave_one_cell_out")
    np.testing.assert_allclose(compare(predicted, y, rows.cells)[1], ape)
    assert heldout.mape == pytest.approx(ape.mean())
    assert heldout.median_ape == pytest.approx(np.median(ape))
    assert heldout.p95_ape == pytest.approx(np.quantile(ape, 0.95))
    assert heldout.worst_ape == pytest.approx(ape.max())
    assert heldout.bias == pytest.approx(predicted[rows.cells].sum() / y.sum() - 1)
    assert heldout.negative_predictions == (predicted <= 0).sum()
    assert heldout.negative_predictions > 0


def test_bias_has_the_sign_of_what_is_predicted_too_much() -> None:
    y, cells = np.array([10.0, 20.0]), np.arange(2)
    assert held_out_errors(np.array([11.0, 22.0]), y, cells, "").bias == pytest.approx(0.1)
    assert held_out_errors(np.array([9.0, 18.0]), y, cells, "").bias == pytest.approx(-0.1)


@pytest.mark.parametrize("form", ["recompute", "cached", "paper"])
def test_a_length_is_predicted_from_the_other_lengths(form: str) -> None:
    rows = group()
    made = make_form(form)
    expected = []
    for tokens in (rows.cell_input_tokens, rows.cell_output_tokens):
        for length in np.unique(tokens):
            kept = (tokens != length)[rows.cells]
            part = pd.DataFrame(
                {
                    "model_name": "a",
                    "input_tokens": rows.cell_input_tokens[rows.cells][kept],
                    "output_tokens": rows.cell_output_tokens[rows.cells][kept],
                    "runtime_s": rows.runtime.y[kept],
                    "gpu_energy_j": rows.energy.y[kept],
                }
            )
            (others,) = group_rows(part, None, "gpu")
            β = regress(others, others.energy, made).coefficients
            out = ~kept
            τin, τout = rows.cell_input_tokens[rows.cells][out], rows.cell_output_tokens[rows.cells][out]
            expected.extend(abs(made.design(τin, τout) @ β / rows.energy.y[out] - 1))
    found = leave_one_length_out(regress(rows, rows.energy, made), rows, rows.energy.y)
    assert found.scheme == "leave_one_length_out"
    assert found.mape == pytest.approx(np.mean(expected), rel=1e-6)
    assert found.worst_ape == pytest.approx(np.max(expected), rel=1e-6)


def test_many_lengths_leave_in_bands() -> None:
    rows = group(lengths=np.arange(8, 8 + 4 * MAX_LENGTHS, 2), trials=1)
    heldout = leave_one_length_out(regress(rows, rows.energy, Recompute()), rows, rows.energy.y)
    assert heldout.mape is not None
    assert heldout.mape == pytest.approx(0.16, abs=0.02)  # the mean of |noise|: the form is right


def test_lengths_that_cannot_be_spared_leave_no_error() -> None:
    rows = group(lengths=(8, 64), trials=1)
    assert leave_one_length_out(regress(rows, rows.energy, Recompute()), rows, rows.energy.y).mape is None


def test_replicate_noise_is_the_spread_of_a_trial() -> None:
    rows = group(trials=200, sigma=0.03)
    assert replicate_noise(rows.energy.raw) == pytest.approx(0.03, rel=0.05)
    lone = group(trials=1)
    assert replicate_noise(lone.energy.raw) is None
