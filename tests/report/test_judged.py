"""Rows are counted as the fit counts them: by the request for the form ``batched``, else as they stand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling import fit
from llmpower.modelling.fitted.models import labels_of
from llmpower.modelling.forms import Batched
from llmpower.report.judged import grouping_of, judge
from llmpower.report.lengths import length_figures

LENGTHS = [8, 64, 512]
COEFFICIENTS = [60, 0.2, 1e-5, 15, 0.5, 0.01]


def batches(name: str = "org/a", system: str = "1× card") -> pd.DataFrame:
    """Exactly what the form says, of batches of 1, 2 and 8: tokens, joules and seconds of whole batches."""
    rows = []
    for τin in LENGTHS:
        for τout in LENGTHS:
            for size in (1, 2, 8):
                joules = size * float(Batched().design(τin, τout, size) @ COEFFICIENTS)
                rows.append((size * τin, size * τout, size, joules / 300, joules))
    columns = ["input_tokens", "output_tokens", "batch_size", "runtime_s", "gpu_energy_j"]
    return pd.DataFrame(rows, columns=columns).assign(model_name=name, system=system)


def test_batches_are_judged_by_the_request() -> None:
    rows = batches()
    energy, runtime = judge(fit(rows, form="batched"), rows)
    assert (energy.target, runtime.target) == ("energy", "runtime")
    assert sorted(set(energy.input_tokens)) == sorted(set(energy.output_tokens)) == LENGTHS
    assert sorted(set(energy.sharing)) == [1, 2, 8]
    alone = Batched().design(energy.input_tokens, energy.output_tokens, energy.sharing) @ COEFFICIENTS
    np.testing.assert_allclose(energy.measured, alone, rtol=1e-9)
    # Held against the whole batch, a model of batches of 8 would look wrong by a factor of 8.
    np.testing.assert_allclose(energy.residual, 0, atol=1e-6)
    np.testing.assert_allclose(runtime.residual, 0, atol=1e-6)
    # Everybody in a batch waits for all of it.
    np.testing.assert_allclose(runtime.measured, energy.measured * energy.batch_size / 300, rtol=1e-9)


def test_each_model_is_judged_by_joules_of_its_own_boundary() -> None:
    rows = pd.concat([batches(system="1× card"), batches(system="2× card")]).assign(cpu_energy_j=1.0)
    one, other = fit(rows, form="batched")
    judged = judge([one, replace(other, boundary="cpu")], rows)
    assert [(j.model.system, j.target) for j in judged] == [
        (model.system, target) for model in (one, other) for target in ("energy", "runtime")
    ]
    assert (judged[2].measured * judged[2].batch_size == 1).all()


def test_a_form_without_batches_is_held_against_rows_as_they_stand() -> None:
    rows = batches()[lambda table: table["batch_size"] == 8]
    energy, _ = judge(fit(rows, form="cached"), rows)
    np.testing.assert_allclose(energy.residual, 0, atol=0.05)
    assert energy.measured.sum() == pytest.approx(rows["gpu_energy_j"].sum())
    assert sorted(set(energy.input_tokens)) == [8 * length for length in LENGTHS]


def test_the_grouping_of_a_fit_is_read_from_its_names() -> None:
    rows = batches()
    models = fit(rows, group_by=["model_name", "system", "batch_size"], form="cached")
    assert [model.model_name for model in models] == [f"org/a [batch_size={size}]" for size in (1, 2, 8)]
    assert grouping_of(models, rows) == ["model_name", "system", "batch_size"]
    assert len(judge(models, rows)) == 6
    assert grouping_of(fit(rows), rows) is None


def test_a_model_on_two_systems_has_two_names() -> None:
    rows = pd.concat([batches(), batches(system="2× card"), batches("b")])
    assert labels_of(fit(rows, form="batched")) == ["b", "org/a@1× card", "org/a@2× card"]


def test_predictions_at_or_below_zero_are_no_ratio() -> None:
    rows = batches()[lambda table: table["batch_size"] == 1]
    model = fit(rows, form="paper")
    energy, _ = judge(model, rows)
    below = model[0].energy.predict(energy.input_tokens, energy.output_tokens) <= 0
    assert np.isnan(energy.residual[below]).all()
    assert np.isfinite(energy.residual[~below]).all()


def test_throughput_counts_all_tokens_of_a_batch() -> None:
    rows = batches()
    throughput, per_token = length_figures(judge(fit(rows, form="batched"), rows))
    at = {row[2]: row for row in throughput.table.rows if row[1] == "requests at a time"}
    assert sorted(at) == [1, 2, 8]
    for size, row in at.items():
        seconds = float(size) * float(Batched().design(64, 64, size) @ COEFFICIENTS) / 300  # type: ignore[arg-type]
        assert row[4] == pytest.approx(size * 128 / seconds)  # type: ignore[operator]
        assert row[7] == pytest.approx(row[4], rel=1e-6)
    assert {row[1] for row in per_token.table.rows} == {"input tokens", "output tokens", "requests at a time"}
