"""Fits whose predictions add up to what was measured, and what is said of those that do not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel, fit, update
from llmpower.modelling.forms import Cached
from llmpower.modelling.regressing.totals import MATCHED
from llmpower.modelling.rows import strata

COSTS = np.array([60, 0.2, 1e-5, 15, 0.01])
GRID = (8, 32, 128, 512, 2048)


def measured(sigma: float, *, trials: int = 40, seed: int = 1) -> pd.DataFrame:
    """Trials that vary by ``sigma`` about a mean that follows the form ``cached``, with both phases."""
    generator = np.random.default_rng(seed)
    τin, τout = (axis.ravel() for axis in np.meshgrid(np.repeat(GRID, trials), GRID))
    design = Cached().design(τin, τout)
    ε = generator.lognormal(-(sigma**2) / 2, sigma, (2, len(τin)))
    prefill, decode = design[:, :3] @ COSTS[:3] * ε[0], design[:, 3:] @ COSTS[3:] * ε[1]
    joules = prefill + decode
    return pd.DataFrame(
        {
            "model_name": "a",
            "input_tokens": τin,
            "output_tokens": τout,
            "runtime_s": joules / 300,
            "time_to_first_token_s": prefill / 300,
            "gpu_energy_j": joules,
            "prefill_energy_j": prefill,
            "decode_energy_j": decode,
        }
    )


def total_of(model: WorkloadModel, rows: pd.DataFrame) -> float:
    return float(model.energy.predict(rows["input_tokens"], rows["output_tokens"]).sum() / rows["gpu_energy_j"].sum())


@pytest.mark.parametrize("form", ["cached", "phases", "quadratic", "auto"])
def test_a_matched_fit_adds_up_to_what_was_measured(form: str) -> None:
    rows = measured(0.3)
    (plain,), (matched,) = fit(rows, form=form), fit(rows, form=form, match_total=True)
    assert total_of(plain, rows) < 0.9
    assert total_of(matched, rows) == pytest.approx(1, rel=1e-12)
    assert plain.energy.heldout.bias is not None
    assert plain.energy.heldout.bias < -0.1
    assert matched.energy.heldout.bias == pytest.approx(0, abs=0.01)
    assert MATCHED in matched.energy.estimator
    assert MATCHED not in plain.energy.estimator


def test_the_price_of_one_cell_is_low_by_twice_the_variance() -> None:
    """E[1/y]/E[1/y²] of a lognormal, e^(−2σ²) of its mean."""
    rows = measured(0.2, trials=20_000).query("input_tokens == 8 or output_tokens == 8")
    rows = rows.assign(gpu_energy_j=rows["decode_energy_j"])
    (plain,), (matched,) = fit(rows, form="cached"), fit(rows, form="cached", match_total=True)
    assert total_of(plain, rows) == pytest.approx(np.exp(-2 * 0.2**2), rel=0.01)
    (true,) = np.atleast_1d(Cached().design(512, 8)[3:] @ COSTS[3:])
    assert float(matched.energy.predict(512, 8)) == pytest.approx(true, rel=0.01)


@pytest.mark.parametrize("form", ["cached", "phases"])
def test_a_cell_and_a_length_are_predicted_by_fits_to_all_others(form: str) -> None:
    rows = measured(0.3, trials=2)
    (model,) = fit(rows, form=form, match_total=True)
    found, extrapolation = model.energy.heldout, model.energy.extrapolation
    assert extrapolation is not None
    by_cell = without(rows, rows.groupby(["input_tokens", "output_tokens"]).ngroup(), form)
    assert found.mape == pytest.approx(by_cell.mean(), rel=1e-6)
    assert found.worst_ape == pytest.approx(by_cell.max(), rel=1e-6)
    by_length = np.concatenate([without(rows, rows[name], form) for name in ("input_tokens", "output_tokens")])
    assert extrapolation.mape == pytest.approx(by_length.mean(), rel=1e-6)


def without(rows: pd.DataFrame, part: pd.Series, form: str) -> np.ndarray:
    """|ŷ − y|/y of each part's rows by a fit to those of the others."""
    errors = []
    for number in part.unique():
        (model,) = fit(rows[part != number], form=form, match_total=True)
        out = rows[part == number]
        errors.append(model.energy.predict(out["input_tokens"], out["output_tokens"]) / out["gpu_energy_j"] - 1)
    return np.abs(np.concatenate(errors))


def test_bands_add_up_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    τin, τout = (np.maximum(generator.lognormal(mean, 1, 20_000), 1).astype(int) for mean in (6, 5))
    joules = Cached().design(τin, τout) @ COSTS * generator.lognormal(-0.045, 0.3, 20_000)
    columns = {"input_tokens": τin, "output_tokens": τout, "runtime_s": joules / 300, "gpu_energy_j": joules}
    rows = pd.DataFrame({"model_name": "a", **columns})
    monkeypatch.setattr(strata, "MOST_CELLS", 256)
    (model,) = fit(rows, form="cached", match_total=True)
    assert any("bands" in warning for warning in model.energy.warnings)
    assert total_of(model, rows) == pytest.approx(1, abs=1e-3)


def test_standard_errors_are_those_of_the_scaled_coefficients() -> None:
    """Prices of 200 samples scatter by what each says of itself."""
    fits = [fit(measured(0.2, trials=4, seed=seed), form="cached", match_total=True)[0].energy for seed in range(200)]
    scatter = np.std([found.coefficients[3] for found in fits])
    stated = np.sqrt(np.mean([found.std_errors[3] ** 2 for found in fits if not np.isnan(found.std_errors[3])]))
    assert stated == pytest.approx(scatter, rel=0.3)


def test_ordinary_least_squares_stay_as_they_are() -> None:
    rows = measured(0.3)
    assert fit(rows, form="paper", match_total=True) == fit(rows, form="paper")


def test_a_low_total_is_said_where_it_matters() -> None:
    (plain,), (matched,), (quiet,) = (
        fit(measured(0.3), form="cached"),
        fit(measured(0.3), form="cached", match_total=True),
        fit(measured(0.05), form="cached"),
    )
    assert any("less than was measured" in warning and "--match-total" in warning for warning in plain.energy.warnings)
    assert not any("less than was measured" in w for model in (matched, quiet) for w in model.energy.warnings)


def test_outliers_and_totals_are_not_asked_for_together() -> None:
    with pytest.raises(InputError, match="outliers count fully in a total"):
        fit(measured(0.1), robust=True, match_total=True)


def test_a_matched_model_does_not_learn() -> None:
    rows = measured(0.1)
    with pytest.raises(InputError, match="fit again from all measurements"):
        update(fit(rows, form="cached", match_total=True), rows)


@pytest.mark.parametrize("match_total", [False, True])
def test_intervals_hold_the_mean_of_trials_where_fits_add_up(match_total: bool) -> None:
    τin, τout = np.array([16, 100, 1000]), np.array([16, 50, 700])
    truth = Cached().design(τin, τout) @ COSTS
    held, missing = [], []
    for seed in range(40):
        (model,) = fit(measured(0.15, trials=10, seed=seed), form="cached", match_total=match_total)
        low, high = model.energy.interval(τin, τout)
        held.append((low <= truth) & (truth <= high))
        missing.append(model.energy.shortfall)
    # 120 intervals of 95 %, which take no note of what relative error is drawn down by.
    assert np.mean(missing) < 0.005 if match_total else np.mean(missing) > 0.02
    assert np.mean(held) > 0.88 if match_total else np.mean(held) < 0.7
