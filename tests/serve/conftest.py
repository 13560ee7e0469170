"""Puts the system tests' programs on the path, and says what to do where the server's packages are missing.

``make test-serve`` installs them and sets LLMPOWER_SERVE_TESTS, under which a missing one is a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "system"), str(HERE.parent / "spans")]

from servers import Daemon  # noqa: E402 (it is on the path now)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs what is not in the developer's environment."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.serve)


@pytest.fixture(scope="session")
def serving() -> None:
    """What ``transformers serve`` needs."""
    missing = [name for name in ("fastapi", "uvicorn", "openai") if find_spec(name) is None]
    if missing:
        say = f"{', '.join(missing)} not installed; make test-serve installs and runs this"
        (pytest.fail if os.environ.get("LLMPOWER_SERVE_TESTS") else pytest.skip)(say)


@pytest.fixture
def daemon(socket_directory: Path) -> Iterator[Daemon]:
    daemon = Daemon("s", socket_directory, LLMPOWER_SIM_LOAD="square:100,300,0.7")
    yield daemon
    assert daemon.end() == 0, daemon.log
