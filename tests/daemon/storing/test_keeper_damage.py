"""Databases that a disk has damaged: kept aside whole, and nothing is taken for one that is not ours."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from disks import Clocks
from keepers import Make, Open, ids

from llmpower.daemon.storing.keeper import ASIDE_AGAIN_S
from llmpower.exceptions import StoreDamagedError, StoreError, StoreUnavailableError
from llmpower.store import schema


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


def damage(path: Path, start: int = 4096) -> None:
    """Overwrite the file from there on; it stays the same file."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(start)
        file.write(b"\xa5" * (size - start))


def test_damage_found_at_the_start(
    path: Path, keep: Open, make_measurement: Make, caplog: pytest.LogCaptureFixture
) -> None:
    first = keep()
    first.append([make_measurement(number) for number in range(500)])
    first.close()
    damage(path)
    damaged = path.read_bytes()
    keeper = keep()
    (aside,) = path.parent.glob("spans.db.corrupt-*Z")
    assert aside.name == "spans.db.corrupt-20260101T000000Z"
    assert aside.read_bytes() == damaged
    assert (keeper.state.corruptions, keeper.state.errors) == (1, 0)
    assert keeper.state.last_fault is not None
    assert f"it is kept as {aside}, of which 'sqlite3 {aside} .recover' saves" in keeper.state.last_fault
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert keeper.append([make_measurement(1)]) == (1, 0)
    assert ids(path) == {"span-1"}


def test_a_damaged_first_page_is_ours_by_what_is_left_of_it(path: Path, keep: Open, make_measurement: Make) -> None:
    first = keep()
    first.append([make_measurement(1)])
    first.close()
    with path.open("r+b") as file:
        file.write(b"\0" * 16)
    assert keep().state.corruptions == 1
    assert len(list(path.parent.glob("spans.db.corrupt-*"))) == 1


def test_the_log_of_a_daemon_that_was_killed_is_kept_with_its_damaged_database(
    path: Path, keep: Open, make_measurement: Make
) -> None:
    first = keep()
    first.append([make_measurement(number) for number in range(500)])
    first.close()
    killed = path.with_name("killed")
    keeper = keep()
    keeper.append([make_measurement(1000)])
    killed.mkdir()
    for name in ("spans.db", "spans.db-wal"):
        shutil.copy(path.with_name(name), killed / name)
    damage(killed / "spans.db", 3 * 4096)
    log = (killed / "spans.db-wal").read_bytes()
    assert log
    later = keep(killed / "spans.db")
    assert later.state.corruptions == 1
    (aside,) = killed.glob("spans.db.corrupt-*-wal")
    assert aside.read_bytes() == log


def test_damage_found_while_running_costs_no_row(path: Path, keep: Open, make_measurement: Make) -> None:
    keeper = keep()
    # More than SQLite keeps in memory, so that it must look into the file again.
    keeper.append([make_measurement(number) for number in range(20_000)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    damage(path)
    batch = [make_measurement(number) for number in range(50_000, 50_500)]
    assert keeper.append(batch) == (500, 0)
    assert keeper.state.corruptions == 1
    assert len(ids(path)) == 500
    (aside,) = path.parent.glob("spans.db.corrupt-*Z")
    assert aside.stat().st_size > 5_000_000


def test_damage_of_every_page_while_running_is_known_to_be_ours(path: Path, keep: Open, make_measurement: Make) -> None:
    keeper = keep()
    keeper.append([make_measurement(number) for number in range(20_000)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    damage(path, 0)
    assert keeper.append([make_measurement(number) for number in range(50_000, 50_500)]) == (500, 0)
    assert keeper.state.corruptions == 1
    # To a daemon that has not had it open, it is any file.
    (aside,) = path.parent.glob("spans.db.corrupt-*Z")
    with pytest.raises(StoreError, match="not a database"):
        keep(aside)


def test_a_disk_that_damages_each_new_database_is_not_filled_with_them(
    path: Path, keep: Open, clocks: Clocks, make_measurement: Make
) -> None:
    keeper = keep()
    asides = []
    for _ in range(2):
        keeper.append([make_measurement(number) for number in range(500)])
        keeper.close()
        damage(path)
        with contextlib.suppress(StoreDamagedError):
            keeper.append([make_measurement(1)])
        asides.append(len(list(path.parent.glob("spans.db.corrupt-*Z"))))
    assert asides == [1, 1]
    with pytest.raises(StoreDamagedError):
        keeper.append([make_measurement(1)])
    clocks.pass_time(ASIDE_AGAIN_S)
    assert keeper.append([make_measurement(1)]) == (1, 0)
    assert keeper.state.corruptions == 2
    assert len(list(path.parent.glob("spans.db.corrupt-*Z"))) == 2


def test_what_is_not_ours_or_newer_is_refused_and_never_moved(path: Path, keep: Open, make_measurement: Make) -> None:
    path.write_bytes(os.urandom(16_384))
    with pytest.raises(StoreError, match="not a database") as refused:
        keep()
    assert not isinstance(refused.value, StoreUnavailableError | StoreDamagedError)
    path.unlink()
    first = keep()
    first.append([make_measurement(number) for number in range(500)])
    first.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.newest_version() + 1}")
    # Even where it is damaged.
    for start in (8 * 4096, 4096):
        damage(path, start)
        before = path.read_bytes()
        with pytest.raises(StoreError, match="newer llmpower"):
            keep()
        assert path.read_bytes() == before
    with path.open("r+b") as file:
        file.write(b"\0" * 16)
    with pytest.raises(StoreError, match="not a database"):
        keep()
    assert list(path.parent.glob("*corrupt*")) == []
