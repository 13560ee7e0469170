"""A store's rows in a data set of many hosts: each once, whatever has happened between two runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.store import Added, Store, export_partitions, read_measurements
from llmpower.store.parquet import ROWS_AT_ONCE
from llmpower.types import MEASUREMENT_COLUMNS, Measurement

Make = Callable[..., Measurement]


def add(path: Path, *measurements: Measurement) -> Path:
    store = Store(path)
    store.append(list(measurements))
    store.close()
    return path


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def spans(root: Path) -> list[str]:
    return sorted(
        span for path in root.rglob("*.parquet") for span in pd.read_parquet(path, partitioning=None)["span_id"]
    )


def on_host(measurement: Measurement, hostname: str) -> Measurement:
    return msgspec.structs.replace(measurement, span=msgspec.structs.replace(measurement.span, hostname=hostname))


def test_rows_lie_by_host_and_day_as_they_are_in_the_store(tmp_path: Path, make_measurement: Make) -> None:
    absent = make_measurement(2, gpu_energy_j=None, first_token_ns=None, quality="unavailable")
    noon = datetime(2026, 2, 3, 12, tzinfo=UTC)
    other = on_host(make_measurement(3, started_at=noon), "gpu/01 a")
    store = add(tmp_path / "spans.db", make_measurement(1), absent, other)
    assert export_partitions(store, str(tmp_path / "fleet")) == Added(3, 2)
    first, second = files(tmp_path / "fleet")
    assert first.startswith("host=gpu%2F01%20a/date=2026-02-03/3-3-")
    assert "/date=2026-01-01/1-2-" in second
    read = pd.read_parquet(tmp_path / "fleet" / second, partitioning=None)
    assert tuple(read.columns) == MEASUREMENT_COLUMNS
    kept = read_measurements(store).iloc[:2]
    assert str(read["started_at"].dtype) == "datetime64[us, UTC]"
    assert (read["started_at"] == pd.to_datetime(kept["started_at"])).all()
    for column in MEASUREMENT_COLUMNS:
        if column != "started_at":
            assert read[column].astype(object).where(read[column].notna(), None).tolist() == (
                kept[column].astype(object).where(kept[column].notna(), None).tolist()
            )
    whole = pd.read_parquet(tmp_path / "fleet")
    assert sorted(whole["host"].astype(str)) == sorted(whole["hostname"])


def test_another_run_adds_what_is_new_and_touches_nothing_else(tmp_path: Path, make_measurement: Make) -> None:
    store, root = tmp_path / "spans.db", tmp_path / "fleet"
    add(store, make_measurement(1), make_measurement(2))
    export_partitions(store, str(root))
    before = {name: (root / name).stat().st_mtime_ns for name in files(root)}
    assert export_partitions(store, str(root)) == Added(0, 0)
    add(store, make_measurement(3), make_measurement(4, started_at=datetime(2026, 1, 2, tzinfo=UTC)))
    assert export_partitions(store, str(root)) == Added(2, 2)
    assert {name: (root / name).stat().st_mtime_ns for name in before} == before
    assert spans(root) == ["span-1", "span-2", "span-3", "span-4"]


def test_a_store_made_anew_and_a_second_one_lose_nothing(tmp_path: Path, make_measurement: Make) -> None:
    root = tmp_path / "fleet"
    for name, numbers in (("a", (1, 2, 3)), ("b", (4, 5)), ("c", (3, 6, 7, 8, 9))):
        export_partitions(add(tmp_path / f"{name}.db", *map(make_measurement, numbers)), str(root))
    assert spans(root) == [f"span-{number}" for number in range(1, 10)]
    copied = add(tmp_path / "d.db", *map(make_measurement, (2, 7)))
    assert export_partitions(copied, str(root)) == Added(0, 0), "all of it is there, in files that end otherwise"


def test_what_lies_beside_the_files_and_is_none_of_them_is_passed_over(tmp_path: Path, make_measurement: Make) -> None:
    store, root = tmp_path / "spans.db", tmp_path / "fleet"
    export_partitions(add(store, make_measurement(1)), str(root))
    day = (root / files(root)[0]).parent
    beside = {".0f3a.parquet": b"PAR1 half a file", "_metadata.parquet": b"of others", "notes.txt": b"for people"}
    for name, content in beside.items():
        (day / name).write_bytes(content)
    (day / "more.parquet").mkdir()
    assert export_partitions(add(store, make_measurement(2)), str(root)) == Added(1, 1)
    assert {name: (day / name).read_bytes() for name in beside} == beside


def test_a_day_of_more_rows_than_are_written_at_once(tmp_path: Path, make_measurement: Make) -> None:
    store, root = tmp_path / "spans.db", tmp_path / "fleet"
    # Written into the table itself: a statement, where the daemon takes seconds for as many.
    add(store, make_measurement(1))
    rows = ROWS_AT_ONCE + 1
    with closing(sqlite3.connect(store)) as connection, connection:
        there = [name for _, name, *_ in connection.execute("PRAGMA table_info(measurements)")]
        others = ", ".join(name for name in there if name not in ("id", "span_id"))
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            f" INSERT INTO measurements (span_id, {others}) SELECT 'span-' || i, {others} FROM n, measurements",
            (rows,),
        )
    assert export_partitions(store, str(root)) == Added(rows, 1)
    (written,) = root.rglob("*.parquet")
    assert list(pd.read_parquet(written, partitioning=None)["span_id"]) == [f"span-{n}" for n in range(1, rows + 1)]


def test_a_run_that_was_stopped_leaves_nothing_that_readers_see(tmp_path: Path, make_measurement: Make) -> None:
    days = [
        make_measurement(day, started_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)) for day in range(4)
    ]
    store, root = add(tmp_path / "spans.db", *days), tmp_path / "fleet"

    class StoppedError(Exception):
        pass

    def stop(done: int, of: int) -> None:
        assert of == 4
        if done == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        export_partitions(store, str(root), stop)
    assert spans(root) == ["span-0", "span-1"]
    assert export_partitions(store, str(root)) == Added(2, 2)
    assert len(files(root)) == 4


def test_a_place_may_be_a_url_or_one_that_cannot_be_written_to(tmp_path: Path, make_measurement: Make) -> None:
    store = add(tmp_path / "spans.db", make_measurement(1))
    assert export_partitions(store, "memory://partitions/fleet") == Added(1, 1)
    assert export_partitions(store, "memory://partitions/fleet") == Added(0, 0)
    assert export_partitions(add(store, make_measurement(2)), "memory://partitions/fleet") == Added(1, 1)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"):
        export_partitions(store, str(tmp_path / "file"))
    with pytest.raises(InputError, match="names no place"):
        export_partitions(store, "")
    with pytest.raises(InputError, match="check the URL"):
        export_partitions(store, "nonsense://fleet")
