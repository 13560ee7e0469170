"""``llmpower predict``: figures with an interval, warnings outside the range, refusals where a form fails."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmpower.modelling import Fit, HeldOut, WorkloadModel, load_models, save_models

Run = Callable[..., subprocess.CompletedProcess[str]]

ENERGY = Fit(
    form="recompute",
    terms=("e0", "a", "b"),
    coefficients=np.array([4.0, 0.03, 0.0]),
    std_errors=np.array([0.1, 0.001, np.nan]),
    covariance=np.array([[0.01, 0, np.nan], [0, 1e-6, np.nan], [np.nan] * 3]),
    n_obs=81,
    r_squared=0.996,
    r_squared_centered=0.999,
    r_squared_uncentered=0.9992,
    f_statistic=6419.4,
    f_pvalue=2.98e-93,
    heldout=HeldOut(0.045, 0.032, 0.306, 0),
    input_range=(8, 2048),
    output_range=(8, 2048),
)
RUNTIME = replace(
    ENERGY,
    coefficients=np.array([0.03, 4e-5, 0.0]),
    std_errors=ENERGY.std_errors * 1e-3,
    covariance=ENERGY.covariance * 1e-6,
)
PAPER = replace(
    ENERGY,
    form="paper",
    terms=("input_tokens", "output_tokens", "input_tokens:output_tokens"),
    coefficients=np.array([-3.89, 31.5, 0.0427]),
)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.json"
    save_models(
        [
            WorkloadModel("llama", "1× card", False, ENERGY, RUNTIME, "gpu"),
            WorkloadModel("mistral", "", True, ENERGY, RUNTIME, "gpu"),
            WorkloadModel("published", "1× card", False, PAPER, RUNTIME, "gpu"),
            WorkloadModel("twice", "A", False, ENERGY, RUNTIME, "gpu"),
            WorkloadModel("twice", "B", False, PAPER, RUNTIME, "gpu"),
        ],
        path,
    )
    return path


def query(models: Path, model: str, input_tokens: int, output_tokens: int) -> list[object]:
    tokens = ["--input-tokens", input_tokens, "--output-tokens", output_tokens]
    return ["predict", "--models", models, "--model", model, *tokens]


def test_json_gives_figures_and_their_interval(run_cli: Run, models: Path) -> None:
    done = run_cli(*query(models, "llama", 128, 64), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    prediction = json.loads(done.stdout)
    (model,) = [model for model in load_models(models) if model.model_name == "llama"]
    contexts = 64 * 128 + 64 * 63 / 2
    assert prediction["energy_j"] == pytest.approx(4.0 * 64 + 0.03 * contexts)
    assert prediction["runtime_s"] == pytest.approx(0.03 * 64 + 4e-5 * contexts)
    half_width = 1.990 * np.hypot(64 * 0.1, contexts * 0.001)  # t at 0.975 with 79 degrees of freedom
    assert prediction["energy_high_j"] - prediction["energy_j"] == pytest.approx(half_width, rel=1e-3)
    assert prediction["energy_j"] - prediction["energy_low_j"] == pytest.approx(half_width, rel=1e-3)
    assert prediction["runtime_low_s"] == pytest.approx(model.runtime.interval(128, 64)[0])
    assert prediction["inside_fitted_range"] is True
    assert prediction["simulated"] is False
    assert prediction["boundary"] == "gpu"


def test_text_has_units_and_says_simulated(run_cli: Run, models: Path) -> None:
    lines = run_cli(*query(models, "mistral", 128, 64)).stdout.splitlines()
    assert lines[0] == "mistral: 128 input, 64 output tokens  SIMULATED"
    energy, runtime = (line.split() for line in lines[2:4])
    assert energy[:5] == ["energy", "[J]", "562.2", "538.3", "586.2"]
    assert (energy[5], energy[-1]) == ("4.5", "recompute")
    assert runtime[:3] == ["runtime", "[s]", "2.328"]
    assert lines[4].startswith("Energy covers gpu.")


def test_extrapolation_is_said_on_stderr(run_cli: Run, models: Path) -> None:
    done = run_cli(*query(models, "llama", 4096, 64), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["inside_fitted_range"] is False
    (line,) = done.stderr.splitlines()
    assert line == (
        "llmpower: warning: input_tokens, output_tokens = 4096 input and 64 output tokens: outside what was fitted"
        " (8 to 2048 input and 8 to 2048 output tokens); this is an extrapolation"
    )
    done = run_cli(*query(models, "llama", 4096, 64), "--outside", "raise")
    assert (done.returncode, done.stdout) == (2, "")
    assert "4096 input and 64 output tokens: outside what was fitted" in done.stderr


def test_one_system_of_several_is_named(run_cli: Run, models: Path) -> None:
    done = run_cli(*query(models, "twice", 128, 64), "--system", "A", "--json")
    assert json.loads(done.stdout)["system"] == "A"


@pytest.mark.parametrize(
    ("model", "input_tokens", "output_tokens", "complaint"),
    [
        ("falcon", 8, 8, "--model = falcon: is not in the file; it has: llama, mistral, published, twice"),
        (
            "published",
            2048,
            8,
            "energy_j = -7015 for 2048 input and 8 output tokens: the form paper predicts nothing positive there",
        ),
        ("twice", 8, 8, "--system = none given: twice was fitted on 'A', 'B'; name one of them with --system"),
        ("llama", -8, 8, "Invalid value for '--input-tokens'"),
    ],
)
def test_refusals_are_one_line_and_exit_2(
    run_cli: Run, models: Path, model: str, input_tokens: int, output_tokens: int, complaint: str
) -> None:
    done = run_cli(*query(models, model, input_tokens, output_tokens))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_damaged_file_is_refused_by_its_key(run_cli: Run, models: Path) -> None:
    document = json.loads(models.read_text())
    document["models"][0]["energy"]["coefficients"]["e0"] = "four"
    models.write_text(json.dumps(document))
    done = run_cli(*query(models, "llama", 8, 8))
    assert done.returncode == 2
    assert done.stderr == (
        'llmpower: error: models[0].energy.coefficients.e0 = "four": is not a finite number; fit again\n'
    )


def test_predicting_needs_neither_pandas_nor_statsmodels(models: Path) -> None:
    script = (
        "import sys\n"
        "from llmpower.modelling import load_models\n"
        f"model = load_models({str(models)!r})[0]\n"
        "model.energy.predict([8], [8]), model.energy.interval([8], [8])\n"
        "print({'pandas', 'statsmodels', 'torch'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "set()\n"


def test_what_the_interval_does_not_allow_for_is_said(run_cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    short, near = (replace(ENERGY, heldout=replace(ENERGY.heldout, bias=bias)) for bias in (-0.25, -0.01))
    save_models(
        [
            WorkloadModel("short", "", False, short, RUNTIME, "gpu"),
            WorkloadModel("near", "", False, near, RUNTIME, "gpu"),
        ],
        path,
    )
    text = run_cli(*query(path, "short", 128, 64)).stdout
    assert text.splitlines()[-1] == (
        "Held out, predictions add up to less than was measured, by 25.0 % of energy: more than FROM and TO allow for;"
        " fit with --match-total."
    )
    assert json.loads(run_cli(*query(path, "short", 128, 64), "--json").stdout)["energy_bias"] == -0.25
    assert "add up" not in run_cli(*query(path, "near", 128, 64)).stdout
