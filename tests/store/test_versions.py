"""Stores that earlier versions made: read as they are, and grown by the daemon that opens them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from llmpower.store import Added, Store, export_partitions, iter_rows, read_measurements, schema, upkeep
from llmpower.types import MEASUREMENT_COLUMNS, Measurement

Make = Callable[..., Measurement]

ROW = {
    "span_id": "old",
    "started_at": "2025-01-01T00:00:00.000000Z",
    "hostname": "h",
    "pid": 1,
    "model_name": "m",
    "system": "s",
    "input_tokens": 1,
    "output_tokens": 2,
    "batch_size": 1,
    "runtime_s": 1.5,
    "gpu_energy_j": 30.0,
    "quality": "measured",
    "method": "counter",
    "allocated": 0,
    "simulated": 0,
    "attributes": "{}",
}


def old_store(path: Path, version: int, rows: int = 1) -> Path:
    """A store as the daemon of that version left it, the log not folded in: it was killed."""
    scripts = dict(schema._migrations())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for number in range(1, version + 1):
            connection.executescript(f"BEGIN; {scripts[number]}; PRAGMA user_version = {number}; COMMIT;")
        insert = f"INSERT INTO measurements ({', '.join(ROW)}) VALUES ({', '.join(f':{name}' for name in ROW)})"
        connection.execute("BEGIN")
        for number in range(rows):
            connection.execute(insert, ROW | {"span_id": "old" if rows == 1 else f"old-{number}"})
        connection.execute("COMMIT")
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_store_can_be_read_as_it_is(version: int, path: Path) -> None:
    old_store(path, version)
    before = path.read_bytes()
    frame = read_measurements(path, columns=(*MEASUREMENT_COLUMNS, "uid"))
    row = frame.iloc[0]
    assert (row["span_id"], row["runtime_s"], row["gpu_energy_j"], row["quality"]) == ("old", 1.5, 30.0, "measured")
    assert pd.isna(row["gpu_idle_energy_j"])
    assert pd.isna(row["uid"])
    assert frame["gpu_idle_energy_j"].dtype == "float64"
    assert [*iter_rows(path, columns=("uid", "span_id", "cpu_idle_energy_j"))] == [(None, "old", None)]
    assert export_partitions(path, str(path.parent / "fleet")) == Added(1, 1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [1, 2])
def test_the_daemon_grows_it_and_keeps_its_rows(version: int, path: Path, make_measurement: Make) -> None:
    old_store(path, version)
    store = Store(path)
    assert store.append([make_measurement(1, uid=7, gpu_idle_energy_j=3.0)]) == (1, 0)
    store.close()
    columns = ("span_id", "gpu_idle_energy_j", "uid")
    assert [*iter_rows(path, columns=columns)] == [("old", None, None), ("span-1", 3.0, 7)]


def test_a_new_store_gives_space_back_and_an_old_one_after_it_was_rewritten(path: Path) -> None:
    new = Store(path.with_name("new.db"))
    assert upkeep.gives_back(new)
    new.close()
    store = Store(old_store(path, 2, rows=500))
    assert not upkeep.gives_back(store)
    upkeep.rewrite(store)
    assert upkeep.gives_back(store)
    store.close()
    assert len(list(iter_rows(path))) == 500
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_old_store_is_read_while_a_daemon_grows_it(path: Path) -> None:
    rows = iter_rows(old_store(path, 2, rows=300), columns=("span_id", "uid"))
    first = next(rows)
    store = Store(path)
    upkeep.rewrite(store)
    assert len([first, *rows]) == 300
    store.close()
