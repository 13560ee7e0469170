"""Arguments of programs: what may be meant is taken, what may not is refused by name, value and a way out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grids import measured

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel, fit, load_measurements, load_models, predict, save_models, screen, update
from llmpower.modelling.rows.where import select_rows


@pytest.fixture(scope="module")
def model() -> WorkloadModel:
    (model,) = fit(measured(noise=0.02), form="cached")
    return model


def test_one_model_may_be_given_as_it_is(model: WorkloadModel, tmp_path: Path) -> None:
    save_models(model, tmp_path / "models.json")
    assert load_models(tmp_path / "models.json") == [model]
    assert update(model, measured()) == update([model], measured())


def test_texts_of_numbers_are_numbers(model: WorkloadModel) -> None:
    energy = model.energy
    np.testing.assert_array_equal(energy.interval(64, 64, "0.9"), energy.interval(64, 64, 0.9))  # type: ignore[arg-type]
    assert model.at_batch_size("8") == model.at_batch_size(8)  # type: ignore[arg-type]
    rows = measured(system="card")
    rows.loc[0, "gpu_energy_j"] = 800 * rows.loc[0, "runtime_s"]
    found = [(finding.kind, finding.n_rows) for finding in screen(rows, tdp_w=700).findings]
    assert ("above_tdp", 1) in found
    assert [(finding.kind, finding.n_rows) for finding in screen(rows, tdp_w="700").findings] == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda model: predict([model], 8, 8), "model = list: is not a model; give one of those that fit"),
        (lambda model: predict(model, 8, 8, confidence="most"), "confidence = most: is a fraction"),
        (lambda model: model.at_batch_size([8, 8]), r"batch_size = \[8, 8\]: must be a number"),
        (lambda _: update("models.json", measured()), "models = models.json: is not a model; give what fit returns"),
        (lambda model: save_models([model, None], "models.json"), "models = NoneType: is not a model"),
        (lambda _: screen(measured(), tdp_w="hot"), "--tdp = hot: is not a design power"),
        (lambda _: select_rows(measured(), ["batch_size == 1"]), "--where = list: is not a condition"),
        (lambda _: load_measurements(__file__, columns=["input_tokens=In"]), "columns = list: are not headers by our"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    model: WorkloadModel, call: Callable[[WorkloadModel], Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=f"^{complaint}"):
        call(model)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"coefficients": np.array([1, np.inf, 0, 1, 1])}, r"models\[0\].energy.coefficients.p1 = inf"),
        ({"coefficients": np.array([1, np.nan, 0, 1, 1])}, r"models\[0\].energy.coefficients.p1 = nan"),
        ({"covariance": np.full((5, 5), np.inf)}, r"models\[0\].energy.covariance\[0\]\[0\] = inf"),
        ({"f_statistic": -np.inf}, r"models\[0\].energy.f_statistic = -inf"),
    ],
)
def test_numbers_that_no_file_holds_are_not_written(
    model: WorkloadModel, tmp_path: Path, change: dict[str, Any], key: str
) -> None:
    with pytest.raises(InputError, match=f"^{key}: is not a number that a file can hold; fit again"):
        save_models([replace(model, energy=replace(model.energy, **change))], tmp_path / "models.json")
    assert not list(tmp_path.iterdir())
