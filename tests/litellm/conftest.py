"""Puts the helpers on the path, and says what to do where LiteLLM's proxy or the servers' packages are missing.

``make test-litellm`` installs them and sets LLMPOWER_LITELLM to the proxy's environment, under which a missing one is a
failure.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "system"), str(HERE.parent / "spans")]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder needs what is not in the developer's environment."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.serve)


@pytest.fixture(scope="session")
def litellm_environment() -> Path:
    """The virtual environment with the proxy; the servers' packages are here."""
    environment = os.environ.get("LLMPOWER_LITELLM")
    if environment is None:
        pytest.skip("LiteLLM's proxy has an environment of its own; make test-litellm makes it and runs this")
    missing = [name for name in ("fastapi", "uvicorn", "openai") if find_spec(name) is None]
    assert not missing, f"{', '.join(missing)} not installed; make test-litellm does so"
    return Path(environment).resolve()
