"""The command line as users meet it: a process of its own, with an exit code and two streams."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forked import run_forked
from pages import ROOT
from route_options import COLUMNS
from two_models import measurements, two_models

from llmpower.modelling import fit, save_models

Run = Callable[..., subprocess.CompletedProcess[str]]
QUERIES = """ContextTokens,when,GeneratedTokens
512,first,8
8,second,500
512,third,8
100,fourth,64
"""


@pytest.fixture(scope="session")
def run_cli() -> Run:
    """Run ``llmpower`` with the given arguments and return what became of it."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_forked(*arguments, cwd=ROOT)

    return run


@pytest.fixture(scope="session")
def route_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models, queries and accuracies, right ones and wrong ones."""
    directory = tmp_path_factory.mktemp("route")
    models = two_models()
    save_models(models, directory / "models.json")
    save_models([replace(model, simulated=True) for model in models], directory / "simulated.json")
    paper = fit(measurements(["small"]), form="paper")[0]
    short = replace(paper.energy, coefficients=[-3.9, 31.5, 0.04])
    save_models([replace(paper, energy=short)], directory / "paper.json")
    (directory / "queries.csv").write_text(QUERIES)
    (directory / "accuracy.csv").write_text("model_name,accuracy,num_gpus,share\nsmall,0.5,1,0.25\nlarge,0.7,4,0.75\n")
    (directory / "worse.csv").write_text("model_name,accuracy,num_gpus,share\nsmall,0.5,1,0.5\nlarge,0.4,4,0.5\n")
    (directory / "more.csv").write_text("model_name,accuracy\nsmall,0.5\nlarge,0.7\nhuge,0.9\n")
    times = ("2024-06-01T03:10", "2024-06-01T12:10", "2024-06-01T12:50", "2024-06-02T03:20")
    timed = [row.split(",") for row in QUERIES.splitlines()[1:]]
    rows = "".join(f"{τin},{time},{τout}\n" for (τin, _, τout), time in zip(timed, times, strict=True))
    (directory / "timed.csv").write_text(f"ContextTokens,at,GeneratedTokens\n{rows}")
    (directory / "tariff.csv").write_text("hour,eur_per_kwh,g_co2_per_kwh\n3,0.1,400\n12,0.3,100\n")
    (directory / "negative.csv").write_text("input_tokens,output_tokens\n1,2\n-4,2\n")
    (directory / "empty.csv").write_text("input_tokens,output_tokens\n")
    return directory


@pytest.fixture
def run_route(run_cli: Run, route_files: Path) -> Run:
    """Run it on the queries; ``{d}`` in an argument is the directory of files."""

    def run(*arguments: str, models: str = "models.json") -> subprocess.CompletedProcess[str]:
        inputs = ("--models", route_files / models, "--workload", route_files / "queries.csv", *COLUMNS)
        return run_cli("route", *inputs, *(argument.format(d=route_files) for argument in arguments))

    return run
