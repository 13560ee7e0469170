"""From rows to models: groups, boundaries, the choice of a form, and every refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from grids import TRUTH, measured, refusal

from llmpower.exceptions import FitError, InputError
from llmpower.modelling import FORM_NAMES, FORMS, fit
from llmpower.modelling.rows import frames


@pytest.mark.parametrize("form", list(TRUTH))
def test_auto_finds_the_form_that_made_the_data(form: str) -> None:
    (model,) = fit(measured(form, noise=0.02))
    for chosen in (model.energy, model.runtime):
        assert chosen.form == form
        assert chosen.heldout.mape is not None
        assert chosen.heldout.mape < 0.03
        # Nothing was said of batches or phases, so those forms have no part in it.
        assert {other.form for other in chosen.alternatives} == set(FORM_NAMES) - {form, "batched", "phases"}
        assert chosen.choice.startswith(f"{form} ")
    np.testing.assert_allclose(model.energy.predict(64, 64), FORMS[form]().design(64, 64) @ TRUTH[form], rtol=0.03)


def test_a_form_that_stays_positive_wins_whatever_its_error() -> None:
    # Falling with τin, which no positive form can follow; the paper's form is exact but for the one cell near zero.
    frame = measured()
    frame["gpu_energy_j"] = (frame["output_tokens"] - frame["input_tokens"] / 63).clip(lower=0.5)
    (model,) = fit(frame)
    paper = next(other.heldout for other in model.energy.alternatives if other.form == "paper")
    assert paper.mape is not None
    assert model.energy.heldout.mape is not None
    assert paper.mape < model.energy.heldout.mape
    assert "predicts no cell at or below zero, as paper, paper+intercept would" in model.energy.choice
    assert (paper.negative_predictions, model.energy.heldout.negative_predictions) == (1, 0)


def test_a_form_asked_for_has_no_alternatives() -> None:
    (model,) = fit(measured(), form="paper", intercept=True)
    assert model.energy.terms[0] == "intercept"
    assert model.energy.alternatives == ()


def test_one_model_per_name_and_system() -> None:
    frame = pd.concat([measured(model_name=name, system=system) for name in "ba" for system in ("Y", "X")])
    assert [(model.model_name, model.system) for model in fit(frame)] == [
        ("a", "X"),
        ("a", "Y"),
        ("b", "X"),
        ("b", "Y"),
    ]
    pooled = fit(frame, group_by=["model_name"])
    assert fit(frame, group_by="model_name") == pooled
    assert [(model.model_name, model.system) for model in pooled] == [("a", "X + Y"), ("b", "X + Y")]
    assert pooled[0].energy.warnings[0] == "pools system X, Y; separate them with --group-by model_name,system"


def test_further_columns_become_part_of_the_name() -> None:
    frame = pd.concat([measured(batch_size=1), measured(batch_size=8)])
    (pooled,) = fit(frame)
    assert any(warning.startswith("pools batch_size 1, 8;") for warning in pooled.energy.warnings)
    assert [model.model_name for model in fit(frame, group_by=["model_name", "batch_size"])] == [
        "a [batch_size=1]",
        "a [batch_size=8]",
    ]


def test_a_table_read_in_stretches_is_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    # Models, systems and empty cells of a column in every stretch, in no order.
    parts = [
        measured(noise=0.02, system="A", quality="modelled", node=1.0),
        measured(noise=0.03, system="B", node=float("nan")),
        measured("roofline", "b", node=float("nan")),
    ]
    frame = pd.concat(parts).sample(frac=1, random_state=1)
    options: dict[str, Any] = {"form": "cached", "group_by": ["model_name", "node"]}
    whole = fit(frame, **options)
    monkeypatch.setattr(frames, "STRETCH", 7)
    stretched = fit(frame, **options)
    assert [(model.model_name, model.system) for model in stretched] == [
        ("a [node=1]", "A"),
        ("a [node=nan]", "B"),
        ("b [node=nan]", ""),
    ]
    for one, other in zip(stretched, whole, strict=True):
        assert one.energy.warnings == other.energy.warnings
        np.testing.assert_array_equal(one.energy.coefficients, other.energy.coefficients)


@pytest.mark.parametrize(
    ("group_by", "complaint"), [(["model_name", "host"], "host: is not a column"), (["system"], "must contain")]
)
def test_group_by_refusals(group_by: list[str], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        fit(measured(system="X"), group_by=group_by)


def test_rows_without_energy_are_left_out_and_counted() -> None:
    frame = measured(noise=0.02)
    frame.loc[[0, 5], "gpu_energy_j"] = np.nan
    (model,) = fit(frame)
    assert (model.energy.n_obs, model.runtime.n_obs) == (14, 14)
    for chosen in (model.energy, model.runtime):
        assert chosen.warnings[0] == "2 of 16 rows left out: energy not measured"


def test_boundary_names_what_was_summed() -> None:
    frame = measured()
    frame["cpu_energy_j"] = 2 * frame["gpu_energy_j"]
    energies = {}
    for boundary in ("gpu", "cpu", "gpu+cpu"):
        (model,) = fit(frame, form="cached", boundary=boundary)
        assert model.boundary == boundary
        energies[boundary] = float(model.energy.predict(64, 64))
    assert energies["cpu"] == pytest.approx(2 * energies["gpu"])
    assert energies["gpu+cpu"] == pytest.approx(3 * energies["gpu"])


def test_a_sum_takes_the_parts_that_were_measured() -> None:
    frame = measured()
    frame["cpu_energy_j"] = frame["gpu_energy_j"]
    frame.loc[3, "cpu_energy_j"] = np.nan
    (model,) = fit(frame, boundary="gpu+cpu")
    assert model.energy.warnings[0] == "1 of 16 rows left out: energy not measured"
    frame["gpu_energy_j"] = np.nan
    (model,) = fit(frame, boundary="gpu+cpu")
    assert model.boundary == "cpu"


@pytest.mark.parametrize("net", ["", "-idle"])
def test_a_sum_of_what_no_row_has_together_says_how_many_have_each(net: str) -> None:
    frame = measured()
    frame["cpu_energy_j"] = frame["gpu_energy_j"]
    frame["cpu_idle_energy_j"] = frame["gpu_idle_energy_j"] = 1e-9
    frame.loc[:0, "gpu_energy_j"] = np.nan
    frame.loc[1:, "cpu_energy_j"] = np.nan
    with pytest.raises(FitError) as caught:
        fit(frame, boundary=f"gpu+cpu{net}")
    told = f"there are 15 rows with gpu{net} alone and 1 row with cpu{net} alone; choose one of them"
    assert str(caught.value) == f"--boundary = gpu+cpu{net}: no row of a has both: {told}"


def test_a_bare_energy_is_taken_as_it_is() -> None:
    (model,) = fit(measured().rename(columns={"gpu_energy_j": "energy_j"}))
    assert model.boundary is None


def test_simulated_is_carried_along() -> None:
    assert fit(measured(simulated=True))[0].simulated
    assert not fit(measured(simulated=False))[0].simulated


def test_doubtful_energies_are_said_to_be() -> None:
    quality = ["modelled"] * 4 + ["measured"] * 12
    (model,) = fit(measured(allocated=[True] * 3 + [False] * 13, quality=quality))
    assert "3 of 16 energies are shares by rule (allocated), not measured alone" in model.energy.warnings
    assert "4 of 16 energies saw fewer than two ticks of the counter (quality modelled)" in model.energy.warnings
    assert model.runtime.warnings == ()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_joules_in_other_units_are_noticed(factor: float) -> None:
    frame = measured()
    frame["gpu_energy_j"] *= factor
    (model,) = fit(frame)
    assert any(warning.startswith("median power is") for warning in model.energy.warnings)


def test_mixing_simulated_and_real_rows_is_refused() -> None:
    error = refusal(pd.concat([measured(simulated=True), measured(simulated=False)]))
    assert (error.field, error.value) == ("simulated", "16 of 32 rows")
    # Other models of the same table may be of the other kind.
    assert len(fit(pd.concat([measured(simulated=True), measured(model_name="b", simulated=False)]))) == 2


def test_no_energy_at_all_is_refused() -> None:
    error = refusal(measured(gpu_energy_j=np.nan))
    assert (error.field, error.value) == ("gpu_energy_j", "empty")
    assert "no row of a" in error.advice


def test_one_cell_alone_is_refused() -> None:
    error = refusal(pd.concat([measured().iloc[[5]]] * 4))
    assert (error.field, error.value) == ("cells", 1)
    assert "same lengths" in error.advice


@pytest.mark.parametrize("column", ["input_tokens", "output_tokens"])
def test_a_constant_column_is_refused(column: str) -> None:
    frame = measured()
    error = refusal(frame[frame[column] == 32])
    assert (error.field, error.value) == (column, "32")


@pytest.mark.parametrize(("form", "n_terms"), [("paper", 3), ("recompute", 3), ("cached", 5)])
def test_fewer_cells_than_terms_are_refused(form: str, n_terms: int) -> None:
    diagonal = measured()
    diagonal = diagonal[diagonal["input_tokens"] == diagonal["output_tokens"]].iloc[: n_terms - 1]
    error = refusal(pd.concat([diagonal] * 3), form=form)
    assert (error.field, error.value) == ("cells", n_terms - 1)
    assert f"the {n_terms} terms" in error.advice


def test_terms_that_cannot_be_told_apart_are_refused() -> None:
    # On τin = τout the paper's two slopes multiply the same column.
    diagonal = measured()
    diagonal = diagonal[diagonal["input_tokens"] == diagonal["output_tokens"]]
    error = refusal(diagonal, form="paper")
    assert (error.field, error.value) == ("form", "paper")
    assert "cannot tell" in error.advice


def test_auto_leaves_aside_what_the_cells_cannot_carry_and_says_so() -> None:
    frame = measured("recompute")
    corner = frame[frame["input_tokens"].isin([8, 512]) & frame["output_tokens"].isin([8, 512])]
    (model,) = fit(corner)
    assert model.energy.form == "recompute"
    assert any(warning.startswith("form cached skipped: cells = 4") for warning in model.energy.warnings)
    assert any(warning.startswith("form quadratic skipped: cells = 4") for warning in model.energy.warnings)
    refused = refusal(corner.iloc[1:3])
    assert refused.field == "cells"


def test_without_a_cell_to_spare_there_is_no_held_out_error_and_a_positive_form_wins() -> None:
    frame = measured("recompute")
    corner = frame[frame["input_tokens"].isin([8, 512]) & frame["output_tokens"].isin([8, 512])]
    (model,) = fit(corner.iloc[:3])
    assert model.energy.form == "recompute"
    assert model.energy.heldout.mape is None
    assert any(warning.startswith("no held-out error") for warning in model.energy.warnings)


def test_ranges_are_those_of_the_rows_fitted() -> None:
    frame = measured()
    frame.loc[frame["output_tokens"] == 512, "gpu_energy_j"] = np.nan
    (model,) = fit(frame)
    assert (model.energy.input_range, model.energy.output_range) == ((8, 512), (8, 128))


def test_idle_share_is_taken_away_where_that_is_asked_for() -> None:
    frame = measured()
    frame["gpu_idle_energy_j"] = 0.25 * frame["gpu_energy_j"]
    (gross,), (net,) = fit(frame, form="cached"), fit(frame, form="cached", boundary="gpu-idle")
    assert (gross.boundary, net.boundary) == ("gpu", "gpu-idle")
    np.testing.assert_allclose(net.energy.coefficients, 0.75 * gross.energy.coefficients, rtol=1e-6)
    frame.loc[0, "gpu_idle_energy_j"] = 2 * frame.loc[0, "gpu_energy_j"]
    frame.loc[1, "gpu_idle_energy_j"] = np.nan
    (less,) = fit(frame, form="cached", boundary="gpu-idle")
    assert less.energy.warnings[:2] == (
        "1 of 16 rows left out: energy not measured",
        "1 of 16 rows left out: nothing is left above the idle share",
    )
    error = refusal(measured(), boundary="gpu-idle")
    assert (error.field, error.value) == ("gpu_idle_energy_j", "missing")


def test_errors_of_cells_with_many_trials_are_those_of_the_cells() -> None:
    # Ten thousand trials of cells that all miss the form a little know the form no better than one trial of each.
    generator = np.random.default_rng(7)
    frame = measured()
    frame["gpu_energy_j"] *= generator.lognormal(sigma=0.1, size=len(frame))
    (once,) = fit(frame, form="recompute+call")
    (often,) = fit(pd.concat([frame] * 500), form="recompute+call")
    np.testing.assert_allclose(often.energy.std_errors, once.energy.std_errors, rtol=1e-6)
    np.testing.assert_allclose(often.energy.interval(64, 64), once.energy.interval(64, 64), rtol=1e-6)
