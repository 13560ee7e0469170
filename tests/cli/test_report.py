"""``llmpower report`` as users run it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from llmpower.modelling import fit, save_models, screen

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measurements with a first call that is too expensive, models of the others, queries and accuracies."""
    path = tmp_path_factory.mktemp("report")
    rows = [
        {
            "model_name": name,
            "system": "1× card",
            "input_tokens": tokens_in,
            "output_tokens": tokens_out,
            "runtime_s": factor * (0.1 + 0.02 * tokens_out),
            "gpu_energy_j": factor * (20 + 0.1 * tokens_in + 5 * tokens_out),
        }
        for name, factor in (("small", 1.0), ("large", 3.0))
        for tokens_in in (0, 64, 256)
        for tokens_out in (8, 64, 256)
        for _ in range(2)
    ]
    table = pd.DataFrame(rows)
    table.loc[0, "gpu_energy_j"] *= 3
    table.rename(columns={"input_tokens": "prompt"}).to_csv(path / "measurements.csv", index=False)
    screening = screen(table)
    assert {finding.kind for finding in screening.findings} >= {"warm_up"}
    models = fit(screening.leave_out(table, ["warm_up"]), form="cached")
    save_models(models, path / "models.json", screening=screening.document(["warm_up"]))
    (path / "queries.csv").write_text("input_tokens,output_tokens,count\n8,16,30\n64,128,20\n200,200,5\n")
    (path / "timed.csv").write_text("at,input_tokens,output_tokens\n7200,8,16\n7300,64,128\n50000,200,200\n")
    (path / "tariff.csv").write_text("hour,eur_per_kwh,g_co2_per_kwh\n2,0.1,400\n13,0.3,100\n")
    (path / "accuracy.csv").write_text("model_name,accuracy\nsmall,0.5\nlarge,0.6\n")
    return path


@pytest.fixture(scope="module")
def run_report(run_cli: Run, directory: Path) -> Run:
    def run(*options: object) -> subprocess.CompletedProcess[str]:
        filled = [str(option).replace("{d}", str(directory)) for option in options]
        return run_cli("report", "--models", directory / "models.json", *filled)

    return run


def test_page_and_pictures(run_report: Run, tmp_path: Path) -> None:
    page, plots = tmp_path / "page.html", tmp_path / "deep" / "plots"
    done = run_report(
        *("--measurements", "{d}/measurements.csv", "--column", "input_tokens=prompt"),
        *("--workload", "{d}/queries.csv", "--accuracy", "{d}/accuracy.csv", "--share", "small=0.2:0.8"),
        *("--price-per-kwh", "0.19", "--plots", plots, "--title", "Our <cards>", "-o", page),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    text = page.read_text(encoding="utf-8")
    assert "<h1>Our &lt;cards&gt;</h1>" in text
    assert 'id="price" min="0" step="any" inputmode="decimal" value="0.19"' in text
    # What the fit left out is left out here, and said.
    assert "warm_up" in text
    assert ">left out</td>" in text
    assert "35 rows" in text
    names = {path.stem for path in plots.iterdir()}
    assert {"frontier", "map", "throughput", "energy-per-token", "predicted-energy", "residuals-runtime"} <= names
    for name in names:
        assert (plots / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (plots / f"{name}.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert f"{len(names)} figures, each as PNG and SVG" in done.stderr


def test_a_frontier_of_route_makes_a_slider(run_cli: Run, run_report: Run, directory: Path, tmp_path: Path) -> None:
    front = tmp_path / "front.csv"
    inputs = ("--workload", directory / "queries.csv", "--accuracy", directory / "accuracy.csv", "--bootstrap", "0")
    assert run_cli("route", "--models", directory / "models.json", *inputs, "--frontier", front).returncode == 0
    done = run_report("--frontier", front, "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'type="range"' in text
    # The findings of the fit are in models.json.
    assert "warm_up" in text


def test_a_tariff_makes_plans_of_money(run_cli: Run, run_report: Run, directory: Path, tmp_path: Path) -> None:
    inputs = ("--workload", "{d}/timed.csv", "--accuracy", "{d}/accuracy.csv", "--tariff", "{d}/tariff.csv")
    done = run_report(*inputs, "--workload-column", "timestamp=at", "-o", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="hours"' in text
    assert "less cost than the most accurate plan" in text
    front = tmp_path / "front.csv"
    filled = [option.replace("{d}", str(directory)) for option in inputs]
    made = run_cli(
        *("route", "--models", directory / "models.json", *filled, "--column", "timestamp=at"),
        *("--weigh", "carbon", "--frontier", front),
    )
    assert made.returncode == 0, made.stderr
    assert run_report("--frontier", front, "-o", tmp_path / "front.html").returncode == 0
    assert "less CO₂ than the most accurate plan" in (tmp_path / "front.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pue", "0.5"], "--pue = 0.5: is a number from 1 up"),
        (["--accuracy", "{d}/accuracy.csv"], "give --workload too"),
        (["--workload", "{d}/queries.csv"], "give --accuracy too"),
        (["--frontier", "{d}/queries.csv"], "rename the one that is meant"),
        (["--frontier", "{d}/queries.csv", "--only", "small"], "--only = small: the plans of --frontier"),
        (["--frontier", "{d}/queries.csv", "--tariff", "{d}/tariff.csv"], "the plans of --frontier"),
        (["--tariff", "{d}/tariff.csv"], "give --workload too"),
        (["--tariff-zone", "Europe/Berlin"], "says where hours of a --tariff are; give that too"),
        (
            ["--workload", "{d}/queries.csv", "--accuracy", "{d}/accuracy.csv", "--weigh", "money"],
            "--weigh = money: needs a --tariff with a column eur_per_kwh",
        ),
        (
            ["--workload", "{d}/queries.csv", "--accuracy", "{d}/accuracy.csv", "--tariff", "{d}/tariff.csv"],
            "--workload-column timestamp=HEADER",
        ),
        (["--measurements", "{d}/measurements.csv"], "column = input_tokens"),
        (["--measurements", "{d}/none.csv"], "/none.csv: no such file"),
        (["--measurements", "{d}/none.db"], "--measurements = "),
        (
            ["--workload", "{d}/accuracy.csv", "--accuracy", "{d}/accuracy.csv"],
            "name its header with --workload-column input_tokens=HEADER",
        ),
        (
            ["--workload", "{d}/queries.csv", "--accuracy", "{d}/accuracy.csv", "--workload-column", "input_tokens"],
            "--workload-column = input_tokens: write NAME=HEADER",
        ),
        (["--plots", "/dev/null/plots"], "--plots = /dev/null/plots: cannot be made"),
        (["-o", "{d}/none/page.html"], "/none/page.html: cannot write there"),
        (["--where", "batch_size == 1"], "--where = batch_size == 1: says how --measurements is taken"),
        (["--workload-column", "input_tokens=x"], "--workload-column = input_tokens=x: says how --workload is taken"),
        (["--max-runtime", "20"], "--max-runtime = 20.0: says how --workload is taken"),
    ],
    ids=[
        "pue",
        "no workload",
        "no accuracy",
        "no frontier",
        "two fronts",
        "tariff beside a front",
        "tariff of nothing",
        "zone",
        "no rates",
        "no times",
        "column",
        "no file",
        "no store",
        "workload column",
        "pair",
        "plots",
        "page",
        "where of nothing",
        "workload column of nothing",
        "limit of nothing",
    ],
)
def test_bad_input(run_report: Run, options: list[str], message: str) -> None:
    done = run_report(*options)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert message in line
