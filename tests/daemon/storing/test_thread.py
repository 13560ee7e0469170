"""The store's own thread: the loop goes on whatever the disk does."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from disks import Clocks, freezable, frozen

from llmpower.daemon.storing.keeper import Keeper
from llmpower.daemon.storing.outbox import SLOW_S, Outbox
from llmpower.daemon.storing.retention import Retention
from llmpower.daemon.storing.thread import StoreThread
from llmpower.exceptions import StoreError, StoreUnavailableError
from llmpower.store import iter_rows
from llmpower.types import Measurement

Make = Callable[..., Measurement]

S = 1_000_000_000
NO_LIMITS = Retention()


@pytest.fixture
def thread(tmp_path: Path) -> Iterator[StoreThread]:
    thread = StoreThread(Keeper(tmp_path / "spans.db", NO_LIMITS))
    yield thread
    thread.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with freezable(tmp_path / "disk", tmp_path / "image") as directory:
        yield directory


def test_a_future_tells_what_has_become_of_a_batch(thread: StoreThread, tmp_path: Path, make_measurement: Make) -> None:
    assert thread.append([make_measurement(1), make_measurement(2)]).result(60) == (2, 0)
    assert thread.append([make_measurement(2), make_measurement(3)]).result(60) == (1, 0)
    assert len(list(iter_rows(tmp_path / "spans.db"))) == 3
    assert sum(thread.state().commit_s.counts) == 2


def test_what_fails_is_told_by_the_future_too(thread: StoreThread, tmp_path: Path, make_measurement: Make) -> None:
    with closing(sqlite3.connect(tmp_path / "spans.db", isolation_level=None)) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="another program holds the database locked"):
            thread.append([make_measurement(1)]).result(60)
    assert thread.append([make_measurement(1)]).result(60) == (1, 0)


def test_a_fault_of_our_own_ends_neither_the_thread_nor_the_daemon(
    thread: StoreThread, make_measurement: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreError, match="storing failed: AttributeError"):
        thread.append([None]).result(60)  # type: ignore[list-item]
    assert "Traceback" in caplog.text
    assert thread.append([make_measurement(1)]).result(60) == (1, 0)


def test_closing_stores_what_was_handed_over(tmp_path: Path, make_measurement: Make) -> None:
    thread = StoreThread(Keeper(tmp_path / "spans.db", NO_LIMITS))
    futures = [thread.append([make_measurement(number)]) for number in range(50)]
    assert thread.close()
    assert [future.result(0) for future in futures] == [(1, 0)] * 50
    assert {path.name for path in tmp_path.iterdir()} == {"spans.db", "spans.db.lock"}
    assert len(list(iter_rows(tmp_path / "spans.db"))) == 50


def test_upkeep_is_done_without_being_asked(tmp_path: Path, make_measurement: Make) -> None:
    done = threading.Event()

    class Watched(Keeper):
        def upkeep(self) -> float:
            wait_s = super().upkeep()
            if self.state.deleted.get("age") == 10:
                done.set()
            return wait_s

    clocks = Clocks(utc_s=1_900_000_000.0)
    keeper = Watched(tmp_path / "spans.db", Retention(age_s=3600), utc_s=lambda: clocks.utc_s)
    keeper.append([make_measurement(number) for number in range(10)])
    thread = StoreThread(keeper)
    assert done.wait(60)
    thread.close()


def test_a_disk_that_hangs_holds_up_nobody_but_its_thread(disk: Path, make_measurement: Make) -> None:
    thread = StoreThread(Keeper(disk / "spans.db", NO_LIMITS))
    failed: list[str] = []
    told: list[str] = []
    outbox = Outbox(thread.append, failed.append)
    outbox.on_stored = lambda spans: told.extend(span.span_id for span in spans)
    thread.append([]).result(60)
    with frozen(disk):
        # Every line of this would wait for the disk, if any of it did.
        for second in range(30):
            outbox.put(make_measurement(second))
            outbox.turn(second * S)
        assert outbox.waiting == 30
        assert told == []
        slow = f"the store has not answered for more than {SLOW_S:.0f} s; its disk hangs or is overloaded"
        assert failed == [slow] * 19
        assert not thread.close(timeout_s=0.01), "nor does the end wait for it"
    under_way = outbox._future
    assert under_way is not None
    assert under_way.result(60) == (1, 0)
    outbox.turn(31 * S)
    assert told == ["span-0"]
