"""Where output goes that nobody can take: a full disk, a stream that the caller has closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


def test_an_error_has_its_exit_code_where_its_stream_is_closed(route_files: Path) -> None:
    assert in_shell(route_files, "2>&-", *PREDICTION, "--batch-size", "4").returncode == 2
