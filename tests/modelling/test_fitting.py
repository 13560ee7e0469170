"""From rows to models: groups, boundaries, the choice of a form, and every refusal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmpower.exceptions import FitError, InputError
from llmpower.modelling import FORMS, Form, fit

LENGTHS = (8, 32, 128, 512)
TRUTH = {"recompute": [4.0, 0.03, 4e-6], "cached": [60.0, 0.2, 1e-5, 15.0, 0.01]}


def measured(form: str = "cached", model_name: str = "a", noise: float = 0.0, **columns: Any) -> pd.DataFrame:
    """A 4 × 4 grid of one model that costs what ``form`` says, with lognormal noise."""
    τin, τout = (grid.reshape(-1) for grid in np.meshgrid(LENGTHS, LENGTHS))
    made: Form = FORMS[form]()
    energy = made.design(τin, τout) @ TRUTH[form]
    energy *= np.random.default_rng(1).lognormal(sigma=noise, size=len(energy))
    frame = pd.DataFrame(
        {
            "model_name": model_name,
            "input_tokens": τin,
            "output_tokens": τout,
            "runtime_s": energy / 300,
            "gpu_energy_j": energy,
        }
    )
    return frame.assign(**columns)


@pytest.mark.parametrize("form", ["recompute", "cached"])
def test_auto_finds_the_form_that_made_the_data(form: str) -> None:
    (model,) = fit(measured(form, noise=0.02))
    for chosen in (model.energy, model.runtime):
        assert chosen.form == form
        assert chosen.heldout.mape is not None
        assert chosen.heldout.mape < 0.03
        assert {other.form for other in chosen.alternatives} == set(FORMS) - {form}
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


@pytest.mark.parametrize(
    ("group_by", "complaint"), [(["model_name", "host"], "host: is no column"), (["system"], "must contain")]
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


def refusal(frame: pd.DataFrame, **options: Any) -> FitError:
    with pytest.raises(FitError) as caught:
        fit(frame, **options)
    return caught.value


def test_mixing_simulated_and_real_rows_is_refused() -> None:
    error = refusal(pd.concat([measured(simulated=True), measured(simulated=False)]))
    assert (error.field, error.value) == ("simulated", "16 of 32 rows")
    # Other models of the same table may be of the other kind.
    assert len(fit(pd.concat([measured(simulated=True), measured(model_name="b", simulated=False)]))) == 2


def test_no_energy_at_all_is_refused() -> None:
    error = refusal(measured(gpu_energy_j=np.nan))
    assert (error.field, error.value) == ("gpu_energy_j", "empty")
    assert "no row of a" in error.advice


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
    assert any(warning.startswith("form cached left aside: cells = 4") for warning in model.energy.warnings)
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
