"""What a doubtful prediction does, as its caller asked."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import PredictionWarning, WorkloadModel, fit, predict
from llmpower.modelling.forms import Batched, Paper

LENGTHS = [8, 64, 512]


@pytest.fixture(scope="module")
def model() -> WorkloadModel:
    """The paper's form, below zero for long prompts with short answers."""
    τin, τout = (grid.reshape(-1) for grid in np.meshgrid(LENGTHS, LENGTHS))
    seconds = 1 + Paper().design(τin, τout) @ [0.01, 0.1, 1e-4]
    energy = 500 + Paper().design(τin, τout) @ [-1.0, 30.0, 0.04]
    columns = {"input_tokens": τin, "output_tokens": τout, "runtime_s": seconds, "gpu_energy_j": energy}
    (fitted,) = fit(pd.DataFrame({"model_name": "a", **columns}), form="paper")
    return fitted


@pytest.fixture(scope="module")
def batched() -> WorkloadModel:
    rows = []
    for τin in LENGTHS:
        for τout in LENGTHS:
            for size in (1, 2, 8):
                joules = size * float(Batched().design(τin, τout, size) @ [60, 0.2, 1e-5, 15, 0.5, 0.01])
                rows.append((size * τin, size * τout, size, joules / 300, joules))
    columns = ["input_tokens", "output_tokens", "batch_size", "runtime_s", "gpu_energy_j"]
    (fitted,) = fit(pd.DataFrame(rows, columns=columns).assign(model_name="a"), form="batched")
    return fitted


def test_inside_and_above_zero_there_is_nothing_to_say(model: WorkloadModel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predicted = predict(model, [64, 512], 512)
    np.testing.assert_allclose(predicted.energy_j.mean, model.energy.predict([64, 512], 512))
    np.testing.assert_allclose(predicted.energy_j.low, model.energy.interval([64, 512], 512)[0])
    np.testing.assert_allclose(predicted.runtime_s.high, model.runtime.interval([64, 512], 512)[1])
    assert predicted.energy_j.p95_ape == model.energy.heldout.p95_ape
    assert not predicted.energy_j.outside.any()


def test_outside_is_said_by_default_and_refused_or_passed_over_as_asked(model: WorkloadModel) -> None:
    with pytest.warns(PredictionWarning, match="1024 input and 512 output tokens: outside what was fitted"):
        predicted = predict(model, [64, 1024], 512)
    assert predicted.energy_j.outside.tolist() == [False, True]
    with pytest.raises(InputError, match=r"1024 input and 512 output tokens \(and 1 more\): outside"):
        predict(model, [64, 1024, 2048], 512, outside="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(model, 1024, 512, outside="allow")


def test_nothing_positive_is_refused_by_default_and_said_or_passed_over_as_asked(model: WorkloadModel) -> None:
    bad = replace(model, energy=replace(model.energy, coefficients=np.array([-10.0, 1.0, 0.0])))
    with pytest.raises(InputError, match=r"energy_j = -632 for 64 input and 8 output tokens: the form paper"):
        predict(bad, 64, 8)
    with pytest.warns(PredictionWarning, match="energy_j = -632"):
        assert float(predict(bad, 64, 8, nonpositive="warn").energy_j.mean) == -632
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(bad, 64, 8, nonpositive="allow")


def test_a_batch_shares_joules_and_waits_together(batched: WorkloadModel) -> None:
    alone, among = predict(batched, 64, 64), predict(batched, 64, 64, batch_size=8)
    assert float(among.energy_j.mean) < 0.5 * float(alone.energy_j.mean)
    assert float(among.runtime_s.mean) > float(alone.runtime_s.mean)
    with pytest.warns(PredictionWarning, match="1 to 8 at a time"):
        assert predict(batched, 64, 64, batch_size=16).energy_j.outside
    np.testing.assert_allclose(
        among.energy_j.mean, 60 / 8 + 0.2 * 64 + 1e-5 * 64**2 + 64 * (15 / 8 + 0.5) + 0.01 * 6112
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"outside": "perhaps"}, "outside = perhaps: unknown; use one of raise, warn, allow"),
        ({"batch_size": 0}, "batch_size = 0: must be a number ≥ 1"),
        ({"batch_size": 4}, "batch_size = 4: a was not fitted to batches"),
        ({"batch_size": [1, 4]}, r"batch_size = \[1, 4\]: is one number"),
        ({"confidence": 95}, "confidence = 95: is a fraction between 0 and 1; write 0.95 for 95 %"),
        ({"confidence": -0.95}, "confidence = -0.95: is a fraction"),
    ],
    ids=["policy", "no-batch", "unknown-batch", "batches", "percent", "negative"],
)
def test_refusals(model: WorkloadModel, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        predict(model, 64, 64, **options)  # type: ignore[arg-type]  # the point of the test


@pytest.mark.parametrize("tokens", [-1, np.nan, np.inf, 10**400, "many", None, iter([8])])
def test_a_length_that_cannot_be_is_refused(model: WorkloadModel, tokens: Any) -> None:
    with pytest.raises(InputError, match="input_tokens = "):
        predict(model, tokens, 64)


def test_lengths_of_different_shapes_are_refused(model: WorkloadModel) -> None:
    with pytest.raises(InputError, match=r"output_tokens = \(3,\): have another shape than input_tokens, \(2,\)"):
        predict(model, [8, 64], [8, 64, 512])


@pytest.mark.parametrize("kind", ["str", "uint16", "Int64", "int64[pyarrow]"])
def test_lengths_may_be_kept_as_tables_keep_them(model: WorkloadModel, kind: str) -> None:
    lengths = pd.Series([300, 500], index=[7, 9]).astype(kind)
    found = predict(model, lengths, lengths).energy_j
    np.testing.assert_array_equal(found.mean, predict(model, [300, 500], [300, 500]).energy_j.mean)


@pytest.mark.parametrize("batch_size", [0, -1, np.nan, np.inf])
def test_a_model_at_no_batch_size_is_refused(batched: WorkloadModel, batch_size: float) -> None:
    with pytest.raises(InputError, match=r"batch_size = .*must be a number ≥ 1"):
        batched.at_batch_size(batch_size)
