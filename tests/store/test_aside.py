from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from llmpower.exceptions import StoreUnavailableError
from llmpower.store import Store, iter_rows, set_aside
from llmpower.types import Measurement

Make = Callable[..., Measurement]

NOW = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)


def test_the_database_and_its_log_are_kept_byte_by_byte(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    store.append([make_measurement(number) for number in range(500)])
    before = {name: path.with_name(name).read_bytes() for name in ("spans.db", "spans.db-wal")}
    assert len(before["spans.db-wal"]) > 100_000
    target = set_aside(path, NOW.astimezone(timezone(timedelta(hours=9))))
    assert target == path.with_name("spans.db.corrupt-20260301T123005Z")
    assert not path.exists()
    # Only now is the last connection closed; it must not fold the log into what is kept, nor remove it.
    store.close()
    assert target.read_bytes() == before["spans.db"]
    assert target.with_name(f"{target.name}-wal").read_bytes() == before["spans.db-wal"]
    assert len(list(iter_rows(target))) == 500
    fresh = Store(path)
    assert fresh.append([make_measurement(1)]) == (1, 0)
    fresh.close()
    assert len(list(iter_rows(target))) == 500


def test_what_was_kept_before_is_never_overwritten(path: Path, make_measurement: Make) -> None:
    for number in range(3):
        store = Store(path)
        store.append([make_measurement(number)])
        set_aside(path, NOW)
        store.close()
    names = [f"spans.db.corrupt-20260301T123005Z{end}" for end in ("", ".2", ".3")]
    kept = [[span_id for (span_id,) in iter_rows(path.with_name(name), columns=("span_id",))] for name in names]
    assert kept == [["span-0"], ["span-1"], ["span-2"]]


def test_readers_at_work_are_not_disturbed(path: Path, make_measurement: Make) -> None:
    store = Store(path)
    store.append([make_measurement(number) for number in range(500)])
    rows = iter_rows(path, columns=("span_id",))
    first = next(rows)
    set_aside(path, NOW)
    store.close()
    fresh = Store(path)
    fresh.append([make_measurement(1000)])
    assert len([first, *rows]) == 500
    fresh.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["changed", "looked into"])
def test_a_directory_that_cannot_be_used_leaves_everything_as_it_was(
    path: Path, make_measurement: Make, mode: int
) -> None:
    store = Store(path)
    store.append([make_measurement(1)])
    before = sorted(file.name for file in path.parent.iterdir())
    for directory in (path.parent, *path.parent.parents[:2]):
        directory.chmod(mode)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreUnavailableError, match="cannot be moved out of the way"):
            set_aside(path, NOW)
    finally:
        os.seteuid(0)
    assert sorted(file.name for file in path.parent.iterdir()) == before
    store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
