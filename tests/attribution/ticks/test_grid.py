"""Moments of a counter on a grid, from edges that are seen roughly and now and then."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.attribution.ticks.edges import Edges
from llmpower.attribution.ticks.grid import FEWEST, JITTER_S, MEMORY, Grid
from llmpower.types import SLOW_READ_NS

MS = 1_000_000
PERIOD_NS = 100_001_400
START_NS = 37 * MS


def moment_ns(number: int) -> int:
    return START_NS + number * PERIOD_NS


def taught(widths_ms: list[float], early_ms: list[float], numbers: list[int]) -> Grid:
    """A grid that has seen these moments, each at most so long before the end of an interval so wide."""
    grid = Grid()
    for number, width_ms, early in zip(numbers, widths_ms, early_ms, strict=True):
        high_ns = moment_ns(number) + round(early * width_ms * MS)
        grid.learn(high_ns - round(width_ms * MS), high_ns)
    return grid


def at_first(width_ms: float = 8.0) -> Grid:
    return taught([width_ms] * FEWEST, [0.3] * FEWEST, list(range(FEWEST)))


def test_a_midway_read_tells_the_moment_before_it() -> None:
    grid = at_first()
    before_ns = moment_ns(12) + 50 * MS
    first_ns, last_ns = grid.place(moment_ns(8) + 50 * MS, before_ns, before_ns + 3 * MS) or (0, 0)
    assert first_ns < moment_ns(12) < last_ns
    assert last_ns - first_ns < 30 * MS


@pytest.mark.parametrize("into_ms", [0.5, 98.0])
def test_a_midway_read_too_close_to_a_moment_tells_none(into_ms: float) -> None:
    grid = at_first()
    before_ns = moment_ns(10) + round(into_ms * MS)
    assert grid.place(moment_ns(8) + 50 * MS, before_ns, before_ns + 3 * MS) is None


def test_nothing_is_told_before_enough_edges_nor_long_after_the_last() -> None:
    before_ns = moment_ns(9) + 50 * MS
    few = taught([8.0] * (FEWEST - 1), [0.3] * (FEWEST - 1), list(range(FEWEST - 1)))
    assert few.place(before_ns - 100 * MS, before_ns, before_ns + MS) is None
    before_ns = moment_ns(900) + 50 * MS
    assert at_first().place(before_ns - 100 * MS, before_ns, before_ns + MS) is None


@pytest.mark.parametrize("late_ms", [10, 30, 45])
def test_a_move_beside_the_grid_is_no_edge_of_it(late_ms: int) -> None:
    grid = at_first()
    middle_ns = moment_ns(FEWEST - 1) + late_ms * MS
    grid.learn(middle_ns - 4 * MS, middle_ns + 4 * MS)
    assert grid.period_ns == pytest.approx(PERIOD_NS, rel=0.02)


def test_edges_on_no_line_tell_none() -> None:
    grid = Grid()
    for number in range(4 * FEWEST):
        middle_ns = moment_ns(number) + (number * 7919 % 97 - 48) * MS
        grid.learn(middle_ns - MS, middle_ns + MS)
    assert grid.period_ns is None


def test_a_line_that_is_long_followed_is_known_well() -> None:
    numbers = [*range(FEWEST), *(FEWEST * 2**k for k in range(1, 8))]
    grid = taught([12.0] * len(numbers), [0.4] * len(numbers), numbers)
    assert grid.period_ns == pytest.approx(PERIOD_NS, abs=2e4)


@given(
    widths_ms=st.lists(st.floats(1.0, 24.0), min_size=FEWEST, max_size=MEMORY + 8),
    early=st.lists(st.floats(0.0, 1.0), min_size=MEMORY + 8, max_size=MEMORY + 8),
    steps=st.lists(st.integers(1, 3), min_size=MEMORY + 8, max_size=MEMORY + 8),
    jitter_ms=st.lists(st.floats(-1.0, 1.0), min_size=MEMORY + 8, max_size=MEMORY + 8),
    ahead=st.integers(0, 40),
    into_ms=st.floats(0.0, 99.0),
)
def test_what_is_told_is_true(
    widths_ms: list[float],
    early: list[float],
    steps: list[int],
    jitter_ms: list[float],
    ahead: int,
    into_ms: float,
) -> None:
    grid, number = Grid(), 0
    for index, width_ms in enumerate(widths_ms):
        number = index if index < FEWEST else number + steps[index]
        high_ns = moment_ns(number) + round((early[index] * width_ms + jitter_ms[index]) * MS)
        grid.learn(high_ns - round(width_ms * MS), high_ns)
    before_ns = moment_ns(number + ahead) + round(into_ms * MS)
    placed = grid.place(before_ns - 250 * MS, before_ns, before_ns + 3 * MS)
    if placed:
        slack_ns = round(JITTER_S * 1e9)
        assert placed[0] - slack_ns <= moment_ns(number + ahead) <= placed[1] + slack_ns


def test_edges_of_slow_reads_lie_on_the_line() -> None:
    edges, call_ns, energy_j = Edges(), 3 * MS, 0.0
    assert call_ns > SLOW_READ_NS
    # Close looks at first, then a read midway in every third tick.
    times_ns = [START_NS + step * 5 * MS for step in range(20 * FEWEST)]
    times_ns += [moment_ns(FEWEST + 2 + 3 * k) + PERIOD_NS // 2 for k in range(4)]
    numbers = [(time_ns - START_NS) // PERIOD_NS for time_ns in times_ns]
    before_ns = np.array(times_ns)
    edges.extend(before_ns, before_ns + call_ns, energy_j + 10.0 * np.array(numbers, np.float64))
    for middle_ns, width_ns in zip(edges.middle_ns[-3:], edges.width_ns[-3:], strict=True):
        off_ns = (middle_ns - START_NS) % PERIOD_NS
        assert min(off_ns, PERIOD_NS - off_ns) <= width_ns / 2 < 30 * MS
