"""The store on disks that fill, fail and vanish: the daemon goes on, and no batch is lost or stored by halves."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disks import Clocks, fill, mounted, remount
from keepers import Make, Open, ids

from llmpower.daemon.storing.keeper import FAILED_S, UPKEEP_S
from llmpower.daemon.storing.retention import Retention
from llmpower.exceptions import StoreError, StoreUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spans.db"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as directory:
        yield directory


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
from llmpower.daemon.storing.keeper import Keeper
from llmpower.daemon.storing.retention import Retention
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
