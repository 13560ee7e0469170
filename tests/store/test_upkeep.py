from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmpower.store import Store, iter_rows, upkeep
from llmpower.types import Measurement

Make = Callable[..., Measurement]

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(path: Path, make_measurement: Make) -> Store:
    """A thousand spans, one a minute, stored latest first."""
    store = Store(path)
    store.append([make_measurement(999 - number) for number in range(1000)])
    return store


def kept(path: Path) -> list[object]:
    return [span_id for (span_id,) in iter_rows(path, columns=("span_id",))]


def test_deletion_by_age_takes_the_oldest_and_no_more_than_asked(store: Store) -> None:
    moment = START + timedelta(minutes=30)
    assert upkeep.delete_before(store, moment, 20) == 20
    assert kept(store.path)[0] == "span-20"
    assert upkeep.delete_before(store, moment, 20) == 10
    assert upkeep.delete_before(store, moment, 20) == 0
    assert kept(store.path)[0] == "span-30", "what began at that very moment stays"
    store.close()


def test_deletion_by_size_takes_what_was_stored_first(store: Store) -> None:
    assert upkeep.delete_first(store, 3) == 3
    assert kept(store.path)[-1] == "span-996"
    assert upkeep.span_of_ids(store) == 997
    assert upkeep.delete_first(store, 10_000) == 997
    assert upkeep.span_of_ids(store) == 0
    store.close()


@pytest.mark.parametrize("query", ["SELECT id FROM measurements WHERE started_at < ? ORDER BY started_at LIMIT 9"])
def test_finding_the_oldest_reads_an_index_and_sorts_nothing(query: str, store: Store) -> None:
    with store.explaining() as connection:
        plan = " ".join(str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", ("2026",)))
    assert "USING COVERING INDEX measurements_by_time" in plan
    assert "TEMP B-TREE" not in plan
    store.close()


def test_deleted_space_goes_back_to_the_file_system(store: Store) -> None:
    assert upkeep.checkpoint(store)
    full = upkeep.sizes(store)
    upkeep.delete_first(store, 900)
    deleted = upkeep.sizes(store)
    assert deleted.used_bytes + deleted.free_bytes == full.used_bytes + full.free_bytes
    assert deleted.free_bytes > full.used_bytes // 2
    upkeep.give_back(store, 10)
    assert upkeep.sizes(store).free_bytes == deleted.free_bytes - 10 * 4096, "no more than asked"
    upkeep.give_back(store, 10_000)
    assert upkeep.sizes(store).free_bytes == 0
    assert store.path.stat().st_size == full.file_bytes, "not before the log is folded in"
    assert upkeep.checkpoint(store)
    assert store.path.stat().st_size == upkeep.sizes(store).file_bytes == upkeep.sizes(store).used_bytes
    assert store.path.stat().st_size < full.file_bytes // 4
    assert len(kept(store.path)) == 100
    store.close()
    with closing(sqlite3.connect(store.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_reader_at_work_sees_what_it_began_with(store: Store) -> None:
    rows = iter_rows(store.path, columns=("span_id",))
    first = next(rows)
    while upkeep.delete_first(store, 100):
        upkeep.give_back(store, 100)
        upkeep.checkpoint(store)
    assert len([first, *rows]) == 1000
    assert kept(store.path) == []
    store.close()


def test_a_reader_that_does_not_end_keeps_the_log_and_is_noticed(store: Store, make_measurement: Make) -> None:
    assert upkeep.checkpoint(store)
    rows = iter_rows(store.path, columns=("span_id",))
    next(rows)
    large = {"attributes": {"prompt": "x" * 20_000}}
    store.append([make_measurement(number, **large) for number in range(2000, 2600)])
    assert not upkeep.checkpoint(store)
    assert upkeep.sizes(store).log_bytes > 10 << 20
    rows.close()  # type: ignore[attr-defined] # a generator
    assert upkeep.checkpoint(store)
    # With the next row the log starts over, and is cut.
    store.append([make_measurement(1_000_000)])
    assert upkeep.sizes(store).log_bytes <= 8 << 20
    store.close()


def test_notes_outlive_the_daemon(store: Store) -> None:
    assert upkeep.read_note(store, "a") is None
    upkeep.write_notes(store, {"a": 1, "b": -(2**62)})
    upkeep.write_notes(store, {"a": 2})
    store.close()
    store = Store(store.path)
    assert (upkeep.read_note(store, "a"), upkeep.read_note(store, "b")) == (2, -(2**62))
    store.close()
