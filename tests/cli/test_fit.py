"""``llmpower fit`` as a process: streams, exit codes, files."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from llmpower.cli.fit import BOUNDARIES, FORMS
from llmpower.cli.main import cli
from llmpower.modelling import BOUNDARIES as KNOWN_BOUNDARIES
from llmpower.modelling import FORM_NAMES, load_models
from llmpower.modelling.forms import Cached
from llmpower.store import Store
from llmpower.types import Measurement

Run = Callable[..., subprocess.CompletedProcess[str]]
LENGTHS = (8, 32, 128, 512)


def energy_j(τin: int, τout: int) -> float:
    """What a made-up server with a KV cache takes, in joules."""
    return float(Cached().design(τin, τout) @ [60.0, 0.2, 1e-5, 15.0, 0.01])


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    path = tmp_path / "grid.csv"
    noise = iter(np.random.default_rng(3).lognormal(sigma=0.02, size=16))
    rows = [
        (name, τin, τout, joules / 300, joules)
        for name in ("small", "large")
        for τin in LENGTHS
        for τout in LENGTHS
        for joules in [energy_j(τin, τout) * (next(noise) if name == "small" else 5)]
    ]
    header = ["model_name", "input_tokens", "output_tokens", "runtime_s", "gpu_energy_j"]
    pd.DataFrame(rows, columns=header).to_csv(path, index=False)
    return path


def test_choices_are_those_of_the_library() -> None:
    assert ("auto", *FORM_NAMES) == FORMS
    assert BOUNDARIES == KNOWN_BOUNDARIES


def test_table_says_what_was_fitted_and_why(run_cli: Run, grid: Path) -> None:
    done = run_cli("fit", grid)
    assert (done.returncode, done.stderr) == (0, "")
    header, *rows = done.stdout.splitlines()
    fitted, errors = ["n", "R²", "F", "p"], ["MAPE [%]", "NESTED [%]", "MEDIAN [%]", "WORST [%]", "≤0"]
    names = ["MODEL", "SYSTEM", "TARGET", "FORM", *fitted, *errors]
    assert re.split(" {2,}", header) == names
    assert [row.split()[:5] for row in rows[:4]] == [
        [name, "–", target, unit, "cached"]
        for name in ("large", "small")
        for target, unit in (("energy", "[J]"), ("runtime", "[s]"))
    ]
    assert "small  energy [J] (gpu) = p0 + p1·τin" in done.stdout
    assert "chosen by held-out error: cached " in done.stdout
    assert "paper " in done.stdout
    assert "SIMULATED" not in done.stdout


def test_a_model_on_two_systems_is_named_by_both(run_cli: Run, grid: Path) -> None:
    """In warnings and above coefficients, as in a plan."""
    rows = pd.read_csv(grid)
    on = {"large": ("1× A100", "measured"), "small": ("1× H100", "modelled")}
    rows["system"], rows["quality"] = zip(*rows["model_name"].map(on), strict=True)
    rows.assign(model_name="llama").to_csv(grid, index=False)
    done = run_cli("fit", grid, "--form", "cached")
    assert done.returncode == 0
    assert "warning: llama@1× H100: energy: 16 of 16 energies saw fewer than two ticks" in done.stderr
    assert "llama@1× A100: " not in done.stderr
    for system in ("1× A100", "1× H100"):
        assert f"llama@{system}  runtime [s] = p0" in done.stdout


def test_json_is_the_document_that_is_written(run_cli: Run, grid: Path, tmp_path: Path) -> None:
    out = tmp_path / "models.json"
    done = run_cli("fit", grid, "--form", "recompute", "--json", "-o", out)
    assert done.returncode == 0
    assert json.loads(done.stdout) == json.loads(out.read_text())
    assert [model.energy.form for model in load_models(out)] == ["recompute", "recompute"]


def test_options_reach_the_fit(grid: Path) -> None:
    arguments = ["fit", str(grid), "--where", "model_name == 'small'", "--form", "paper", "--intercept", "--json"]
    (model,) = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout)["models"]
    assert model["model_name"] == "small"
    assert model["energy"]["terms"][0] == "intercept"
    arguments = [
        "fit",
        str(grid),
        "--column",
        "energy_j=gpu_energy_j",
        "--group-by",
        "model_name, output_tokens",
        "--json",
    ]
    result = CliRunner().invoke(cli, arguments)
    assert "output_tokens = 8: every row of large [output_tokens=8] has this" in str(result.exception)


def test_unmeasured_energies_are_counted_on_stderr(run_cli: Run, grid: Path) -> None:
    frame = pd.read_csv(grid)
    frame.loc[[1, 2], "gpu_energy_j"] = np.nan
    frame.to_csv(grid, index=False)
    done = run_cli("fit", grid, "--json")
    assert done.returncode == 0
    assert "llmpower: warning: small: 2 of 16 rows left out: energy not measured" in done.stderr.splitlines()
    assert [model["energy"]["n_obs"] for model in json.loads(done.stdout)["models"]] == [16, 14]


def test_a_daemons_store_is_a_source(
    run_cli: Run, tmp_path: Path, make_measurement: Callable[..., Measurement]
) -> None:
    cells = [(τin, τout) for τin in LENGTHS for τout in LENGTHS]
    store = Store(tmp_path / "spans.db")
    store.append(
        [
            make_measurement(
                number,
                input_tokens=τin,
                output_tokens=τout,
                gpu_energy_j=energy_j(τin, τout),
                end_ns=number * 60_000_000_000 + int(energy_j(τin, τout) * 3e6),
            )
            for number, (τin, τout) in enumerate(cells)
        ]
    )
    store.close()
    done = run_cli("fit", tmp_path / "spans.db")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("SIMULATED: ")
    assert "1× card SIMULATED" in done.stdout
    assert "cached  16" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["none.csv"], "llmpower: error: SOURCE = none.csv: no such file; check the path"),
        (["{grid}", "--form", "recompute", "--intercept"], "--intercept = recompute: only the form paper"),
        (["{grid}", "--where", "tokens > 3"], "--where = tokens > 3: tokens is not a column here"),
        (["{grid}", "--where", "output_tokens == 8"], "output_tokens = 8: every row of large has this"),
        (["{grid}", "--boundary", "cpu"], "column = cpu_energy_j: is missing"),
        (["{grid}", "--group-by", "host"], "--group-by = host: must contain model_name"),
        (["{grid}", "-o", "{grid}/models.json"], "/models.json: cannot write there"),
        (["{grid}", "--form", "cubic"], "Invalid value for '--form'"),
        ([], "Missing argument 'SOURCE…'"),
    ],
)
def test_refusals_are_one_line_and_exit_2(run_cli: Run, grid: Path, arguments: list[str], complaint: str) -> None:
    done = run_cli("fit", *(argument.format(grid=grid) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_row_that_cannot_be_true_is_named(run_cli: Run, grid: Path) -> None:
    frame = pd.read_csv(grid)
    frame.loc[4, "gpu_energy_j"] = -3.5
    frame.to_csv(grid, index=False)
    done = run_cli("fit", grid)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"llmpower: error: gpu_energy_j = -3.5: row 5 of {grid}: an energy is a number of joules > 0"
    )


@pytest.fixture
def faulty(grid: Path) -> Path:
    rows = pd.read_csv(grid)
    rows.loc[3, "gpu_energy_j"] *= -1
    rows.loc[5, "gpu_energy_j"] *= 1000
    rows.to_csv(grid, index=False)
    return grid


def test_findings_are_shown_and_left_out_on_request(run_cli: Run, faulty: Path, tmp_path: Path) -> None:
    stopped = run_cli("fit", faulty, "--form", "cached")
    assert stopped.returncode == 2
    assert "leave it out by --where or --leave-out" in stopped.stderr
    out = tmp_path / "models.json"
    done = run_cli("fit", faulty, "--form=cached", "--leave-out=negative_energy,impossible_unit", "-o", out)
    assert done.returncode == 0, done.stderr
    assert "Screening of 32 rows: negative_energy 1, impossible_unit 1. Left out of the fit: 2 rows." in done.stdout
    assert "Screening of 32 rows" in done.stderr
    found = json.loads(out.read_text())["screening"]
    assert [(f["kind"], f["model_name"], f["n_rows"], f["left_out"]) for f in found["findings"]] == [
        ("negative_energy", "small", 1, True),
        ("impossible_unit", "small", 1, True),
    ]
    assert sum(model.energy.n_obs for model in load_models(out)) == 30


def test_findings_are_in_json_and_can_be_refused(run_cli: Run, faulty: Path) -> None:
    options = ("--form=cached", "--json", "--where=gpu_energy_j > 0")
    done = run_cli("fit", faulty, *options)
    assert done.returncode == 0, done.stderr
    (finding,) = json.loads(done.stdout)["screening"]["findings"]
    assert (finding["kind"], finding["place"], finding["left_out"]) == ("impossible_unit", "row 6", False)
    refused = run_cli("fit", faulty, *options, "--refuse=all")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        "llmpower: error: --refuse = impossible_unit: 1 of 15 rows of small, such as row 6"
    )


def test_clean_rows_are_said_to_be_clean(run_cli: Run, grid: Path) -> None:
    done = run_cli("fit", grid, "--form=cached", "--tdp=400")
    assert "Screening of 32 rows found nothing." in done.stdout
    assert "Screening" not in done.stderr
    assert "overlap, unsettled (there is no column started_at" in done.stdout


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(cli, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_what_the_energy_covers_is_always_said(grid: Path) -> None:
    assert "\nEnergy covers: gpu.\n" in invoke("fit", grid, "--form", "cached")
    frame = pd.read_csv(grid)
    frame["cpu_energy_j"] = frame["gpu_energy_j"].where(frame["model_name"] == "small")
    frame.to_csv(grid, index=False)
    shown = invoke("fit", grid, "--form", "cached", "--boundary", "gpu+cpu")
    assert "Energy covers DIFFERENT things, which are not to be compared: gpu of large; gpu+cpu of small." in shown


def test_analysis_of_variance_pools_the_models(grid: Path) -> None:
    shown = invoke("fit", grid, "--form", "cached", "--anova").splitlines()
    assert "Analysis of variance of 32 rows, type II, token counts as categories" in shown
    assert [line.split()[:2] for line in shown[-8:]] == [
        [target, effect]
        for target in ("energy", "runtime")
        for effect in ("input_tokens", "output_tokens", "input_tokens:output_tokens", "residual")
    ]


def test_report_leaves_a_page_and_a_picture_of_each_fit(grid: Path, tmp_path: Path) -> None:
    invoke("fit", grid, "--form", "cached", "--report", tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "report.html",
        *(f"residuals-{name}-{target}.svg" for name in ("large", "small") for target in ("energy", "runtime")),
    ]


def test_a_report_that_cannot_be_written_comes_before_anything_else_is(grid: Path, tmp_path: Path) -> None:
    arguments = ["fit", grid, "--form", "cached", "--report", grid, "-o", tmp_path / "models.json"]
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert "--report = " in str(result.exception)
    assert result.stdout == ""
    assert not (tmp_path / "models.json").exists()


def test_what_an_update_leaves_as_it_was_is_said_to_be_of_the_rows_before(grid: Path, tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    assert "before the update" not in invoke("fit", grid, "-o", models)
    learnt = invoke("fit", grid, "--update", models)
    assert learnt.count("chosen by held-out error in the rows before the update: cached ") == 4
    assert learnt.count("noise of a trial: unknown, no cell was repeated in the rows before the update") == 4


def test_models_learn_from_further_rows(grid: Path, tmp_path: Path) -> None:
    models = tmp_path / "models.json"
    invoke("fit", grid, "--form", "cached", "-o", models)
    frame = pd.read_csv(grid)
    further = tmp_path / "further.csv"
    frame[frame["model_name"] == "small"].assign(gpu_energy_j=lambda rows: rows["gpu_energy_j"] * 1.1).to_csv(
        further, index=False
    )
    invoke("fit", further, "--update", models)
    assert [(model.model_name, model.energy.n_obs) for model in load_models(models)] == [("large", 16), ("small", 32)]
    for option, value in (("--form", "paper"), ("--match-total", None)):
        given = [option] if value is None else [option, value]
        refused = CliRunner().invoke(cli, ["fit", str(further), "--update", str(models), *given])
        said = f"{option} = {value or True}: models that learn keep what they were fitted with"
        assert said in str(refused.exception)


def test_predictions_add_up_where_that_is_asked_for(grid: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(grid).loc[lambda rows: rows["model_name"] == "small"]
    varied = tmp_path / "varied.csv"
    factors = np.random.default_rng(1).lognormal(0, 0.5, len(frame))
    frame.assign(gpu_energy_j=frame["gpu_energy_j"] * factors).to_csv(varied, index=False)
    models = tmp_path / "models.json"
    invoke("fit", varied, "--form", "cached", "-o", models)
    (model,) = load_models(models)
    assert any("less than was measured" in warning for warning in model.energy.warnings)
    assert "scaled to the total" in invoke("fit", varied, "--form", "cached", "--match-total", "-o", models)
    (model,) = load_models(models)
    predicted = model.energy.predict(frame["input_tokens"], frame["output_tokens"])
    assert predicted.sum() == pytest.approx((frame["gpu_energy_j"] * factors).sum(), rel=1e-9)
    refused = CliRunner().invoke(cli, ["fit", str(varied), "--match-total", "--robust"])
    assert "--match-total = given: outliers count fully in a total" in str(refused.exception)


@pytest.mark.parametrize("option", [("--anova",), ("--robust",), ("--report", "pages"), ("--update", "models.json")])
def test_what_needs_all_rows_says_what_to_give_instead_of_a_data_set(option: tuple[str, ...], tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["fit", str(tmp_path), *option])
    assert f"{option[0]} = " in str(result.exception)
    assert "give some of the files (DIR/host=…/*/*.parquet)" in str(result.exception)
