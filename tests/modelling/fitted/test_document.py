"""models.json: what is written comes back; what was not written by us is refused by its key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_places import changed, places
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import Alternative, Fit, HeldOut, WorkloadModel, dump_models, fit, load_models, save_models
from llmpower.modelling.fitted.document import OPTIONAL, OPTIONAL_HELDOUT
from llmpower.modelling.forms import FORMS, make_form
from llmpower.modelling.rows.moments import FitMoments, Moments

numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(min_value=0, allow_infinity=False)
maybe, maybe_amount = st.none() | numbers, st.none() | amounts
ranges = st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).map(lambda ends: (min(ends), max(ends)))
heldouts = st.builds(
    HeldOut,
    *(maybe_amount, maybe_amount, maybe_amount, st.none() | st.integers(0, 1000)),
    p95_ape=maybe_amount,
    bias=maybe,
)


def covariances(n_terms: int) -> st.SearchStrategy[NDArray[np.float64]]:
    """AAᵀ, of terms that differ in scale."""
    entry = st.integers(-9, 9).map(float)
    row = st.lists(entry, min_size=n_terms, max_size=n_terms)
    factor = st.lists(row, min_size=n_terms, max_size=n_terms).map(np.array)
    scale = st.lists(st.integers(-40, 40).map(lambda k: 10.0**k), min_size=n_terms, max_size=n_terms).map(np.array)
    return st.builds(lambda a, d: a @ a.T * np.outer(d, d), factor, scale)


def moments(n_terms: int) -> st.SearchStrategy[FitMoments]:
    row = st.lists(numbers, min_size=n_terms, max_size=n_terms).map(np.array)
    sums = st.builds(Moments, st.integers(0, 10**9), amounts, numbers, amounts, covariances(n_terms), row)
    return st.builds(FitMoments, sums, sums, sums)


@st.composite
def fits(draw: st.DrawFn) -> Fit:
    name = draw(st.sampled_from(sorted(FORMS)))
    terms = make_form(name, intercept=name == "paper" and draw(st.booleans())).terms
    n = len(terms)
    covariance = draw(covariances(n))
    unknown = np.flatnonzero(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    covariance[unknown] = covariance[:, unknown] = np.nan
    return Fit(
        form=name,
        terms=terms,
        coefficients=np.array(draw(st.lists(numbers, min_size=n, max_size=n))),
        std_errors=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        n_obs=draw(st.integers(0, 10**9)),
        r_squared=draw(maybe),
        r_squared_centered=draw(maybe),
        r_squared_uncentered=draw(maybe),
        f_statistic=draw(maybe),
        f_pvalue=draw(maybe),
        heldout=draw(heldouts),
        input_range=draw(ranges),
        output_range=draw(ranges),
        warnings=tuple(draw(st.lists(st.text(), max_size=2))),
        alternatives=tuple(
            draw(st.lists(st.builds(Alternative, st.sampled_from(sorted(FORMS)), heldouts), max_size=2))
        ),
        n_cells=draw(st.none() | st.integers(0, 10**9)),
        batch_range=draw(st.none() | ranges),
        extrapolation=draw(st.none() | heldouts),
        replicate_noise=draw(maybe_amount),
        estimator=draw(st.text()),
        choice=draw(st.text()),
        moments=draw(st.none() | moments(n)),
        nested=draw(st.none() | heldouts),
    )


models = st.builds(
    WorkloadModel, st.text(), st.text(), st.booleans(), fits(), fits(), st.none() | st.sampled_from(["gpu", "gpu+cpu"])
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("document") / "models.json"


# The models are costly to draw, and on a busy machine more so.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(written=st.lists(models, max_size=2, unique_by=lambda model: (model.model_name, model.system)))
def test_round_trip(path: Path, written: list[WorkloadModel]) -> None:
    save_models(written, path)
    assert load_models(path) == written


@pytest.fixture(scope="module")
def model() -> WorkloadModel:
    """Costs that grow less than the form recompute can say: its last term is held at zero and has no error."""
    τin, τout = (grid.reshape(-1) for grid in np.meshgrid([8, 64, 512], [8, 64, 512]))
    energy_j = make_form("recompute").design(τin, τout) @ [4.0, 0.03, -1e-6]
    tokens = {"input_tokens": τin, "output_tokens": τout}
    frame = pd.DataFrame({"model_name": "a", **tokens, "runtime_s": energy_j / 300, "gpu_energy_j": energy_j})
    (fitted,) = fit(frame.assign(system="X"), form="recompute")
    return fitted


def test_keys_are_those_that_others_rely_on(model: WorkloadModel) -> None:
    document = dump_models([model])
    assert document["schema"] == "llmpower.models/1"
    (written,) = document["models"]
    assert {"model_name", "system", "simulated", "energy", "runtime"} <= set(written)
    assert {
        *("form", "terms", "coefficients", "std_errors", "covariance", "n_obs", "r_squared", "r_squared_centered"),
        *("r_squared_uncentered", "f_statistic", "f_pvalue", "heldout", "input_range", "output_range", "warnings"),
    } <= set(written["energy"])
    assert {"mape", "median_ape", "worst_ape", "negative_predictions", "scheme"} <= set(written["energy"]["heldout"])
    assert list(written["energy"]["coefficients"]) == written["energy"]["terms"] == ["e0", "a", "b"]
    assert written["energy"]["coefficients"]["b"] == 0
    assert written["energy"]["std_errors"]["b"] is None
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_keys_beyond_the_schema_of_others_may_be_absent(tmp_path: Path, model: WorkloadModel) -> None:
    document = dump_models([model])
    del document["models"][0]["boundary"]
    for target in ("energy", "runtime"):
        written = document["models"][0][target]
        for key in (*OPTIONAL, "intervals"):
            del written[key]
        for key in OPTIONAL_HELDOUT:
            del written["heldout"][key]
    (loaded,) = read(document, tmp_path)
    assert loaded.boundary is None
    assert loaded.energy.alternatives == ()
    assert (loaded.energy.n_cells, loaded.energy.moments, loaded.energy.heldout.bias) == (None, None, None)
    assert loaded.energy.predict(8, 8) == model.energy.predict(8, 8)


def read(document: Any, directory: Path) -> list[WorkloadModel]:
    file = directory / "models.json"
    file.write_text(json.dumps(document))
    return load_models(file)


def test_a_count_that_no_array_holds_is_refused(path: Path, model: WorkloadModel) -> None:
    document = dump_models([model])
    document["models"][0]["energy"]["n_obs"] = 10**400
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"models\[0\]\.energy\.n_obs .*whole number"):
        load_models(path)


@given(data=st.data())
def test_whatever_is_changed_is_refused_or_still_a_document(
    path: Path, model: WorkloadModel, data: st.DataObject
) -> None:
    document = dump_models([model])
    *way, last = data.draw(st.sampled_from(places(document)))
    parent: Any = document
    for step in way:
        parent = parent[step]
    junk = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.just([])
        | st.just({})
        | st.just(10**400)
    )
    if data.draw(st.booleans()):
        parent[last] = data.draw(junk)
    else:
        del parent[last]
    path.write_text(json.dumps(document))
    try:
        loaded = load_models(path)
    except InputError:
        return
    json.dumps(dump_models(loaded), allow_nan=False)


@pytest.mark.parametrize(
    ("place", "value", "key"),
    [
        (("schema",), "llmpower.models/9", "schema"),
        (("models",), {}, "models"),
        (("models", 0, "model_name"), 7, "models[0].model_name"),
        (("models", 0, "simulated"), "no", "models[0].simulated"),
        (("models", 0, "energy"), None, "models[0].energy"),
        (("models", 0, "energy", "form"), "cubic", "models[0].energy.form"),
        (("models", 0, "energy", "terms"), ["a", "e0", "b"], "models[0].energy.terms"),
        (("models", 0, "energy", "coefficients", "e0"), None, "models[0].energy.coefficients.e0"),
        (("models", 0, "runtime", "coefficients"), {"e0": 1, "a": 2}, "models[0].runtime.coefficients.b"),
        (("models", 0, "energy", "covariance"), [[1]], "models[0].energy.covariance"),
        (("models", 0, "energy", "covariance", 1, 1), "x", "models[0].energy.covariance[1][1]"),
        (("models", 0, "energy", "covariance", 1, 1), -0.5, "models[0].energy.covariance[1][1]"),
        (("models", 0, "energy", "covariance", 0, 1), 9.0, "models[0].energy.covariance"),
        (("models", 0, "energy", "covariance", 0, 1), None, "models[0].energy.covariance"),
        (("models", 0, "energy", "std_errors", "e0"), -1.0, "models[0].energy.std_errors"),
        (("models", 0, "energy", "std_errors", "e0"), None, "models[0].energy.std_errors"),
        (("models", 0, "energy", "n_obs"), -1, "models[0].energy.n_obs"),
        (("models", 0, "energy", "n_obs"), True, "models[0].energy.n_obs"),
        (("models", 0, "energy", "r_squared"), float("nan"), "models[0].energy.r_squared"),
        (("models", 0, "energy", "heldout", "mape"), "5 %", "models[0].energy.heldout.mape"),
        (("models", 0, "energy", "heldout", "p95_ape"), -0.1, "models[0].energy.heldout.p95_ape"),
        (("models", 0, "energy", "input_range"), [9, 8], "models[0].energy.input_range"),
        (("models", 0, "energy", "n_cells"), 2.5, "models[0].energy.n_cells"),
        (("models", 0, "energy", "batch_range"), [1], "models[0].energy.batch_range"),
        (("models", 0, "energy", "extrapolation"), {}, "models[0].energy.extrapolation.mape"),
        (("models", 0, "energy", "moments", "raw", "w"), None, "models[0].energy.moments.raw.w"),
        (("models", 0, "energy", "moments", "raw", "w"), -1.0, "models[0].energy.moments.raw.w"),
        (("models", 0, "energy", "moments", "raw", "gram"), [], "models[0].energy.moments.raw.gram"),
        (("models", 0, "energy", "moments", "raw", "gram", 1, 1), -1.0, "models[0].energy.moments.raw.gram"),
        (("models", 0, "energy", "colour"), "red", "models[0].energy.colour"),
    ],
)
def test_refusals_name_the_key(
    tmp_path: Path, model: WorkloadModel, place: tuple[Any, ...], value: Any, key: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(changed(dump_models([model]), place, value), tmp_path)
    assert caught.value.field == key


def test_a_key_of_a_later_version_is_no_call_to_edit_the_file(tmp_path: Path, model: WorkloadModel) -> None:
    with pytest.raises(InputError, match=r"later = unknown: .*; upgrade llmpower if a newer one wrote it"):
        read(dump_models([model]) | {"later": 1}, tmp_path)


def test_a_symmetric_covariance_by_which_a_sum_has_a_negative_variance_is_refused(
    tmp_path: Path, model: WorkloadModel
) -> None:
    document = dump_models([model])
    rows = document["models"][0]["energy"]["covariance"]
    rows[0][1] = rows[1][0] = 2 * (rows[0][0] * rows[1][1]) ** 0.5
    with pytest.raises(InputError, match=r"models\[0\]\.energy\.covariance = .*positive semi-definite; fit again"):
        read(document, tmp_path)


def test_two_models_of_one_name_and_system_are_refused(tmp_path: Path, model: WorkloadModel) -> None:
    with pytest.raises(InputError, match=r"models\[1\].model_name = a: appears twice"):
        read(dump_models([model, model]), tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "models.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match="is not JSON"):
        load_models(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--models = .*: cannot be read"):
        load_models(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        load_models(tmp_path)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, model: WorkloadModel) -> None:
    file = tmp_path / "models.json"
    save_models([model], file)
    with pytest.raises(InputError, match=r"^models\[0\].energy.r_squared = nan: is not a number that a file can hold"):
        save_models([replace(model, energy=replace(model.energy, r_squared=float("nan")))], file)
    assert load_models(file) == [model]
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(InputError, match=r"-o = .*: cannot write there"):
        save_models([model], tmp_path / "no" / "models.json")
