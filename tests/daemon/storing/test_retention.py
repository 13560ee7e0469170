from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.daemon.storing.retention import DOUBT_S, LEAP_S, MIN_AGE_S, Reckoning, parse_age, parse_size
from llmpower.exceptions import InputError

DAY_S = 86_400
YEAR_S = 365 * DAY_S
NOW_S = 1_767_225_600.0


@pytest.mark.parametrize(
    ("text", "age_s"),
    [("90d", 90 * DAY_S), ("1y26w", YEAR_S + 182 * DAY_S), ("36h", 129_600), ("1y2w3d4h", 33_019_200), ("0", None)],
)
def test_ages(text: str, age_s: int | None) -> None:
    assert parse_age(text) == age_s


@pytest.mark.parametrize(
    "value",
    ["", "90", 90, "6m", "0h", "59s", "3d1w", "1d1d", "-1d", "1.5d", "1 d", "d", "101y", True, None, "٣d", "1d\n"],
)
def test_what_is_no_age(value: object) -> None:
    with pytest.raises(InputError, match="such as 90d or 1y26w") as caught:
        parse_age(value)
    assert (caught.value.field, caught.value.value) == ("retention.time", value)


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("2GB", 2 << 30), ("500MB", 500 << 20), ("1TB", 1 << 40), ("1MB", 1 << 20), (0, None)]
)
def test_sizes(text: object, size_bytes: int | None) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "value",
    ["", "2", 2, "2G", "2gb", "1KB", "0GB", "-1GB", "1.5GB", "2 GB", "GB", "9999999PB", False, None, "٣GB", "1GB\n"],
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(InputError, match="such as 2GB") as caught:
        parse_size(value)
    assert (caught.value.field, caught.value.value) == ("retention.size", value)


@given(st.one_of(st.text(max_size=20), st.from_regex(r"\A[0-9]{1,12}[ywdhmsMGTPB]{1,2}\Z"), st.integers(), st.none()))
def test_anything_is_a_limit_or_an_input_error(value: object) -> None:
    for parse, least in ((parse_age, MIN_AGE_S), (parse_size, 1 << 20)):
        try:
            limit = parse(value)
        except InputError:
            continue
        assert limit is None or limit >= least


@given(st.lists(st.integers(0, 99), min_size=4, max_size=4))
def test_an_age_is_the_sum_of_its_parts(numbers: list[int]) -> None:
    seconds = sum(n * unit for n, unit in zip(numbers, (YEAR_S, 7 * DAY_S, DAY_S, 3600), strict=True))
    text = "".join(f"{n}{unit}" for n, unit in zip(numbers, "ywdh", strict=True))
    if 3600 <= seconds <= 100 * YEAR_S:
        assert parse_age(text) == seconds


class Clock:
    """A wall clock, and the reckoning looked at every hour."""

    def __init__(self, reckoning: Reckoning | None = None) -> None:
        self.reckoning = reckoning or Reckoning()
        self.utc_s, self.uptime_s = NOW_S, 500.0

    def look(self, passed_s: float = 3600.0, step_s: float = 0.0) -> float:
        self.utc_s += passed_s + step_s
        self.uptime_s += passed_s
        return self.reckoning.now_s(self.utc_s, self.uptime_s)

    def restart(self) -> None:
        """What a new daemon knows, on a machine booted again."""
        assert self.reckoning.believed_s is not None
        self.reckoning = Reckoning(int(self.reckoning.believed_s), int(self.reckoning.doubted_s))
        self.uptime_s = 20.0


def test_an_ordinary_clock_is_believed() -> None:
    clock = Clock()
    for _ in range(1000):
        assert clock.look() == clock.utc_s
        assert clock.reckoning.ahead_s == 0.0
    # What time synchronisation does.
    assert clock.look(step_s=300.0) == clock.utc_s
    assert clock.look(step_s=-300.0) == clock.utc_s


def test_a_clock_a_year_ahead_is_believed_after_three_days_of_it() -> None:
    clock = Clock()
    clock.look()
    believed_s = clock.look(step_s=YEAR_S)
    assert believed_s == clock.utc_s - YEAR_S
    assert clock.reckoning.ahead_s == YEAR_S
    # The leap was made in the hour before the first look.
    for hour in range(2, int(DOUBT_S / 3600)):
        assert clock.look() == believed_s + (hour - 1) * 3600, "time goes on, from where it was"
    assert clock.look() == clock.utc_s
    assert clock.reckoning.ahead_s == 0.0


def test_a_clock_that_is_put_right_in_time_has_harmed_nothing() -> None:
    clock = Clock()
    clock.look()
    for step_s in (YEAR_S, 0.0, 0.0, -YEAR_S):
        assert clock.look(step_s=step_s) < NOW_S + 10 * 3600
    assert clock.look() == clock.utc_s
    assert clock.reckoning.ahead_s == clock.reckoning.doubted_s == 0.0


def test_a_clock_that_falls_back_makes_nothing_older_then_or_when_it_returns() -> None:
    clock = Clock()
    clock.look()
    assert clock.look(step_s=-50 * YEAR_S) == clock.utc_s
    assert clock.look() == clock.utc_s
    assert clock.look(step_s=50 * YEAR_S) == clock.utc_s, "where it was before is no leap"
    assert clock.reckoning.ahead_s == 0.0


def test_restarts_neither_hide_a_leap_nor_begin_the_doubt_anew() -> None:
    clock = Clock()
    clock.look()
    looks = 0
    clock.look(step_s=YEAR_S)
    while clock.look() < clock.utc_s:
        clock.restart()
        clock.look(60.0)
        looks += 1
        assert looks < 200
    # The minute before the first look after a restart is not known to have passed.
    assert looks == pytest.approx(DOUBT_S / 3600, abs=2)


def test_a_machine_that_was_off_for_a_month_waits_three_days() -> None:
    clock = Clock()
    clock.look()
    clock.restart()
    assert clock.look(30.0, step_s=30 * DAY_S) < clock.utc_s - 29 * DAY_S
    for _ in range(int(DOUBT_S / 3600)):
        clock.look()
    assert clock.look() == clock.utc_s


@given(
    st.lists(
        st.tuples(st.floats(0, 1e6), st.one_of(st.just(0.0), st.floats(-1e9, 1e9))),
        max_size=60,
    )
)
def test_what_is_believed_never_runs_ahead_of_either_clock(looks: list[tuple[float, float]]) -> None:
    clock = Clock()
    previous_s = clock.look(0.0)
    doubted_s = 0.0
    for passed_s, step_s in looks:
        now_s = clock.look(passed_s, step_s)
        assert now_s <= clock.utc_s + 1e-3
        if now_s > previous_s + passed_s + LEAP_S + 1e-3:
            # A leap: seen before, and doubted for long enough; or only back to where time was already.
            assert doubted_s + passed_s >= DOUBT_S or now_s <= clock.reckoning.believed_s + 1e-3  # type: ignore[operator]
        doubted_s = clock.reckoning.doubted_s
        previous_s = now_s
