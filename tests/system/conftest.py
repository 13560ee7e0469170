"""Puts this folder's helper modules on the path, and says what to do about a tool that is not there.

These tests run real programs beside ours. Where one is missing they skip and say so; under ``make test-system``, which
sets LLMPOWER_SYSTEM_TESTS, a missing one is a failure.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs what is not in the Python environment."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="session")
def tools() -> None:
    """Prometheus, promtool and curl."""
    missing = [name for name in ("prometheus", "promtool", "curl") if shutil.which(name) is None]
    if missing:
        say = f"{', '.join(missing)} not installed; on Debian: apt-get install --no-install-recommends prometheus curl"
        (pytest.fail if os.environ.get("LLMPOWER_SYSTEM_TESTS") else pytest.skip)(say)
