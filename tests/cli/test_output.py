"""Where output goes that nobody can take: a full disk, a closed stream, a place that is taken by what is read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run_forked
from route_options import COLUMNS
from two_models import measurements

PREDICTION = ("predict", "--models", "{models}", "--model", "small", "--input-tokens", "64", "--output-tokens", "64")


def in_shell(route_files: Path, redirection: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "llmpower.cli.main", *arguments)
    command = " ".join(words).format(models=route_files / "models.json")
    return subprocess.run(["sh", "-c", f"{command} {redirection}"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [PREDICTION, (*PREDICTION, "--json"), ("--help",), ("service", "show")])
def test_a_full_disk_is_an_error_in_one_line(route_files: Path, arguments: tuple[str, ...]) -> None:
    done = in_shell(route_files, ">/dev/full", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("llmpower: error: standard output = No space left on device: ")


@pytest.mark.parametrize("arguments", [PREDICTION, (*PREDICTION, "--json"), ("--help",)])
def test_closed_streams_are_not_written_to(route_files: Path, arguments: tuple[str, ...]) -> None:
    done = in_shell(route_files, ">&-", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert in_shell(route_files, ">&- 2>&-", *arguments).returncode == 0


@pytest.mark.parametrize("encoding", ["latin-1", "iso8859-2", "utf-8"])
def test_signs_that_an_encoding_lacks_are_escaped(encoding: str, route_files: Path) -> None:
    (models, queries) = (route_files / name for name in ("models.json", "queries.csv"))
    route = ("route", "--models", models, "--workload", queries, *COLUMNS, "--zeta", "1")
    command = [sys.executable, "-m", "llmpower", *map(str, route)]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("ζ = 1" if encoding == "utf-8" else "\\u03b6 = 1") in done.stdout.decode(encoding)


def test_an_error_has_its_exit_code_where_its_stream_is_closed(route_files: Path) -> None:
    assert in_shell(route_files, "2>&-", *PREDICTION, "--batch-size", "4").returncode == 2


ROUTE = ("route", "--models", "models.json", "--workload", "queries.csv", "--accuracy", "accuracy.csv")
REPORT = ("report", "--models", "models.json", "--measurements", "trials*.csv")


@pytest.fixture
def files(route_files: Path, tmp_path: Path) -> Path:
    """Something of each kind that commands read, which may be lost."""
    for name in ("models.json", "queries.csv", "accuracy.csv"):
        shutil.copy(route_files / name, tmp_path)
    measurements(["small"]).to_csv(tmp_path / "trials.csv", index=False)
    (tmp_path / "link.csv").symlink_to("trials.csv")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("fit", "trials.csv", "-o", "trials.csv"), "-o = trials.csv: is read by this command"),
        (("fit", "tri*.csv", "-o", "trials.csv"), "-o = trials.csv: is read by this command"),
        (("fit", "trials.csv", "-o", "folder/../trials.csv"), "trials.csv: is read by this command"),
        (("fit", "link.csv", "-o", "trials.csv"), "-o = trials.csv: is read by this command"),
        (("fit", "trials.csv", "-o", "folder"), "-o = folder: is a directory, a device or a pipe"),
        (("fit", "trials.csv", "-o", "pipe"), "-o = pipe: is a directory, a device or a pipe"),
        (("fit", "trials.csv", "-o", "x" * 300), "x: cannot write there (File name too long)"),
        (("fit", "trials.csv", "-o", "/dev/stdout"), "-o = /dev/stdout: is a directory, a device or a pipe"),
        (("fit", "absent.csv", "-o", "absent/models.json"), "-o = absent/models.json: cannot write there"),
        ((*ROUTE, "-o", "queries.csv"), "-o = queries.csv: is read by this command"),
        ((*ROUTE, "--policy", "models.json"), "--policy = models.json: is read by this command"),
        ((*ROUTE, "--frontier", "accuracy.csv"), "--frontier = accuracy.csv: is read by this command"),
        ((*ROUTE, "-o", "p.csv", "--frontier", "./p.csv"), "--frontier = p.csv: is where -o is written"),
        ((*REPORT, "-o", "trials.csv"), "-o = trials.csv: is read by this command"),
        ((*REPORT, "-o", "models.json"), "-o = models.json: is read by this command"),
        (("export", "--store", "trials.csv", "-o", "trials.csv"), "-o = trials.csv: is read by this command"),
        (("export", "-o", "s3://bucket/trials.csv"), "-o = s3://bucket/trials.csv: is a URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_nothing_is_written_over_what_is_read_or_is_no_file(
    arguments: tuple[str, ...], complaint: str, files: Path
) -> None:
    before = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    done = run_forked(*arguments, cwd=files)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert complaint in line
    assert {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()} == before


def test_models_may_learn_in_place(files: Path) -> None:
    learnt = ("--update", "models.json", "-o", "models.json")
    assert run_forked("fit", "trials.csv", *learnt, cwd=files).returncode == 0
