from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmpower.spans import SpanClient

# This folder's helper module: tests are collected without packages.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def client(receiver: Any) -> Iterator[SpanClient]:
    """A client of the receiver that tries again at once."""
    client = SpanClient(receiver.path, retry_after_s=0)
    yield client
    client.close()


@pytest.fixture
def nobody(socket_directory: Path) -> SpanClient:
    """A client whose daemon is not there."""
    return SpanClient(socket_directory / "nobody.sock", retry_after_s=0)


@pytest.fixture
def tiny_llama(tiny_llama: Any) -> Iterator[Any]:
    """The shared one, left uninstrumented."""
    yield tiny_llama
    from llmpower.spans import uninstrument

    uninstrument(tiny_llama)


@pytest.fixture(autouse=True)
def leave_transformers_as_it_was() -> Iterator[None]:
    yield
    if "transformers.generation.utils" in sys.modules:
        from llmpower.spans import uninstrument

        uninstrument()
