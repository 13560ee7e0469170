"""What rows count: less where their joules are uncertain, and less for outliers where that is asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
from grids import TRUTH, measured

from llmpower.modelling import FORMS, WorkloadModel, fit
from llmpower.modelling.regressing.weights import uncertain


def test_unsure_rows_count_for_less() -> None:
    frame = measured(noise=0.01)
    wrong = frame.index[::5]
    frame.loc[wrong, "gpu_energy_j"] *= 1.5
    frame["gpu_energy_std_j"] = frame["gpu_energy_j"] * 0.01
    (trusting,) = fit(frame, form="cached")
    frame.loc[wrong, "gpu_energy_std_j"] = frame.loc[wrong, "gpu_energy_j"] * 0.5
    (careful,) = fit(frame, form="cached")
    truth = FORMS["cached"]().design(frame["input_tokens"], frame["output_tokens"]) @ TRUTH["cached"]

    def off(model: WorkloadModel) -> float:
        predicted = model.energy.predict(frame["input_tokens"], frame["output_tokens"])
        return float(np.abs(predicted / truth - 1).mean())

    assert off(careful) < 0.5 * off(trusting)
    assert "weighted by their standard deviations" in careful.energy.estimator
    assert "weighted" not in careful.runtime.estimator


def test_rows_that_claim_to_be_exact_count_for_finitely_many() -> None:
    frame = measured(noise=0.001)
    frame["gpu_energy_std_j"] = frame["gpu_energy_j"] * np.where(np.arange(len(frame)) % 3, 0, 0.5)
    (model,) = fit(frame, form="cached")
    lengths = frame["input_tokens"], frame["output_tokens"]
    truth = FORMS["cached"]().design(*lengths) @ TRUTH["cached"]
    np.testing.assert_allclose(model.energy.predict(*lengths), truth, rtol=0.01)


def test_rows_of_which_nothing_is_known_are_as_sure_as_the_median() -> None:
    variance, one = np.array([0, 1e-4, 2e-4, 4e-4, 8e-4, np.nan]), np.ones(6)
    factors = uncertain(variance, one, scatter=1e-2)
    assert factors[5] == factors[2]


def test_outliers_count_for_less_where_that_is_asked_for() -> None:
    frame = measured(noise=0.01)
    frame.loc[[3, 12], "gpu_energy_j"] *= [3, 0.3]
    truth = FORMS["cached"]().design(64, 64) @ TRUTH["cached"]
    (plain,), (robust,) = fit(frame, form="cached"), fit(frame, form="cached", robust=True)
    assert abs(float(robust.energy.predict(64, 64)) / truth - 1) < 0.02
    assert abs(float(plain.energy.predict(64, 64)) / truth - 1) > 0.05
    assert any("rows are outliers and count for less than half" in warning for warning in robust.energy.warnings)
    assert not any("outliers" in warning for warning in plain.energy.warnings)


def test_outliers_of_a_phase_count_for_less_where_that_is_asked_for() -> None:
    frame = measured(noise=0.01)
    prefill_j = FORMS["cached"]().design(frame["input_tokens"], 0) @ TRUTH["cached"]
    phases = {"prefill_energy_j": prefill_j, "decode_energy_j": frame["gpu_energy_j"] - prefill_j}
    frame = frame.assign(**phases, time_to_first_token_s=frame["runtime_s"] / 10)
    (clean,) = fit(frame, form="phases")
    frame.loc[[3, 12], "decode_energy_j"] *= 0.3
    # Of rows whose answer is one token nothing says what a decode takes.
    single = frame.iloc[:1].assign(output_tokens=1, decode_energy_j=0.0, gpu_energy_j=prefill_j[0])
    frame = pd.concat([single, frame], ignore_index=True)
    (plain,), (robust,) = fit(frame, form="phases"), fit(frame, form="phases", robust=True)
    lengths = [64, 512], [512, 64]
    wanted = clean.energy.predict(*lengths)
    assert (
        np.abs(robust.energy.predict(*lengths) - wanted) < 0.5 * np.abs(plain.energy.predict(*lengths) - wanted)
    ).all()
    assert any(f" of {len(frame)} rows are outliers and count for less" in said for said in robust.energy.warnings)


def test_of_as_many_rows_as_terms_none_need_be_an_outlier() -> None:
    """The fit goes through four rows, a bound holds it off the fifth, and without that one a term is undetermined."""
    frame = pd.DataFrame(
        [(512, 32, 1103.8), (8, 64, 1104.3), (32, 64, 1333.7), (128, 64, 1361.5), (32, 8, 175.8)],
        columns=["input_tokens", "output_tokens", "gpu_energy_j"],
    ).assign(model_name="a", runtime_s=1.0)
    (plain,), (robust,) = fit(frame, form="cached"), fit(frame, form="cached", robust=True)
    np.testing.assert_allclose(robust.energy.coefficients, plain.energy.coefficients, rtol=1e-9, atol=1e-12)
