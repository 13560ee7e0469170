"""The command line as users meet it: a process of its own, with an exit code and two streams."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from forked import run_forked
from pages import ROOT


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``llmpower`` with the given arguments and return what became of it."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        return run_forked(*arguments, cwd=ROOT)

    return run
