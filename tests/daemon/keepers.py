"""What tests of the keeper share: how one is opened, and what a store holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from llmpower.daemon.storing.keeper import Keeper
from llmpower.store import iter_rows
from llmpower.types import Measurement

Make = Callable[..., Measurement]
Open = Callable[..., Keeper]


def ids(path: Path) -> set[object]:
    """Of the spans that are stored."""
    return {span_id for (span_id,) in iter_rows(path, columns=("span_id",))}
