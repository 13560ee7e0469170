"""Traffic in bands of lengths against the same rows with a cell for each length."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from llmpower.modelling import WorkloadModel, fit, update
from llmpower.modelling.forms import Batched, Phases, RecomputeCall
from llmpower.modelling.rows import strata

ROWS = 30_000
WIDE = 150
"""Cells that leave tokens one digit or two: bands from a length to half as much again, or twice as much."""


def lengths(seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    τin, τout = generator.lognormal(6, 1.2, ROWS), generator.lognormal(5, 1, ROWS)
    return np.clip(τin, 1, 16000).round(), np.clip(τout, 1, 4000).round()


def rows(prefill_j: NDArray[np.float64], decode_j: NDArray[np.float64], noise: float = 0.0) -> pd.DataFrame:
    τin, τout = lengths(1)
    missed = np.random.default_rng(2).lognormal(0, noise, ROWS) if noise else np.ones(ROWS)
    joules = (prefill_j + decode_j) * missed
    return pd.DataFrame(
        {
            "model_name": "m",
            "input_tokens": τin,
            "output_tokens": τout,
            "runtime_s": joules / 300,
            "time_to_first_token_s": prefill_j * missed / 300,
            "gpu_energy_j": joules,
            "prefill_energy_j": prefill_j * missed,
            "decode_energy_j": decode_j * missed,
        }
    )


def both(
    measurements: pd.DataFrame, most: int, monkeypatch: pytest.MonkeyPatch, form: str, *, robust: bool = False
) -> list[WorkloadModel]:
    """In bands, and with exact cells."""
    found = []
    for cells in (most, len(measurements)):
        monkeypatch.setattr(strata, "MOST_CELLS", cells)
        found += fit(measurements, form=form, robust=robust)
    banded = [any("bands (lengths to" in warning for warning in model.energy.warnings) for model in found]
    assert banded == [True, False]
    return found


@pytest.mark.parametrize("form", ["quadratic", "cached", "phases"])
def test_bands_of_any_width_are_exact_where_the_form_is_linear(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    τin, τout = lengths(1)
    for fitted in both(rows(60 + 0.2 * τin, 15 * (τout - 1)), WIDE, monkeypatch, form):
        np.testing.assert_allclose(fitted.energy.predict(τin, τout), 60 + 0.2 * τin + 15 * (τout - 1), rtol=1e-6)


@pytest.mark.parametrize("form", ["cached", "phases", "recompute+call"])
def test_bands_cost_less_than_three_thousandths(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    τin, τout = lengths(1)
    if form == "recompute+call":
        prefill_j = RecomputeCall().design(τin, τout) @ [20, 1, 0.02, 2e-6] / 5
        decode_j = 4 * prefill_j
    else:
        prefill_j = 60 + 0.02 * τin + 1e-3 * τin**2
        decode_j = Phases().design(τin, τout) @ [0, 0, 0, 1.5, 0.01]
    banded, exact = both(rows(prefill_j, decode_j, noise=0.05), strata.MOST_CELLS, monkeypatch, form)
    asked = np.meshgrid([20, 300, 5000], [10, 200, 2000])
    for ours, theirs in ((banded.energy, exact.energy), (banded.runtime, exact.runtime)):
        np.testing.assert_allclose(ours.predict(*asked), theirs.predict(*asked), rtol=3e-3)
        assert ours.r_squared == pytest.approx(theirs.r_squared, abs=3e-3)
        assert ours.r_squared_centered == pytest.approx(theirs.r_squared_centered, abs=3e-3)
        assert ours.heldout.mape == pytest.approx(theirs.heldout.mape, abs=2e-4)
        np.testing.assert_allclose(ours.std_errors, theirs.std_errors, rtol=0.3)


@pytest.mark.parametrize("robust", [False, True])
def test_batches_keep_more_digits_than_tokens(robust: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    τin, τout = lengths(1)
    batch_size = np.random.default_rng(3).integers(1, 33, ROWS)
    request_j = Batched().design(τin, τout, batch_size) @ [60, 0.02, 1e-5, 15, 1.5, 0.01]
    measurements = rows(request_j * batch_size / 5, request_j * batch_size * 0.8, noise=0.05)
    measurements = measurements.assign(
        batch_size=batch_size, input_tokens=τin * batch_size, output_tokens=τout * batch_size
    )
    banded, exact = both(measurements, strata.MOST_CELLS, monkeypatch, "batched", robust=robust)
    for asked in ((50, 20), (300, 150), (3000, 800)):
        for of in (1, 5, 20):
            ours, theirs = (model.energy.predict(*asked, batch_size=of) for model in (banded, exact))
            assert ours == pytest.approx(theirs, rel=1.5e-2)


def test_an_update_in_bands_is_a_fit_of_all_rows() -> None:
    τin, τout = lengths(1)
    measurements = rows(60 + 0.2 * τin, 15 * (τout - 1) + 0.01 * τin * τout, noise=0.05)
    old, new = measurements[: ROWS // 2], measurements[ROWS // 2 :]
    for form in ("cached", "phases", "paper"):
        (updated,), (whole,) = update(fit(old, form=form), new), fit(measurements, form=form)
        assert len([warning for warning in updated.energy.warnings if "bands (lengths to" in warning]) == 2
        for ours, theirs in ((updated.energy, whole.energy), (updated.runtime, whole.runtime)):
            np.testing.assert_allclose(ours.predict([20, 300, 5000], 200), theirs.predict([20, 300, 5000], 200), 1e-3)
            assert ours.r_squared == pytest.approx(theirs.r_squared, abs=1e-3)
