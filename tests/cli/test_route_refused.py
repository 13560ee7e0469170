"""``llmpower route`` as a process: what it refuses, in one line and with exit code 2, and what is not written then."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--accuracy = none given: a trade-off needs accuracies; give a file, or --zeta 1"),
        (["--zeta", "0.5"], "--accuracy = none given: ζ = 0.5 weighs accuracy; give a file, or --zeta 1"),
        (["--zeta", "1", "--knee"], "--knee = with --zeta: each chooses ζ by itself; leave one out"),
        (["--accuracy", "{d}/accuracy.csv", "--energy-budget", "1"], "--energy-budget = 1 J: plans under these limits"),
        (["--accuracy", "{d}/accuracy.csv", "--accuracy-floor", "0.9"], "--accuracy-floor = 0.9: plans under these"),
        (["--zeta", "1.5"], "--zeta = 1.5: is from 0"),
        (["--zeta", "much"], "Invalid value for '--zeta'"),
        (["--zeta", "1", "--share", "small=0.5", "--share", "large=0.4"], "--share = a sum of 0.9: every model has"),
        (["--zeta", "1", "--share", "small=0.1:0.2", "--share", "large=0.5"], "--share = a sum of at most 0.7"),
        (["--zeta", "1", "--share", "small"], "--share = small: write MODEL=F"),
        (["--zeta", "1", "--share", "huge=0.5"], "--share = huge: is not among the models"),
        (["--zeta", "1", "--only", "huge"], "--only = huge: no fitted model has this name; there are: large, small"),
        (["--accuracy", "{d}/more.csv"], "--accuracy = huge: has an accuracy but no fit"),
        (["--accuracy", "{d}/none.csv"], "--accuracy = "),
        (["--zeta", "1", "--shares-from-accuracy"], "--shares-from-accuracy = no file: "),
        (["--accuracy", "{d}/more.csv", "--shares-from-accuracy"], "needs an --accuracy file with a column share"),
        (
            ["--accuracy", "{d}/accuracy.csv", "--shares-from-accuracy", "--share", "small=0.5"],
            "--share = small=0.5: shares come from the accuracy file",
        ),
        (["--zeta", "1", "--idle-watts", "50"], "--horizon = missing: "),
        (["--zeta", "1", "--horizon", "50"], "--horizon = 50.0: is for how long --idle-watts are charged"),
        (["--zeta", "1", "--idle-watts", "x", "--horizon", "5"], "--idle-watts = x: write W or MODEL=W"),
        (["--zeta", "1", "--idle-watts", "5", "--horizon", "5"], "num_gpus = missing: large has none"),
        (["--zeta", "1", "--allow-unload"], "--allow-unload = no idle energy"),
        (["--zeta", "1", "--max-runtime", "-1"], "--max-runtime = -1.0: is the longest that a query may take"),
        (["--zeta", "1", "--max-runtime", "nan"], "--max-runtime = nan: is the longest that a query may take"),
        (["--zeta", "1", "--max-runtime", "1"], "--max-runtime = 1 s: 1 of 4 queries take longer on every model"),
        (["--zeta", "1", "--gpu-seconds", "large"], "--gpu-seconds = large: write MODEL=S"),
        (["--zeta", "1", "--gpu-seconds", "large=9"], "num_gpus = missing: large has none"),
        (
            ["--accuracy", "{d}/accuracy.csv", "--gpu-seconds", "small=9", "--policy", "{d}/p.json"],
            "--policy = with --gpu",
        ),
        (
            ["--accuracy", "{d}/accuracy.csv", "--zeta", "1", "--share", "small=1", "--gpu-seconds", "small=1"],
            "--gpu-seconds = small=1: the queries cannot be served within that; small=",
        ),
        (["--zeta", "1", "--tariff", "{d}/tariff.csv"], "--column timestamp=HEADER"),
        (["--zeta", "1", "--tariff-zone", "Europe/Berlin"], "--tariff-zone = Europe/Berlin: says where hours of a"),
        (
            ["--accuracy", "{d}/accuracy.csv", "--cost-budget", "1"],
            "--cost-budget = 1.0: needs a --tariff with a column",
        ),
        (["--zeta", "1", "--max-extrapolation", "2"], "--max-extrapolation = 2.0: is a fraction"),
        (["--zeta", "1", "--bootstrap", "-1"], "Invalid value for '--bootstrap'"),
        (["--accuracy", "{d}/accuracy.csv", "--plot", "{d}/plan.pdf"], "plan.pdf: cannot tell the format"),
        (["--accuracy", "{d}/accuracy.csv", "--plot", "{d}/none/p.svg"], "/none/p.svg: cannot write there"),
        (["--zeta", "1", "--plot", "{d}/plan.svg"], "a frontier is of energy and accuracy; give --accuracy"),
        (["--zeta", "1", "--cells"], "--cells = without -o"),
        (["--zeta", "1", "-o", "{d}/plan.txt"], "plan.txt: cannot tell the format"),
        (["--accuracy", "{d}/accuracy.csv", "--frontier", "{d}/none/f.csv"], "/none/f.csv: cannot write there"),
        (["--zeta", "1", "--frontier", "{d}/f.csv"], "--accuracy = none given: a trade-off needs accuracies"),
        (["--zeta", "1", "--workload", "{d}/none.csv"], "--workload = "),
        (["--zeta", "1", "--column", "count=n"], "--column = count=n: "),
        (["--zeta", "1", "--accuracy-weighting", "words"], "Invalid value for '--accuracy-weighting'"),
    ],
)
def test_refusals_are_one_line_and_exit_2(run_route: Run, arguments: list[str], complaint: str) -> None:
    done = run_route(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("llmpower: error: ")
    assert complaint in line


@pytest.mark.parametrize(
    ("models", "workload", "complaint"),
    [
        ("models.json", "negative.csv", "input_tokens = -4: row 2 needs a whole number from 0"),
        ("models.json", "empty.csv", "workload = 0 rows: "),
        ("none.json", "empty.csv", "none.json: cannot be read"),
    ],
)
def test_files_are_refused_in_one_line(
    run_cli: Run, route_files: Path, models: str, workload: str, complaint: str
) -> None:
    done = run_cli("route", "--models", route_files / models, "--workload", route_files / workload, "--zeta", "1")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert complaint in line


def test_a_form_that_predicts_nothing_positive_is_refused(run_route: Run, tmp_path: Path) -> None:
    out = tmp_path / "plan.csv"
    done = run_route("--zeta", "1", "-o", str(out), models="paper.json")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "predicts nothing positive for 1 of 3 cells (50 % of the queries), lowest for 512 + 8 tokens" in line
    assert not out.exists()


@pytest.mark.parametrize("option", ["-o", "--frontier"])
def test_a_name_without_a_format_is_refused_before_anything_is_written(
    run_route: Run, tmp_path: Path, option: str
) -> None:
    folder = tmp_path / "outputs"
    folder.mkdir()
    files = {"-o": folder / "plan.csv", "--frontier": folder / "frontier.csv"} | {option: folder / "plan.txt"}
    done = run_route("--accuracy", "{d}/accuracy.csv", *(str(part) for pair in files.items() for part in pair))
    assert done.returncode == 2
    assert f"{option} = " in done.stderr
    assert list(folder.iterdir()) == []


def test_a_wrong_option_is_said_before_all_rows_are_read(route_files: Path, tmp_path: Path) -> None:
    # Nobody has written to this pipe yet, so its rows cannot be read.
    pipe = tmp_path / "queries.csv"
    os.mkfifo(pipe)
    inputs = ("--models", route_files / "models.json", "--workload", pipe, "--zeta", "1", "--knee")
    command = [sys.executable, "-m", "llmpower.cli.main", "route", *map(str, inputs)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as route:
        assert route.stderr is not None
        try:
            assert route.stderr.readline().startswith("llmpower: error: --knee = with --zeta")
        finally:
            pipe.write_text("input_tokens,output_tokens\n")
        assert route.wait() == 2
