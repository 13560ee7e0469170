"""Energy from power: which sensor it is, work that nobody saw, holes, and very many cuts."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from llmpower.attribution.readings.history import PAST_S, History
from llmpower.attribution.readings.power import PowerSeries
from llmpower.attribution.readings.reconstruction import Known, reconstruct
from llmpower.attribution.readings.roughness import Roughness
from llmpower.attribution.readings.sensor import Sensor
from llmpower.attribution.readings.updates import Updates
from llmpower.attribution.series import IDLE, Regime

SECOND = 1_000_000_000
WORK = Regime("busy", ("m",))
IDLE_W, WORK_W = 60.0, 400.0


def show(
    sensor: Sensor,
    cuts_s: list[float],
    powers_w: list[float],
    end_s: float,
    *,
    period_s: float = 0.1,
    jitter_s: float = 0.0,
) -> Callable[[float], float]:
    """What the sensor shows, from power that steps at the cuts; each reading is off in time by the jitter or so."""
    updates_s = np.arange(0.0, end_s, period_s)
    covered_s = updates_s + jitter_s * np.random.default_rng(0).standard_normal(len(updates_s))
    shown_w = sensor.shares(covered_s, np.array([*cuts_s, end_s])) @ np.array(powers_w)
    return lambda time_s: float(shown_w[np.searchsorted(updates_s, time_s, side="right") - 1])


def read(
    series: PowerSeries,
    shown_w: Callable[[float], float],
    start_s: float,
    end_s: float,
    *,
    every_s: float = 0.01,
    phase: float = 0.3,
) -> None:
    times_s = np.arange(start_s, end_s, every_s) + phase * every_s
    times_ns = (times_s * SECOND).astype(np.int64)
    series.extend(times_ns, times_ns + 20_000, np.array([round(shown_w(t), 3) for t in times_s]))


def spans_of(duration_s: float, count: int, every_s: float = 1.337) -> list[float]:
    """Bounds of spans, the first after two seconds."""
    return [2 + number * every_s + at_s for number in range(count) for at_s in (0.0, duration_s)]


def measured_j(series: PowerSeries, bounds_s: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Energy of the spans between pairs of bounds, and its deviation; settled half a second at a time."""
    found_j, stds_j = [], []
    cuts_ns = [round(each * SECOND) for each in bounds_s]
    low_ns = series.floor_ns(SECOND)
    assert low_ns is not None
    series.readings([low_ns], [])
    for start_ns, end_ns in zip(cuts_ns[::2], cuts_ns[1::2], strict=True):
        high_ns = series.floor_ns(end_ns + SECOND // 2)
        assert high_ns is not None
        _, start, end, _ = series.readings([low_ns, start_ns, end_ns, high_ns], [IDLE, WORK, IDLE])
        assert start is not None
        assert end is not None
        found_j.append(end.energy_j - start.energy_j)
        var_j2 = start.boundary_var_j2 + end.boundary_var_j2 + end.path_var_j2 - start.path_var_j2
        stds_j.append(var_j2**0.5)
        low_ns = high_ns
    return np.array(found_j), np.array(stds_j)


@pytest.mark.parametrize(
    ("sensor", "period_s"),
    [
        (Sensor(0.025, 0.025), 0.1),
        (Sensor(0.01, 0.03), 0.02),
        (Sensor(0.1, 0.005), 0.1),
        (Sensor(0.1, 0.08), 0.1),
        (Sensor(1.0, 0.005), 0.1),
    ],
    ids=["A100", "V100", "RTX 4090", "RTX 2080 Ti", "one-second mean"],
)
def test_whatever_the_sensor_spans_get_their_own_joules(sensor: Sensor, period_s: float) -> None:
    bounds_s = spans_of(0.25, 8)
    end_s = bounds_s[-1] + 2.5
    series = PowerSeries()
    shown_w = show(sensor, [0.0, *bounds_s], [IDLE_W, *[WORK_W, IDLE_W] * 8], end_s, period_s=period_s)
    read(series, shown_w, 0.0, end_s)
    found_j, std_j = measured_j(series, bounds_s)
    # The first three teach which sensor this is.
    assert found_j[3:] == pytest.approx(0.25 * WORK_W, rel=0.05)
    assert (np.abs(found_j - 0.25 * WORK_W) <= 4 * std_j)[3:].all()


def test_a_sensor_that_keeps_its_times_is_believed_to_once_it_has_shown_that() -> None:
    bounds_s = spans_of(0.1, 12)
    sensor, powers_w = Sensor(0.01, 0.03), [IDLE_W, *[WORK_W, IDLE_W] * 12]
    found: dict[float, tuple[np.ndarray, np.ndarray]] = {}
    for jitter_s in (0.0, 0.008):
        series = PowerSeries()
        shown_w = show(sensor, [0.0, *bounds_s], powers_w, 20.0, period_s=0.02, jitter_s=jitter_s)
        read(series, shown_w, 0.0, 20.0, every_s=0.001)
        found[jitter_s] = measured_j(series, bounds_s)
    exact_j, exact_std_j = (each[4:] / (0.1 * WORK_W) for each in found[0.0])
    jittering_j, jittering_std_j = (each[4:] / (0.1 * WORK_W) for each in found[0.008])
    assert exact_j == pytest.approx(1.0, abs=0.003)
    assert exact_std_j.max() < 0.01 < jittering_std_j.min()
    assert np.abs((jittering_j - 1) / jittering_std_j).max() < 3


@pytest.mark.parametrize("phase", [0.05, 0.5, 0.95])
def test_updates_that_are_all_seen_as_late_are_not_taken_to_err_each_for_itself(phase: float) -> None:
    bounds_s = [2 + number * 1.3371 + at_s for number in range(20) for at_s in (0.0, 0.15)]
    powers_w = [IDLE_W, *[WORK_W, IDLE_W] * 20]
    series = PowerSeries()
    shown_w = show(Sensor(0.01, 0.03), [0.0, *bounds_s], powers_w, 31.0, period_s=0.02, jitter_s=0.0005)
    read(series, shown_w, 0.0, 31.0, phase=phase)
    found_j, std_j = measured_j(series, bounds_s)
    assert (np.abs(found_j - 0.15 * WORK_W) < 2 * std_j)[5:].mean() > 0.9
    assert found_j[5:] == pytest.approx(0.15 * WORK_W, rel=0.03)


def test_updates_between_reads_far_apart_are_as_uncertain_as_that() -> None:
    updates = Updates()
    times_ns = np.array([0, 1, 2, 3, 103, 203], np.int64) * 1_000_000
    updates.extend(times_ns, times_ns, np.array([50.0, 50.0, 60.0, 60.0, 70.0, 80.0]))
    shown_s = np.array(updates.shown_ns) / SECOND
    std_s = dict(zip(shown_s.round(4).tolist(), updates.std_s, strict=True))
    assert std_s[0.0015] == pytest.approx(0.001 / np.sqrt(12))
    assert std_s[0.053] == std_s[0.153] == pytest.approx(0.1 / np.sqrt(12))


def test_work_that_the_sensor_did_not_see_draws_what_its_kind_has_shown_before() -> None:
    long_s, short_s = spans_of(0.3, 7), [12.0, 12.02]
    # The short one lies between the moments that two readings cover.
    end_s = 15.0
    bounds_s = [*long_s, *short_s]
    series = PowerSeries()
    sensor = Sensor(0.01, 0.005)
    read(series, show(sensor, [0.0, *bounds_s], [IDLE_W, *[WORK_W, IDLE_W] * 8], end_s), 0.0, end_s)
    found_j, std_j = measured_j(series, bounds_s)
    assert found_j[-1] == pytest.approx(0.02 * WORK_W, rel=0.05)
    assert std_j[-1] < 0.3 * found_j[-1]


def test_work_of_a_kind_that_was_never_seen_is_as_unsure_as_it_is() -> None:
    series = PowerSeries()
    read(series, show(Sensor(0.01, 0.005), [0.0, 4.02, 4.03], [IDLE_W, WORK_W, IDLE_W], 8.0), 0.0, 8.0)
    _, std_j = measured_j(series, [4.02, 4.03])
    assert std_j[0] > 0.1 * 0.01 * IDLE_W


@pytest.mark.parametrize("at_s", [4.0, 4.03, 4.09])
def test_a_card_at_rest_says_nothing_of_its_sensor(at_s: float) -> None:
    # So at the first request ever, which sensor it has is as uncertain as in the beginning.
    bounds_s = [at_s, at_s + 0.03]
    shown_w = show(Sensor(0.025, 0.03), [0.0, *bounds_s], [IDLE_W, WORK_W, IDLE_W], 6.0)
    series = PowerSeries()
    read(series, shown_w, 0.0, 0.5)
    settled_ns = series.known_since_ns
    assert settled_ns is not None
    for tenth in range(5, 39):
        read(series, shown_w, tenth / 10, (tenth + 1) / 10)
        floor_ns = series.floor_ns(tenth * SECOND // 10)
        if floor_ns is not None and floor_ns > settled_ns:
            series.readings([settled_ns, floor_ns], [IDLE])
            settled_ns = floor_ns
    read(series, shown_w, 3.9, 6.0)
    cuts_ns = [settled_ns, *(round(each * SECOND) for each in bounds_s), round((at_s + 0.05) * SECOND)]
    _, start, end, _ = series.readings(cuts_ns, [IDLE, WORK, IDLE])
    assert start is not None
    assert end is not None
    var_j2 = start.boundary_var_j2 + end.boundary_var_j2 + end.path_var_j2 - start.path_var_j2
    assert end.energy_j - start.energy_j == pytest.approx(0.03 * WORK_W, abs=2 * var_j2**0.5)
    assert end.energy_j - start.energy_j == pytest.approx(0.03 * WORK_W, rel=0.5)


def test_kinds_of_work_that_were_never_seen_alone_are_known_no_worse_than_unseen_ones() -> None:
    # As a server's queue grows each number of requests is a kind of its own, of which one reading shows the beginning
    # beside the kind before it, and the next one its end beside the kind after it.
    moments_s = np.arange(2.0, 14.0, 0.1) - 0.02
    powers_w = [IDLE_W, *np.linspace(200, 400, len(moments_s))]
    series = PowerSeries()
    read(series, show(Sensor(0.025, 0.025), [0.0, *moments_s], powers_w, 16.0), 0.0, 16.0)
    kinds = [IDLE, *(Regime("busy", (f"m {number}",)) for number in range(len(moments_s) - 1))]
    cuts_ns = [SECOND, *(moments_s * SECOND).astype(np.int64).tolist()]
    for first in range(0, len(cuts_ns) - 5, 5):
        readings = series.readings(cuts_ns[first : first + 6], kinds[first : first + 5])
        known = [reading for reading in readings if reading is not None]
        assert len(known) == 6
        for start, end, start_ns, end_ns in zip(known, known[1:], cuts_ns[first:], cuts_ns[first + 1 :], strict=False):
            # While the sensor's window and lag are not known yet much is possible.
            most_w = 800.0 if start_ns > 4 * SECOND else 2000.0
            assert 0 <= end.energy_j - start.energy_j < most_w * (end_ns - start_ns) / SECOND


def test_a_card_that_once_showed_megawatts_is_no_end() -> None:
    bounds_s, shown_s = np.linspace(0.0, 3.0, 121), np.arange(0.1, 3.0, 0.02)
    known = Known(*(np.full(120, each) for each in (3e6, 4e12, 1e12, 5.0, 0.0)))
    seen = reconstruct(
        Sensor(1.0, 0.005),
        bounds_s,
        np.zeros(120, np.int64),
        known,
        shown_s,
        np.zeros(len(shown_s)),
        0.0,
        np.zeros(len(shown_s)),
    )
    assert np.isfinite(seen.power_w).all()
    assert np.abs(seen.power_w[10:-10]).max() < 1e6


def test_nothing_bridges_a_hole_and_the_integral_begins_anew() -> None:
    series = PowerSeries()
    read(series, lambda _: 100.0, 0.0, 2.0)
    read(series, lambda _: 100.0, 5.0, 7.0)
    before, within, after, end = series.readings([SECOND, 3 * SECOND, round(5.5 * SECOND), 6 * SECOND], [IDLE] * 3)
    assert before is not None
    assert within is None
    assert after is not None
    assert end is not None
    assert before.epoch != after.epoch == end.epoch
    assert end.energy_j - after.energy_j == pytest.approx(50.0, rel=0.01)


def test_thousands_of_cuts_a_second_are_settled_in_small_chunks_and_add_up() -> None:
    series = PowerSeries()
    read(series, lambda _: 250.0, 0.0, 4.0)
    cuts_ns = np.linspace(SECOND, 3 * SECOND, 8001).astype(np.int64).tolist()
    readings = series.readings(cuts_ns, [WORK, IDLE] * 4000)
    energies_j = [reading.energy_j for reading in readings if reading is not None]
    assert len(energies_j) == len(cuts_ns)
    assert all(first < second for first, second in pairwise(energies_j))
    assert energies_j[-1] - energies_j[0] == pytest.approx(500.0, rel=0.01)
    assert all(each is not None and each.path_var_j2 >= 0 and each.boundary_var_j2 >= 0 for each in readings)


def test_what_is_told_of_the_energy_is_what_is_booked() -> None:
    bounds_s = spans_of(0.03, 1)
    series = PowerSeries()
    # The first work ever: no sensor is known to be the right one yet.
    read(series, show(Sensor(0.1, 0.03), [0.0, *bounds_s], [IDLE_W, WORK_W, IDLE_W], 6.0), 0.0, 6.0)
    low_ns, high_ns = series.floor_ns(SECOND), series.floor_ns(4 * SECOND)
    assert low_ns is not None
    assert high_ns is not None
    series.readings([low_ns], [])
    cuts_ns = [low_ns, *(round(each * SECOND) for each in bounds_s), high_ns]
    readings = series.readings(cuts_ns, [IDLE, WORK, IDLE])
    told = series.told(low_ns, high_ns)
    assert readings[-1] is not None
    assert told.moments_ns[-1] == high_ns
    assert told.energies_j[-1] == pytest.approx(readings[-1].energy_j)


def test_time_between_what_is_settled_and_what_is_asked_is_settled_too() -> None:
    series = PowerSeries()
    read(series, lambda _: 100.0, 0.0, 6.0)
    first = series.readings([SECOND], [])[0]
    (later,) = series.readings([4 * SECOND], [])
    assert first is not None
    assert later is not None
    assert later.energy_j - first.energy_j == pytest.approx(300.0, rel=0.01)
    assert series.readings([2 * SECOND], []) == [None]


def test_updates_that_do_not_change_the_reading_are_counted_as_they_come() -> None:
    updates = Updates()
    times_ns = (np.arange(0.0, 2.0, 0.01) * SECOND).astype(np.int64)
    updates.extend(times_ns, times_ns, np.where(times_ns < SECOND, 50.0, 60.0))
    assert len(updates.shown_ns) == pytest.approx(20, abs=2)
    assert np.diff(updates.shown_ns).max() <= 0.2 * SECOND
    assert updates.changes(0, 2 * SECOND) == 1
    assert updates.most_w == 60.0


def test_what_ran_long_ago_is_not_remembered() -> None:
    history = History()
    for second in range(100):
        history.extend([second * SECOND, second * SECOND + SECOND // 2, (second + 1) * SECOND], [WORK, IDLE], 0)
    assert len(history.moments_ns) == len(history.regimes) < 2 * (PAST_S + 2)
    assert history.changes(98 * SECOND, 100 * SECOND) == [
        98 * SECOND + SECOND // 2,
        99 * SECOND,
        99 * SECOND + SECOND // 2,
    ]


def test_power_that_steps_is_told_from_power_that_flickers() -> None:
    steps, flicker = Roughness(), Roughness()
    for number in range(64):
        steps.learn(900.0 if number % 10 == 0 else 0.01)
        flicker.learn(90.0 * (0.5 + number % 3 / 2))
    sensor = Sensor(0.025, 0.025)
    assert steps.pace(900.0) > 5 > 0.1 > steps.pace(0.01)
    assert flicker.pace(180.0) == pytest.approx(1.0, abs=0.2)
    lasts_s, slow_w2, fast_w2 = steps.course(sensor, 0.1, 900.0)
    assert lasts_s > 0.2
    assert slow_w2 > 100 * fast_w2
    _, slow_w2, fast_w2 = flicker.course(sensor, 0.1, 45.0)
    # Readings show less of flicker than there is.
    assert fast_w2 > 45.0 > 10 * slow_w2


@pytest.mark.parametrize("apart_s", [0.04, 0.4, 0.9])
def test_a_reading_that_stays_the_same_is_known_however_sparsely_it_is_read(apart_s: float) -> None:
    """As at rest, of a card whose sensor is faster than that: it flickers, stands still for a minute, and goes on."""
    times_s = np.concatenate([np.arange(0.0, 4.0, 0.005), np.arange(4.0, 64.0, apart_s), np.arange(64.0, 67.0, 0.005)])
    still = (times_s >= 4.0) & (times_s < 64.0)
    times_ns = (times_s * SECOND).astype(np.int64)
    power_w = np.where(still, 100.0, 97.0 + (times_s / 0.02).astype(int) % 7)
    series = PowerSeries()
    series.readings([SECOND], [])
    series.extend(times_ns[times_s < 64.0], times_ns[times_s < 64.0], power_w[times_s < 64.0])
    assert series.known_until_ns is not None
    assert series.known_until_ns > (64.0 - apart_s - 0.1) * SECOND
    series.extend(times_ns[times_s >= 64.0], times_ns[times_s >= 64.0], power_w[times_s >= 64.0])
    begin, end = series.readings([2 * SECOND, 66 * SECOND], [IDLE])
    assert begin is not None
    assert end is not None
    assert end.energy_j - begin.energy_j == pytest.approx(6400.0, rel=0.01)
