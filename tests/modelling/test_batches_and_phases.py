"""Fits of what a batch shares, and of prefill and decode apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from grids import measured, refusal

from llmpower.modelling import fit, update
from llmpower.modelling.forms import Batched, Phases


def batches() -> pd.DataFrame:
    """Whole batches of 1, 4 and 16 requests over a 3 × 3 grid of lengths, as the form ``batched`` has them."""
    rows = []
    for τin in (8, 64, 512):
        for τout in (8, 64, 512):
            for together in (1, 4, 16):
                joules = together * float(Batched().design(τin, τout, together) @ BATCH_TRUTH)
                rows.append((together * τin, together * τout, together, joules, joules / 300))
    columns = ["input_tokens", "output_tokens", "batch_size", "gpu_energy_j", "runtime_s"]
    frame = pd.DataFrame(rows, columns=columns).assign(model_name="a")
    frame["gpu_energy_j"] *= np.random.default_rng(5).lognormal(sigma=0.01, size=len(frame))
    return frame


BATCH_TRUTH = np.array([60.0, 0.2, 1e-5, 15.0, 0.5, 0.01])


def test_batches_are_told_apart_by_what_they_share() -> None:
    (model,) = fit(batches())
    assert model.energy.form == model.runtime.form == "batched"
    assert (model.energy.batch_range, model.energy.input_range) == ((1, 16), (8, 512))
    for together in (1, 4, 16):
        expected = float(Batched().design(64, 64, together) @ BATCH_TRUTH)
        assert float(model.energy.predict(64, 64, together)) == pytest.approx(expected, rel=0.05)
        served = model.at_batch_size(together)
        assert served.energy.form == "cached"
        assert float(served.energy.predict(64, 64)) == pytest.approx(expected, rel=0.05)
        # Every request of a batch waits for all of it.
        assert float(served.runtime.predict(64, 64)) == pytest.approx(together * expected / 300, rel=0.05)
        # Two of its terms have become one, so the interval has a degree of freedom more.
        interval = model.energy.interval(64, 64, batch_size=together)
        np.testing.assert_allclose(served.energy.interval(64, 64), interval, rtol=1e-3)


def test_concurrent_requests_share_steps_as_a_batch_does() -> None:
    frame = batches()
    together = frame.pop("batch_size")
    frame["concurrency"] = together
    for column in ("input_tokens", "output_tokens", "gpu_energy_j"):
        frame[column] = frame[column] / together
    (alone,), (batched,) = fit(frame, form="batched"), fit(batches(), form="batched")
    np.testing.assert_allclose(alone.energy.predict(64, 64, [1, 4, 16]), batched.energy.predict(64, 64, [1, 4, 16]))
    np.testing.assert_allclose(alone.runtime.coefficients, batched.runtime.coefficients, rtol=1e-6)


def test_a_form_of_batches_needs_batches() -> None:
    error = refusal(measured(batch_size=8), form="batched")
    assert (error.field, error.value) == ("batch_size", "8")


@pytest.mark.parametrize("together", [1, 4])
def test_a_model_of_batches_learns_from_rows_that_were_served_alike(together: int) -> None:
    frame = batches()
    later = frame["batch_size"] == together
    later &= frame["output_tokens"] == 64 * together
    (updated,), (whole,) = update(fit(frame[~later], form="batched"), frame[later]), fit(frame, form="batched")
    for ours, theirs in ((updated.energy, whole.energy), (updated.runtime, whole.runtime)):
        np.testing.assert_allclose(ours.coefficients, theirs.coefficients, rtol=1e-6)
        assert (ours.n_obs, ours.batch_range) == (theirs.n_obs, (1, 16))


def test_what_was_served_together_is_said_unless_the_form_says_it() -> None:
    of_batches, among = (
        f"every {what}: predictions are of {of}"
        for what, of in (
            ("row says it is a batch of 8", "such a batch, by all its tokens"),
            ("request was served among 8", "requests so served, not alone"),
        )
    )
    for columns, said in (
        ({"batch_size": 8}, (of_batches,)),
        ({"batch_size": 8, "concurrency": 2}, (of_batches,)),
        ({"concurrency": 8}, (among,)),
        ({"batch_size": 1, "concurrency": 1}, ()),
        ({}, ()),
    ):
        (model,) = fit(measured(**columns), form="cached")
        assert model.energy.warnings == model.runtime.warnings == said
    pools = "pools batch_size 1, 4, 16; separate them with --group-by model_name,batch_size"
    for form, is_said in (("batched", False), ("cached", True)):
        (model,) = fit(batches(), form=form)
        (updated,) = update([model], batches())
        assert [pools in each.energy.warnings for each in (model, updated)] == [is_said] * 2


def test_a_fit_of_another_form_is_the_same_at_any_batch_size() -> None:
    (model,) = fit(measured(noise=0.02))
    assert model.at_batch_size(8) == model


def phased(**columns: Any) -> pd.DataFrame:
    """A grid that costs what ``phases`` says, each phase told apart in joules and in seconds."""
    frame = measured()
    φ = Phases().design(frame["input_tokens"], frame["output_tokens"])
    prefill, decode = φ[:, :3] @ [60.0, 0.2, 1e-5], φ[:, 3:] @ [15.0, 0.01]
    frame = frame.assign(prefill_energy_j=prefill, decode_energy_j=decode, gpu_energy_j=prefill + decode)
    return frame.assign(runtime_s=(prefill + decode) / 300, time_to_first_token_s=prefill / 300).assign(**columns)


def test_phases_are_fitted_apart_and_summed() -> None:
    (model,) = fit(phased(), form="phases")
    np.testing.assert_allclose(model.energy.coefficients, [60.0, 0.2, 1e-5, 15.0, 0.01], rtol=1e-6)
    np.testing.assert_allclose(model.runtime.coefficients * 300, model.energy.coefficients, rtol=1e-6)
    assert model.energy.heldout.mape == pytest.approx(0, abs=1e-6)
    assert model.energy.r_squared_centered == pytest.approx(1)
    (auto,) = fit(phased())
    assert "phases" in {auto.energy.form, *(other.form for other in auto.energy.alternatives)}


def test_a_phase_with_nothing_in_it_is_not_fitted_to() -> None:
    frame = phased()
    frame.loc[frame["output_tokens"] == 8, ["prefill_energy_j", "decode_energy_j"]] = np.nan
    (model,) = fit(frame, form="phases")
    np.testing.assert_allclose(model.energy.coefficients, [60.0, 0.2, 1e-5, 15.0, 0.01], rtol=1e-6)
    assert model.energy.n_obs == len(frame)


def test_phases_need_both() -> None:
    error = refusal(measured(), form="phases")
    assert (error.field, error.value) == ("prefill_energy_j, decode_energy_j", "missing")
