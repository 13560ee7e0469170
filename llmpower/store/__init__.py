"""Where measurements stay: one SQLite file, written by one daemon, read by anyone at any time."""

from __future__ import annotations

from llmpower.store.reader import iter_rows, read_measurements
from llmpower.store.writer import Store

__all__ = ["Store", "iter_rows", "read_measurements"]
