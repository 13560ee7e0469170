from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmpower.profiling.readings import Joules, Readings
from llmpower.profiling.stopping import StoppingRule, half_width


def took(*runtimes_s: float) -> Readings:
    """Trials of which only the runtimes are known."""
    return Readings(list(runtimes_s), [None] * len(runtimes_s))


def cost(*energies_j: float, std_j: float = 0.0) -> Readings:
    """Trials of a second each."""
    return Readings([1.0] * len(energies_j), [Joules(energy_j, std_j) for energy_j in energies_j])


runtimes = st.lists(st.floats(1e-3, 100), min_size=2, max_size=30)


def test_the_half_width_of_a_small_sample_by_hand() -> None:
    # s = 1, n = 3, t(0.975, 2) = 4.302653
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


@given(runtimes)
def test_the_half_width_is_that_of_the_t_interval(runtimes_s: list[float]) -> None:
    scale = stats.sem(runtimes_s)
    if scale == 0:
        assert half_width(runtimes_s) == pytest.approx(0, abs=1e-12)
        return
    low, high = stats.t.interval(0.95, len(runtimes_s) - 1, loc=0, scale=scale)
    assert half_width(runtimes_s) == pytest.approx((high - low) / 2, rel=1e-6)


def test_one_trial_has_no_interval() -> None:
    assert half_width([]) is None
    assert half_width([1.0]) is None


def test_a_cell_stops_at_a_narrow_interval_and_not_before_its_least_trials() -> None:
    rule = StoppingRule(ci_half_width_s=0.5, max_trials=25, min_trials=3)
    assert not rule.is_enough(took(1.0, 1.0))
    assert rule.is_enough(took(1.0, 1.0, 1.0))
    assert not rule.is_enough(took(1.0, 2.0, 3.0))


def test_a_cell_stops_at_its_most_trials_however_wide() -> None:
    rule = StoppingRule(ci_half_width_s=0.0, max_trials=4, min_trials=3)
    assert not rule.is_enough(took(1.0, 9.0, 1.0))
    assert rule.is_enough(took(1.0, 9.0, 1.0, 9.0))
    assert not rule.is_narrow(took(1.0, 9.0, 1.0, 9.0))
    assert StoppingRule(max_trials=1).is_enough(took(1.0))


@given(st.lists(st.floats(1e-3, 100), max_size=30))
def test_the_trials_expected_are_within_the_rule(runtimes_s: list[float]) -> None:
    rule = StoppingRule()
    expected = rule.expected_trials(took(*runtimes_s))
    if rule.is_enough(took(*runtimes_s)):
        assert expected == len(runtimes_s)
    else:
        assert max(len(runtimes_s) + 1, rule.min_trials) <= expected <= rule.max_trials


def test_the_trials_expected_follow_from_the_spread() -> None:
    # s = 0.7071: t(0.975, 9)·s/√10 = 0.506 and t(0.975, 10)·s/√11 = 0.475
    assert StoppingRule().expected_trials(took(1.0, 2.0)) == 11


BY_ENERGY = StoppingRule(ci_half_width_s=None, energy_precision=0.05, max_trials=10)


def test_a_cell_stops_when_its_energy_is_known_to_a_part_of_itself() -> None:
    # s = 1 at 100 J: h = 4.302653/√3 = 2.48 J, which is 2.5 %; the same at 10 J is 25 %
    assert BY_ENERGY.is_enough(cost(99, 100, 101))
    assert not BY_ENERGY.is_enough(cost(9, 10, 11))
    assert BY_ENERGY.is_enough(cost(9000, 10000, 11000, *[10000.0] * 20))


def test_no_cell_is_known_better_than_the_meter_knows_its_trials() -> None:
    assert BY_ENERGY.is_enough(cost(100, 100, 100))
    # u = 3 J: h = 4.302653·3/√3 = 7.45 J
    assert not BY_ENERGY.is_narrow(cost(100, 100, 100, std_j=3.0))


def test_energies_that_are_not_known_do_not_end_a_cell_before_its_most_trials() -> None:
    assert not BY_ENERGY.is_enough(took(*[1.0] * 9))
    assert BY_ENERGY.is_enough(took(*[1.0] * 10))


def test_both_rules_ask_for_both() -> None:
    both = StoppingRule(ci_half_width_s=0.5, energy_precision=0.05)
    wide_in_time = Readings([1.0, 2.0, 3.0], [Joules(100.0), Joules(100.0), Joules(100.0)])
    assert not both.is_narrow(wide_in_time)
    assert not both.is_narrow(cost(9, 10, 11))
    assert both.is_narrow(cost(100, 100, 101))


def test_without_a_rule_a_cell_has_its_least_trials() -> None:
    rule = StoppingRule(ci_half_width_s=None, min_trials=4)
    assert [rule.is_enough(took(*[1.0] * n)) for n in (3, 4)] == [False, True]


@given(st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(0, 1e3)), max_size=30))
def test_the_trials_that_energy_asks_for_are_within_the_rule(trials: list[tuple[float, float]]) -> None:
    readings = Readings([1.0] * len(trials), [Joules(*trial) for trial in trials])
    expected = BY_ENERGY.expected_trials(readings)
    if BY_ENERGY.is_enough(readings):
        assert expected == len(trials)
    else:
        assert len(trials) < expected <= BY_ENERGY.max_trials
