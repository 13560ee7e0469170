from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmpower.profiling.stopping import StoppingRule, half_width_s

runtimes = st.lists(st.floats(1e-3, 100), min_size=2, max_size=30)


def test_the_half_width_of_a_small_sample_by_hand() -> None:
    # s = 1, n = 3, t(0.975, 2) = 4.302653
    assert half_width_s([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


@given(runtimes)
def test_the_half_width_is_that_of_the_t_interval(runtimes_s: list[float]) -> None:
    scale = stats.sem(runtimes_s)
    if scale == 0:
        assert half_width_s(runtimes_s) == pytest.approx(0, abs=1e-12)
        return
    low, high = stats.t.interval(0.95, len(runtimes_s) - 1, loc=0, scale=scale)
    assert half_width_s(runtimes_s) == pytest.approx((high - low) / 2, rel=1e-6)


def test_one_trial_has_no_interval() -> None:
    assert half_width_s([]) is None
    assert half_width_s([1.0]) is None


def test_a_cell_stops_at_a_narrow_interval_and_not_before_its_least_trials() -> None:
    rule = StoppingRule(ci_half_width_s=0.5, max_trials=25, min_trials=3)
    assert not rule.is_enough([1.0, 1.0])
    assert rule.is_enough([1.0, 1.0, 1.0])
    assert not rule.is_enough([1.0, 2.0, 3.0])


def test_a_cell_stops_at_its_most_trials_however_wide() -> None:
    rule = StoppingRule(ci_half_width_s=0.0, max_trials=4, min_trials=3)
    assert not rule.is_enough([1.0, 9.0, 1.0])
    assert rule.is_enough([1.0, 9.0, 1.0, 9.0])
    assert not rule.is_narrow([1.0, 9.0, 1.0, 9.0])
    assert StoppingRule(max_trials=1).is_enough([1.0])


@given(st.lists(st.floats(1e-3, 100), max_size=30))
def test_the_trials_expected_are_within_the_rule(runtimes_s: list[float]) -> None:
    rule = StoppingRule()
    expected = rule.expected_trials(runtimes_s)
    if rule.is_enough(runtimes_s):
        assert expected == len(runtimes_s)
    else:
        assert max(len(runtimes_s) + 1, rule.min_trials) <= expected <= rule.max_trials


def test_the_trials_expected_follow_from_the_spread() -> None:
    # s = 0.7071: t(0.975, 9)·s/√10 = 0.506 and t(0.975, 10)·s/√11 = 0.475
    assert StoppingRule().expected_trials([1.0, 2.0]) == 11
