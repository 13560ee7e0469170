"""``make memcheck`` runs every C test that it builds: one that is only built would be forgotten without a word."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[1] / "csrc" / "tests"


@pytest.mark.parametrize("target", ["asan", "tsan", "valgrind"])
def test_every_program_that_is_built_is_run(target: str) -> None:
    command = ["make", "--dry-run", "--always-make", "-C", str(DIRECTORY), target]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("\\\n", "")
    built = re.findall(r" -o bin/\w+/(test_\w+) ", said)
    # The first program of a line is run; what follows it are arguments.
    run = re.findall(r"^(?!.* -o ).*?bin/\w+/(test_\w+)", said, re.MULTILINE)
    assert built
    assert sorted(run) == sorted(built)
    if target != "valgrind":
        assert sorted(built) == sorted(file.stem for file in DIRECTORY.glob("test_*.c"))
