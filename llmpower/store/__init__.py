"""Where measurements stay: one SQLite file, written by one daemon, read by anyone at any time."""

from __future__ import annotations

from llmpower.store.aside import set_aside
from llmpower.store.parquet import write_parquet
from llmpower.store.partitions import Added, export_partitions
from llmpower.store.reader import count_rows, iter_rows, read_measurements
from llmpower.store.writer import Appended, Store

__all__ = [
    "Added",
    "Appended",
    "Store",
    "count_rows",
    "export_partitions",
    "iter_rows",
    "read_measurements",
    "set_aside",
    "write_parquet",
]
