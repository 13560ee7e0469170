"""The store on disks that fill, fail, vanish and lie: the daemon goes on, and nothing that can be read is destroyed."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disks import Clocks, fill, mounted, remount

from llmpower.daemon.keeper import ASIDE_AGAIN_S, FAILED_S, UPKEEP_S, Keeper
from llmpower.daemon.retention import Retention
from llmpower.exceptions import StoreDamagedError, StoreError, StoreUnavailableError
from llmpower.store import iter_rows, schema
from llmpower.types import Measurement

Make = Callable[..., Measurement]
Open = Callable[..., Keeper]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def keep(path: Path, clocks: Clocks) -> Iterator[Open]:
    """Opens keepers, by default of ``path``, and closes them at the end."""
    opened: list[Keeper] = []

    def keep(path: Path = path, retention: Retention = Retention()) -> Keeper:  # noqa: B008 # frozen
        keeper = Keeper(path, retention, utc_s=lambda: clocks.utc_s, uptime_s=lambda: clocks.uptime_s)
        opened.append(keeper)
        return keeper

    yield keep
    for keeper in opened:
        keeper.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as directory:
        yield directory


def ids(path: Path) -> set[object]:
    return {span_id for (span_id,) in iter_rows(path, columns=("span_id",))}


def damage(path: Path, start: int = 4096) -> None:
    """Overwrite the file from there on; it stays the same file."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(start)
        file.write(b"\xa5" * (size - start))


def test_a_disk_that_fills_up_fails_batches_whole_until_there_is_room(
    disk: Path, keep: Open, make_measurement: Make
) -> None:
    keeper = keep(disk / "spans.db")
    stored = 0
    with contextlib.suppress(StoreUnavailableError):
        while stored < 10_000:
            stored += keeper.append([make_measurement(stored + each) for each in range(100)]).new
    assert 0 < stored < 10_000
    assert len(ids(disk / "spans.db")) == stored
    batch = [make_measurement(stored + each) for each in range(100)]
    with pytest.raises(StoreUnavailableError, match="the disk is full; make room"):
        keeper.append(batch)
    remount(disk, "size=4m")
    assert keeper.append(batch) == (100, 0)
    assert len(ids(disk / "spans.db")) == stored + 100


def test_the_daemon_starts_on_a_full_disk(disk: Path, keep: Open, make_measurement: Make) -> None:
    ballast = fill(disk)
    keeper = keep(disk / "spans.db")
    assert (keeper.state.errors, keeper.state.faults, keeper.state.size_bytes) == (1, 1, None)
    assert keeper.state.last_fault is not None
    assert "the disk is full; make room" in keeper.state.last_fault
    with pytest.raises(StoreUnavailableError):
        keeper.append([make_measurement(1)])
    assert keeper.upkeep() == FAILED_S
    assert keeper.state.errors == 2
    ballast.unlink()
    assert keeper.append([make_measurement(1)]) == (1, 0)
    assert keeper.upkeep() == UPKEEP_S
    assert keeper.state.size_bytes is not None
    assert keeper.state.errors == 2


def test_a_disk_that_turns_read_only_and_back(disk: Path, keep: Open, make_measurement: Make) -> None:
    keeper = keep(disk / "spans.db")
    keeper.append([make_measurement(1)])
    keeper.close()
    remount(disk, "ro")
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"read-only|Read-only"):
            keeper.append([make_measurement(2)])
    late = keep(disk / "spans.db")
    assert late.state.errors == 1, "nor is it a reason not to start"
    assert ids(disk / "spans.db") == {"span-1"}
    remount(disk, "rw")
    assert keeper.append([make_measurement(2)]) == (1, 0)
    assert ids(disk / "spans.db") == {"span-1", "span-2"}


_LIMITED = """
import resource, sys
from datetime import UTC, datetime
from pathlib import Path
from llmpower.daemon.keeper import Keeper
from llmpower.daemon.retention import Retention
from llmpower.exceptions import StoreUnavailableError
from llmpower.types import Measurement, Span

def batch(first):
    spans = [Span(f"span-{n}", "llama", (), 0, None, 1, 1, 1, 1, "host", 1) for n in range(first, first + 100)]
    now = datetime.now(UTC)
    return [Measurement(span, "s", now, *[None] * 6, "unavailable", "none", False, True) for span in spans]

keeper = Keeper(Path(sys.argv[1]), Retention())
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
stored = 0
try:
    while True:
        keeper.append(batch(stored))
        stored += 100
except StoreUnavailableError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(stored, keeper.append(batch(stored)).new)
keeper.close()
"""


def test_a_file_that_may_not_grow_and_then_may(path: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert hard == resource.RLIM_INFINITY, "cannot be tried below a limit"
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, path], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, counts = done.stdout.splitlines()
    assert "SQLITE_IOERR_WRITE" in said
    stored, new = map(int, counts.split())
    assert new == 100
    assert len(ids(path)) == stored + 100


def test_a_directory_that_vanishes_and_comes_back(path: Path, keep: Open, make_measurement: Make) -> None:
    directory = path.parent / "state"
    directory.mkdir()
    keeper = keep(directory / "spans.db")
    keeper.append([make_measurement(1)])
    shutil.rmtree(directory)
    with pytest.raises(StoreUnavailableError, match="removed or replaced under the daemon"):
        keeper.append([make_measurement(2)])
    with pytest.raises(StoreError, match="there is no directory"):
        keeper.append([make_measurement(2)])
    directory.mkdir()
    assert keeper.append([make_measurement(2)]) == (1, 0)
    assert ids(directory / "spans.db") == {"span-2"}
    assert keeper.state.last_fault is not None
    assert "removed or replaced; measurements go into the file that is there now" in keeper.state.last_fault


def test_a_file_put_in_its_place_is_used_if_it_is_a_store(path: Path, keep: Open, make_measurement: Make) -> None:
    other = keep(path.with_name("other.db"))
    other.append([make_measurement(1)])
    other.close()
    keeper = keep()
    keeper.append([make_measurement(2)])
    moved = path.rename(path.with_name("moved.db"))
    path.with_name("other.db").rename(path)
    with pytest.raises(StoreUnavailableError, match="removed or replaced"):
        keeper.append([make_measurement(3)])
    assert keeper.append([make_measurement(3)]) == (1, 0)
    keeper.close()
    assert ids(path) == {"span-1", "span-3"}
    # Its log could not follow it by that name, and belongs to no other file.
    assert ids(moved) == {"span-2", "span-3"}


def test_another_programs_file_in_its_place_is_left_alone(path: Path, keep: Open, make_measurement: Make) -> None:
    keeper = keep()
    keeper.append([make_measurement(1)])
    path.unlink()
    path.write_text("my notes, nothing else\n" * 200)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="removed or replaced"):
        keeper.append([make_measurement(2)])
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            keeper.append([make_measurement(2)])
    assert path.read_bytes() == before
    assert keeper.state.corruptions == 0
    path.unlink()
    assert keeper.append([make_measurement(2)]) == (1, 0)


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"])
def test_a_database_that_another_program_locks(lock: str, path: Path, keep: Open, make_measurement: Make) -> None:
    first = keep()
    first.append([make_measurement(1)])
    first.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
        intruder.executescript(lock)
        keeper = keep()
        with pytest.raises(StoreUnavailableError, match="another program holds the database locked"):
            keeper.append([make_measurement(2)])
        assert keeper.upkeep() == FAILED_S
    assert keeper.append([make_measurement(2)]) == (1, 0)
    assert ids(path) == {"span-1", "span-2"}
    assert keeper.state.corruptions == 0


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


def test_mistakes_in_naming_the_store_are_not_waited_out(path: Path, keep: Open) -> None:
    with pytest.raises(StoreError, match="there is no directory"):
        keep(path.parent / "nowhere" / "spans.db")
    with pytest.raises(StoreError, match="this is a directory"):
        keep(path.parent)
    keep()
    with pytest.raises(StoreError, match="another daemon"):
        keep()


def test_how_long_batches_take_is_kept(keep: Open, make_measurement: Make) -> None:
    keeper = keep()
    for number in range(3):
        keeper.append([make_measurement(number)])
    # The clocks stand still.
    assert keeper.state.commit_s.counts[0] == 3
    assert sum(keeper.state.commit_s.counts) == 3
    assert len(keeper.state.commit_s.counts) == len(keeper.state.commit_s.bounds) + 1


def test_what_keeps_going_wrong_is_said_once_a_minute(
    path: Path, keep: Open, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = keep(retention=Retention(age_s=3600))
    with closing(sqlite3.connect(path, isolation_level=None)) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        for _ in range(15):
            assert keeper.upkeep() == FAILED_S
            clocks.pass_time(10.0)
    assert keeper.state.errors == 15
    assert len(caplog.records) == 3
