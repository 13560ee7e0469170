"""Retention in practice: turn by turn, next to readers and writers, under clocks that are wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from disks import Clocks

from llmpower.daemon.storing.retention import DOUBT_S, Retention
from llmpower.daemon.storing.tidying import LARGE_LOG_BYTES, LEAST_SLACK_BYTES, MAX_ROWS, SLACK, Tidier
from llmpower.store import Store, iter_rows, schema, upkeep
from llmpower.types import Measurement

Make = Callable[..., Measurement]

DAY_S = 86_400
YEAR_S = 365 * DAY_S
MB = 1 << 20
NEW_YEAR_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


class House:
    """A store, its tidier, and their clocks."""

    def __init__(self, path: Path, **limits: int) -> None:
        self.store = Store(path)
        self.clocks = Clocks(NEW_YEAR_S)
        self.said: list[str] = []
        self.limits = Retention(**limits)
        self.move_in()

    def move_in(self) -> None:
        """A tidier who knows nothing of the one before."""
        clocks = self.clocks
        self.tidier = Tidier(
            self.limits, self.said.append, utc_s=lambda: clocks.utc_s, uptime_s=lambda: clocks.uptime_s
        )

    def tidy(self) -> int:
        """Turns until there is nothing left to do."""
        turns = 1
        while self.tidier.turn(self.store):
            turns += 1
            assert turns < 10_000
        return turns

    def ids(self) -> list[int]:
        rows = iter_rows(self.store.path, columns=("span_id",))
        return [int(str(span_id).removeprefix("span-")) for (span_id,) in rows]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Callable[..., House]]:
    built: list[House] = []

    def house(**limits: int) -> House:
        built.append(House(tmp_path / "spans.db", **limits))
        return built[-1]

    yield house
    for each in built:
        each.store.close()


def test_without_limits_nothing_is_deleted(house: Callable[..., House], make_measurement: Make) -> None:
    home = house()
    home.store.append([make_measurement(number) for number in range(100)])
    home.clocks.pass_time(50 * YEAR_S)
    assert home.tidy() == 1
    assert len(home.ids()) == 100
    assert home.said == []


def test_by_age(house: Callable[..., House], make_measurement: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    home = house(age_s=DAY_S)
    # One a minute from the new year on.
    home.store.append([make_measurement(number) for number in range(3 * 1440)])
    home.clocks.pass_time(2.5 * DAY_S)
    home.tidier.turn(home.store)
    first = home.ids()[0]
    assert 0 < first <= MAX_ROWS
    home.tidy()
    assert home.ids() == list(range(2160, 4320))
    assert home.tidier.deleted == {"age": 2160}
    assert [record.message for record in caplog.records] == [
        f"retention.time: the oldest spans are being deleted from {home.store.path}"
    ]
    home.clocks.pass_time(3600)
    home.tidy()
    assert home.ids()[0] == 2220


def test_by_size(house: Callable[..., House], make_measurement: Make) -> None:
    home = house(size_bytes=MB)
    for number in range(0, 10_000, 500):
        home.store.append([make_measurement(number + each) for each in range(500)])
        home.tidy()
        assert upkeep.sizes(home.store).used_bytes <= MB
    kept = home.ids()
    assert kept == list(range(kept[0], 10_000)), "the latest, without a gap"
    assert len(kept) > 1500, "and not much fewer than there is room for"
    assert home.store.path.stat().st_size <= MB + max(MB // SLACK, LEAST_SLACK_BYTES)


def test_space_really_goes_back(house: Callable[..., House], make_measurement: Make) -> None:
    home = house(age_s=DAY_S)
    home.store.append([make_measurement(number) for number in range(20_000)])
    upkeep.checkpoint(home.store)
    full = home.store.path.stat().st_size
    home.clocks.pass_time(14 * DAY_S)
    home.tidy()
    assert len(home.ids()) == 20_000 - 13 * 1440
    assert home.store.path.stat().st_size < full // 4
    with closing(sqlite3.connect(home.store.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_turns_that_take_long_do_less(house: Callable[..., House], make_measurement: Make) -> None:
    home = house(age_s=DAY_S)
    home.store.append([make_measurement(number) for number in range(12_000)])
    home.clocks.pass_time(30 * DAY_S)
    deleted = []
    for _ in range(8):
        home.tidier.turn(home.store)
        deleted.append(home.tidier.deleted["age"])
    # The clock stands still: everything is done in no time.
    quick = [after - before for before, after in zip([0, *deleted], deleted, strict=False)]
    assert quick == [32, 64, 128, 256, 512, 1024, 2048, 4096]
    home.clocks = slow = SlowClocks(home.clocks.utc_s, home.clocks.uptime_s)
    home.tidier._uptime_s = slow.read
    home.tidier.turn(home.store)
    before = home.tidier.deleted["age"]
    home.tidier.turn(home.store)
    assert home.tidier.deleted["age"] - before < MAX_ROWS


class SlowClocks(Clocks):
    """A machine on which everything takes a second."""

    def read(self) -> float:
        self.pass_time(1.0)
        return self.uptime_s


def test_an_export_at_work_loses_no_row(house: Callable[..., House], make_measurement: Make) -> None:
    home = house(age_s=DAY_S, size_bytes=MB)
    home.store.append([make_measurement(number) for number in range(8000)])
    rows = iter_rows(home.store.path, columns=("span_id",))
    first = next(rows)
    home.clocks.pass_time(30 * DAY_S)
    home.tidy()
    assert home.ids() == []
    assert len([first, *rows]) == 8000


def test_a_reader_that_never_ends_is_reported_and_nothing_is_deleted_meanwhile(
    house: Callable[..., House], make_measurement: Make
) -> None:
    home = house(age_s=DAY_S)
    home.store.append([make_measurement(number) for number in range(400)])
    home.clocks.pass_time(30 * DAY_S)
    rows = iter_rows(home.store.path)
    next(rows)
    large = {"attributes": {"prompt": "x" * 200_000}}
    home.store.append([make_measurement(number, **large) for number in range(1000, 1400)])
    assert upkeep.sizes(home.store).log_bytes > LARGE_LOG_BYTES
    assert not home.tidier.turn(home.store)
    (said,) = home.said
    assert "a reader (an export, an sqlite3 shell) keeps an old view of the database open" in said
    assert home.tidier.deleted == {}
    rows.close()  # type: ignore[attr-defined] # a generator
    home.tidy()
    assert home.ids() == []
    assert len(home.said) == 1


def test_a_clock_a_year_ahead_deletes_nothing_for_three_days(
    house: Callable[..., House], make_measurement: Make
) -> None:
    home = house(age_s=90 * DAY_S)
    home.store.append([make_measurement(number) for number in range(1440)])
    home.clocks.pass_time(DAY_S)
    home.tidy()
    home.clocks.utc_s += YEAR_S
    home.clocks.pass_time(3600)
    home.tidy()
    assert len(home.ids()) == 1440
    assert "the wall clock has jumped ahead by 365 d" in home.said[-1]
    # Nor does a restart believe it.
    home.move_in()
    home.clocks.pass_time(3600)
    home.tidy()
    assert len(home.ids()) == 1440
    # Put right in time:
    home.clocks.utc_s -= YEAR_S
    said = len(home.said)
    for _ in range(200):
        home.clocks.pass_time(3600)
        home.tidy()
    assert len(home.ids()) == 1440
    assert len(home.said) == said


def test_a_clock_that_insists_is_right(house: Callable[..., House], make_measurement: Make) -> None:
    home = house(age_s=90 * DAY_S)
    home.store.append([make_measurement(number) for number in range(1440)])
    home.tidy()
    home.clocks.utc_s += YEAR_S
    for _ in range(int(DOUBT_S / 3600)):
        assert len(home.ids()) == 1440
        home.clocks.pass_time(3600)
        home.tidy()
    assert home.ids() == []


def test_by_size_no_clock_is_asked(house: Callable[..., House], make_measurement: Make) -> None:
    home = house(size_bytes=MB)
    # Rows of a clock that was a century ahead, and then of one that was right.
    for number in range(0, 2000, 500):
        ahead = datetime(2126, 1, 1, tzinfo=UTC)
        home.store.append([make_measurement(number + each, started_at=ahead) for each in range(500)])
    for number in range(2000, 8000, 500):
        home.store.append([make_measurement(number + each) for each in range(500)])
        home.tidy()
    assert min(home.ids()) >= 2000
    assert max(home.ids()) == 7999


def test_a_store_of_an_early_llmpower_is_rewritten_once(
    tmp_path: Path, house: Callable[..., House], make_measurement: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scripts = dict(schema._migrations())
    with closing(sqlite3.connect(tmp_path / "spans.db")) as connection:
        connection.executescript(
            f"{scripts[1]}; {scripts[2]}; PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 2;"
        )
    home = house(age_s=DAY_S)
    home.store.append([make_measurement(number) for number in range(5000)])
    assert not upkeep.gives_back(home.store)
    home.tidy()
    assert upkeep.gives_back(home.store)
    assert len(home.ids()) == 5000
    home.clocks.pass_time(30 * DAY_S)
    home.tidy()
    assert home.store.path.stat().st_size <= 3 * LEAST_SLACK_BYTES
    assert [record.message for record in caplog.records if "rewrote" in record.message] == [
        f"rewrote {home.store.path}, so that it can shrink when spans are deleted"
    ]
