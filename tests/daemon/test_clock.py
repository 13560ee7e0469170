"""Wall clock and monotonic clock: steps, time zones, long uptimes."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.daemon.clock import MAX_STEPS, STEP_NS, WallClock
from llmpower.spans.clocks import read_utc_offset_ns
from llmpower.store.rows import iso

S = 1_000_000_000
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OFFSET_NS = 1_767_225_600 * S


def test_a_moment_has_the_time_that_the_clock_showed_then() -> None:
    clock = WallClock()
    assert clock.note(0, OFFSET_NS) == 0
    assert clock.note(100 * S, OFFSET_NS + 3600 * S) == 3600 * S
    assert clock.note(200 * S, OFFSET_NS - 60 * S) == -3660 * S
    assert clock.at(99 * S) == NEW_YEAR + timedelta(seconds=99)
    assert clock.at(100 * S) == NEW_YEAR + timedelta(hours=1, seconds=100)
    assert clock.at(199 * S) == NEW_YEAR + timedelta(hours=1, seconds=199)
    assert clock.at(300 * S) == NEW_YEAR + timedelta(seconds=240)
    assert clock.at(-50 * S) == NEW_YEAR - timedelta(seconds=50), "before the first look: the first offset"


def test_the_noise_of_reading_two_clocks_is_no_step() -> None:
    clock = WallClock()
    clock.note(0, OFFSET_NS)
    for number in range(1, 1000):
        assert clock.note(number * S, OFFSET_NS + (-1) ** number * (STEP_NS - 1)) == 0
    assert clock.at(999 * S) == NEW_YEAR + timedelta(seconds=999)
    assert clock.note(1000 * S, OFFSET_NS + STEP_NS) == STEP_NS


def test_a_step_that_a_thread_tells_late_is_in_force_from_what_others_have_told_on() -> None:
    clock = WallClock()
    clock.note(100 * S, OFFSET_NS)
    assert clock.note(90 * S, OFFSET_NS + 3600 * S) == 3600 * S
    assert clock.at(95 * S) == NEW_YEAR + timedelta(seconds=95)
    assert clock.at(101 * S) == NEW_YEAR + timedelta(hours=1, seconds=101)


def test_a_clock_that_never_rests_does_not_fill_the_memory() -> None:
    clock = WallClock()
    for number in range(MAX_STEPS + 500):
        clock.note(number * S, OFFSET_NS + number * S)
    assert [len(column) for column in clock._steps] == [MAX_STEPS] * 2
    assert clock.at(0) == NEW_YEAR + timedelta(seconds=500), "the earliest that is remembered"
    assert clock.at((MAX_STEPS + 499) * S) == NEW_YEAR + timedelta(seconds=2 * (MAX_STEPS + 499))


def test_nothing_is_known_before_the_first_look() -> None:
    with pytest.raises(LookupError):
        WallClock().at(0)


@pytest.mark.parametrize(
    "moment",
    [
        "1970-01-01T00:00:00.000000Z",
        "2026-03-29T01:59:59.999999Z",  # the night in which Europe's clocks leave out an hour
        "2026-10-25T00:30:00.000001Z",  # and that in which they show one twice
        "2038-01-19T03:14:08.000001Z",  # 2^31 s
        "2106-02-07T06:28:16.123456Z",  # 2^32 s
        "2261-12-31T23:59:59.999999Z",  # the end of the kernel's own nanoseconds
    ],
)
@pytest.mark.parametrize("uptime_ns", [0, 2**31 * 1_000_000 + 1, 2**53 + 1, 400 * 86_400 * S + 1])
def test_times_are_right_to_the_microsecond(moment: str, uptime_ns: int) -> None:
    expected = datetime.fromisoformat(moment)
    since_1970_us = (expected - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    clock = WallClock()
    clock.note(uptime_ns, since_1970_us * 1000 - uptime_ns)
    assert clock.at(uptime_ns) == expected
    assert clock.at(uptime_ns + 1000) == expected + timedelta(microseconds=1)
    assert iso(clock.at(uptime_ns)) == moment


@given(
    steps=st.lists(st.tuples(st.integers(0, 10**18), st.integers(0, 4 * 10**18)), min_size=1, max_size=20),
    moments=st.lists(st.integers(0, 10**18), min_size=2, max_size=20),
)
def test_between_two_steps_spans_keep_their_order(steps: list[tuple[int, int]], moments: list[int]) -> None:
    clock = WallClock()
    steps.sort()
    for now_ns, offset_ns in steps:
        clock.note(now_ns, offset_ns)
    for early, late in zip(sorted(moments), sorted(moments)[1:], strict=False):
        if not any(early < now_ns <= late for now_ns, _ in steps):
            assert clock.at(early) <= clock.at(late)


def test_the_closest_of_a_few_readings_counts() -> None:
    # The process waits between the two clocks in the first and the last reading.
    ticks = iter([0, 5_000_000, 10_000_000, 10_000_010, 20_000_000, 29_000_000])
    walls = iter([OFFSET_NS + 4_900_000, OFFSET_NS + 10_000_005, OFFSET_NS + 28_000_000])
    assert read_utc_offset_ns(lambda: next(ticks), lambda: next(walls)) == OFFSET_NS


_ZONED = """
import time
from datetime import datetime
from llmpower.daemon.clock import WallClock
from llmpower.store.rows import iso
clock = WallClock()
clock.note(0, 1_774_746_000 * 10**9)
print(time.tzname[0], *(iso(clock.at(hour * 3600 * 10**9)) for hour in range(3)))
"""


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "XXX-14:37:11", "Pacific/Apia"])
def test_the_machines_time_zone_does_not_matter(zone: str) -> None:
    command, environ = [sys.executable, "-c", _ZONED], {**os.environ, "TZ": zone}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    _, *times = done.stdout.split()
    # Through the night in which Berlin goes from 01:59 to 03:00.
    assert times == [f"2026-03-29T0{hour}:00:00.000000Z" for hour in (1, 2, 3)]


def test_a_time_of_day_is_taken_back_to_the_moment_at_which_it_was_shown() -> None:
    clock = WallClock()
    clock.note(0, OFFSET_NS)
    clock.note(100 * S, OFFSET_NS + 3600 * S)
    clock.note(200 * S, OFFSET_NS)
    assert clock.moment_ns(OFFSET_NS + 50 * S, 300 * S) == 50 * S
    assert clock.moment_ns(OFFSET_NS + 3600 * S + 150 * S, 300 * S) == 150 * S, (
        "by the clock that was wrong for a while"
    )
    assert clock.moment_ns(OFFSET_NS + 3600 * S + 150 * S, 5000 * S) == 3750 * S, "shown again since"
    assert clock.moment_ns(OFFSET_NS + 250 * S, 300 * S) == 250 * S
    assert clock.moment_ns(OFFSET_NS + 1800 * S, 300 * S) == 100 * S, "skipped, and not shown again yet"
    assert clock.moment_ns(OFFSET_NS - 50 * S, 300 * S) == -50 * S, "before the first look: the first offset"
    assert clock.moment_ns(OFFSET_NS + 9000 * S, 300 * S) == 9000 * S, "to come"


def test_a_time_that_was_shown_twice_or_never() -> None:
    clock = WallClock()
    clock.note(0, OFFSET_NS)
    clock.note(100 * S, OFFSET_NS - 30 * S)
    assert clock.moment_ns(OFFSET_NS + 80 * S, 200 * S) == 110 * S, "set back: the later of the two"
    assert clock.moment_ns(OFFSET_NS + 80 * S, 105 * S) == 80 * S, "which has not come yet"
    assert clock.moment_ns(OFFSET_NS + 60 * S, 200 * S) == 60 * S
    forward = WallClock()
    forward.note(0, OFFSET_NS)
    forward.note(100 * S, OFFSET_NS + 30 * S)
    assert forward.moment_ns(OFFSET_NS + 120 * S, 200 * S) == 100 * S, "set forward past it: the moment of that"


def test_no_time_of_day_is_taken_back_before_the_first_look() -> None:
    with pytest.raises(LookupError):
        WallClock().moment_ns(OFFSET_NS, 0)


@given(
    steps=st.lists(st.tuples(st.integers(1, 1000), st.integers(-5000, 5000).filter(bool)), max_size=8),
    seconds=st.integers(0, 10_000),
)
def test_a_moment_taken_there_and_back_shows_the_same_time(steps: list[tuple[int, int]], seconds: int) -> None:
    clock = WallClock()
    since_ns, offset_ns = 0, OFFSET_NS
    clock.note(since_ns, offset_ns)
    for after_s, by_s in steps:
        since_ns, offset_ns = since_ns + after_s * S, offset_ns + by_s * S
        clock.note(since_ns, offset_ns)
    shown = clock.at(seconds * S)
    moment_ns = clock.moment_ns(round((shown - EPOCH).total_seconds()) * S, 10_000 * S)
    assert 0 <= moment_ns <= 10_000 * S
    # At a step itself the clock shows both.
    assert shown in (clock.at(moment_ns), clock.at(moment_ns - 1) + timedelta(microseconds=1))
