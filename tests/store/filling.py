"""A store with rows in it, closed again."""

from __future__ import annotations

from pathlib import Path

from llmpower.store import Store
from llmpower.types import Measurement


def filled(path: Path, *measurements: Measurement) -> Path:
    store = Store(path)
    store.append(measurements)
    store.close()
    return path
