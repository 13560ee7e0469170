"""The chart: what it says of steady traffic, of traffic that errs together, and of a shift."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.daemon.comparing.drift import BLOCK_S, BLOCK_SPANS, MIN_BLOCKS, MIN_NOISE_BLOCKS, WEIGHT, Chart

S = 1_000_000_000


def charted(blocks: np.ndarray[tuple[int], np.dtype[np.float64]], tolerance: float = 0.0) -> Chart:
    chart = Chart(tolerance)
    for y in blocks.tolist():
        chart.add_block(y)
    return chart


def noise(seed: int, n: int, ρ: float = 0.0, σ: float = 0.02) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """An autoregressive process of first order, of standard deviation σ."""
    steps = np.random.default_rng(seed).normal(size=n)
    y = np.empty(n)
    y[0] = steps[0]
    for t in range(1, n):
        y[t] = ρ * y[t - 1] + math.sqrt(1 - ρ**2) * steps[t]
    return σ * y


def test_requests_fill_blocks_of_enough_time_and_enough_requests() -> None:
    chart = Chart(0.05)
    for number in range(BLOCK_SPANS - 1):
        chart.add(0.1, round(number * BLOCK_S * S))
    assert (chart.spans, chart.blocks) == (BLOCK_SPANS - 1, 0), "long enough, and too few"
    chart.add(0.1, round(BLOCK_SPANS * BLOCK_S * S))
    assert (chart.spans, chart.blocks) == (BLOCK_SPANS, 1)
    for number in range(1000):
        chart.add(0.1, 10**15 + number * S // 1000)
    assert chart.blocks == 1, "enough of them, and all within a second"


def test_the_mean_is_there_from_the_first_request() -> None:
    chart = Chart(0.05)
    assert chart.mean is None
    chart.add(0.2, 0)
    chart.add(0.4, S)
    assert chart.mean == pytest.approx(0.3)
    assert (chart.std_error, chart.drifted) == (None, False)


def test_it_begins_as_a_plain_mean_and_forgets_afterwards() -> None:
    y = noise(1, 300)
    assert charted(y[:15]).mean == pytest.approx(y[:15].mean())
    expected = y[:20].mean()
    for value in y[20:]:
        expected += WEIGHT * (value - expected)
    assert charted(y).mean == pytest.approx(expected)


def test_the_standard_error_is_that_of_the_mean_and_errs_upwards() -> None:
    """Against the scatter of the means of 300 courses, for blocks that are independent and for some that are not."""
    for ρ, most in ((0.0, 1.6), (0.5, 2.0)):
        charts = [charted(noise(seed, 200, ρ)) for seed in range(300)]
        scatter = float(np.std([chart.mean or 0.0 for chart in charts]))
        stated = float(np.median([chart.std_error or 0.0 for chart in charts]))
        assert 1.0 < stated / scatter < most


def test_before_the_noise_is_known_nothing_is_said() -> None:
    y = 1.0 + noise(2, MIN_BLOCKS)
    for n in range(1, MIN_BLOCKS):
        chart = charted(y[:n])
        assert not chart.drifted
        assert (chart.std_error is not None) == (n >= MIN_NOISE_BLOCKS)
    assert charted(y).drifted


@pytest.mark.parametrize("ρ", [0.0, 0.5])
def test_traffic_as_far_off_as_the_model_claims_raises_no_alarm(ρ: float) -> None:
    """The worst case: the mean lies on the edge. 40 courses of a day, where one alarm in some hundred days is due."""
    alarms = 0
    for seed in range(40):
        chart = Chart(0.05)
        for y in (0.05 + noise(seed, 1440 // 4, ρ)).tolist():
            chart.add_block(y)
            alarms += chart.drifted
    assert alarms == 0


@pytest.mark.parametrize(("ρ", "within"), [(0.0, 40), (0.5, 120)])
def test_a_shift_beyond_the_tolerance_is_found(ρ: float, within: int) -> None:
    """By three standard deviations of a block beyond what the model claims, up or down."""
    for seed in range(20):
        sign = 1 if seed % 2 else -1
        chart = charted(noise(seed, 100, ρ), tolerance=0.05)
        assert not chart.drifted
        found = None
        for number, y in enumerate((sign * 0.11 + noise(1000 + seed, 200, ρ)).tolist()):
            chart.add_block(y)
            if chart.drifted:
                found = number
                break
        assert found is not None
        assert found < within, seed


def test_a_shift_does_not_hide_in_the_noise_that_it_makes() -> None:
    chart = charted(noise(3, 200), tolerance=0.05)
    before = chart.std_error
    for y in (5.0 + noise(4, 30)).tolist():
        chart.add_block(y)
    assert before is not None
    assert chart.drifted


def test_what_has_come_back_is_no_drift() -> None:
    chart = charted(np.concatenate([noise(5, 100), 0.3 + noise(6, 60)]), tolerance=0.05)
    assert chart.drifted
    for y in noise(7, 200).tolist():
        chart.add_block(y)
    assert not chart.drifted


@given(st.lists(st.floats(-20, 20), max_size=60))
def test_any_course_has_a_sound_state(blocks: list[float]) -> None:
    chart = charted(np.array(blocks))
    assert (chart.mean is None) == (not blocks)
    assert chart.mean is None or min(blocks) - 1e-9 <= chart.mean <= max(blocks) + 1e-9
    assert chart.std_error is None or (math.isfinite(chart.std_error) and chart.std_error > 0)
