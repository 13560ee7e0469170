"""A counter whose reads are slow, and so few that requests of any length lie between two of them."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from itertools import pairwise

import numpy as np
import pytest
from devices import SECOND, energy_at, make_device, make_span
from numpy.typing import NDArray

from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.types import Field

END_S, GRID_S = 120.0, 0.005
IDLE_W = 70.0
STEP_NS, SETTLE_DELAY_NS = SECOND // 4, SECOND // 2


class Load:
    """Requests whose power differs by chance, idle time between them, and what a card tells of both."""

    def __init__(self) -> None:
        chance = np.random.default_rng(7)
        self.spans_s: list[tuple[float, float]] = []
        watts = np.full(round(END_S / GRID_S), IDLE_W)
        now_s = 3.0
        while now_s < END_S - 12:
            start_s, now_s = now_s, now_s + chance.uniform(0.4, 2.0)
            watts[round(start_s / GRID_S) : round(now_s / GRID_S)] = chance.uniform(200, 600)
            self.spans_s.append((round(start_s / GRID_S) * GRID_S, round(now_s / GRID_S) * GRID_S))
            now_s += chance.uniform(0.3, 1.5)
        watts *= chance.normal(1, 0.02, len(watts))
        self._used_j = np.concatenate(([0.0], np.cumsum(watts * GRID_S)))

    def energy_j(self, time_s: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """Since time zero."""
        return np.asarray(np.interp(time_s, np.arange(len(self._used_j)) * GRID_S, self._used_j))

    def counter_j(self, time_s: float) -> float:
        """What the counter shows, which moves every 100 ms."""
        return float(self.energy_j(np.floor(time_s / 0.1) * 0.1))

    def sensed_w(self, time_s: float) -> float:
        """What the power sensor shows: the mean of 25 ms before its latest update."""
        held_s = np.floor(time_s / 0.1 + 0.37) * 0.1 - 0.037
        return float((self.energy_j(held_s) - self.energy_j(held_s - 0.025)) / 0.025)


@pytest.fixture(scope="module")
def load() -> Load:
    return Load()


Sensor = Callable[[float, float], float | None]
"""What a sensor answers at a time at which it should answer so much; ``None`` where it fails to."""


def sound(_: float, power_w: float) -> float:
    return power_w


def dead(_time_s: float, _power_w: float) -> None:
    return None


def settled(
    load: Load, sensor: Sensor = sound, *, read_s: float = 0.003, every_s: float = 5.0, open_until_s: float = 0.0
) -> tuple[list[Joules], Timeline]:
    """Settle the requests as they come, or some of them when a request that was open beside them is cancelled."""
    device = make_device()
    timeline = Timeline(device, 600.0)
    ledger = Ledger({device.uuid: timeline}, 600.0)
    found: list[Joules] = []
    begun = ended = 0
    if open_until_s:
        ledger.begin("beside", 3 * SECOND)
    for now_ns in range(STEP_NS, round(END_S * SECOND), STEP_NS):
        while begun < len(load.spans_s) and load.spans_s[begun][0] * SECOND <= now_ns:
            ledger.begin(str(begun), round(load.spans_s[begun][0] * SECOND))
            begun += 1
        while ended < len(load.spans_s) and load.spans_s[ended][1] * SECOND <= now_ns:
            start_s, end_s = load.spans_s[ended]
            ledger.add(make_span(str(ended), round(start_s * SECOND), round(end_s * SECOND)))
            ended += 1
        reads = []
        for read_at_s in np.arange(now_ns - STEP_NS, now_ns, SECOND // 100) / SECOND:
            # Whole updates are looked for during the first three seconds, and for half a second of every turn.
            if read_at_s < 3 or read_at_s % every_s < 0.5:
                value = load.counter_j(read_at_s + read_s / 2)
                reads.append((read_at_s, read_at_s + read_s, value, 0, Field.ENERGY))
            answer_w = sensor(read_at_s, load.sensed_w(read_at_s))
            status = int(answer_w is None)
            reads.append((read_at_s, read_at_s + 5e-6, answer_w or 0.0, status, Field.POWER_INSTANT))
        before_s, after_s, values, statuses, fields = (np.array(column) for column in zip(*reads, strict=True))
        before_ns, after_ns = (before_s * SECOND).astype(np.int64), (after_s * SECOND).astype(np.int64)
        timeline.expect(Field.ENERGY, 1 / every_s)
        timeline.extend(
            before_ns,
            after_ns,
            (values * 1e6).astype(np.int64),
            statuses.astype(np.int32),
            fields.astype(np.uint8),
        )
        if now_ns >= open_until_s * SECOND:
            ledger.cancel("beside")
        found += ledger.settle(now_ns - SETTLE_DELAY_NS)
    return sorted(found, key=lambda each: int(each.span.span_id)), timeline


def errors(load: Load, joules: list[Joules]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each request: relative, and in the deviations that were stated."""
    true_j = np.array([float(np.diff(load.energy_j(np.array(span_s)))[0]) for span_s in load.spans_s])
    energy_j = np.array([each.gpu_energy_j for each in joules], np.float64)
    std_j = np.array([each.gpu_energy_std_j for each in joules], np.float64)
    return energy_j / true_j - 1, (energy_j - true_j) / std_j


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("gain", [0.9, 1.0, 1.1])
def test_requests_within_one_tick_are_told_apart_by_the_power(load: Load, gain: float) -> None:
    joules, timeline = settled(load, lambda _, power_w: gain * power_w)
    assert len(joules) == len(load.spans_s)
    relative, deviations = errors(load, joules)
    assert rms(relative) < 0.015
    assert np.mean(np.abs(deviations) < 2) >= 0.9
    assert {each.quality for each in joules} <= {"interpolated", "measured"}
    assert timeline.idle_w == pytest.approx(IDLE_W, rel=0.02)


def test_they_are_while_a_long_request_holds_them_up(load: Load) -> None:
    joules, _ = settled(load, open_until_s=110.0)
    assert len(joules) == len(load.spans_s)
    relative, deviations = errors(load, joules)
    assert rms(relative) < 0.015
    assert np.mean(np.abs(deviations) < 2) >= 0.9


def test_beside_work_that_nobody_reported_they_are_too(load: Load) -> None:
    partly = copy(load)
    partly.spans_s = [span_s for number, span_s in enumerate(load.spans_s) if number % 3]
    joules, _ = settled(partly)
    relative, deviations = errors(partly, joules)
    assert rms(relative) < 0.015
    assert np.mean(np.abs(deviations) < 2) >= 0.9


@pytest.mark.parametrize(
    "sensor",
    [dead, lambda *_: 280.0, lambda *_: 700.0, lambda _, power_w: 2 * power_w],
    ids=["dead", "frozen at the mean", "frozen", "of two cards"],
)
def test_by_a_sensor_that_is_no_good_they_are_not_and_the_figures_say_so(load: Load, sensor: Sensor) -> None:
    joules, timeline = settled(load, sensor)
    assert len(joules) == len(load.spans_s)
    relative, deviations = errors(load, joules)
    assert rms(relative) > 0.15
    assert np.mean(np.abs(deviations) < 2) >= 0.7
    assert "modelled" in {each.quality for each in joules}
    assert timeline.idle_w == pytest.approx(IDLE_W, rel=0.05)


def test_a_sensor_that_falls_silent_holds_nothing_up(load: Load) -> None:
    joules, _ = settled(load, lambda time_s, power_w: None if 40 < time_s < 80 else power_w)
    assert len(joules) == len(load.spans_s)
    relative, deviations = errors(load, joules)
    assert np.mean(np.abs(deviations) < 2) >= 0.8
    seen = np.array([end_s < 35 or start_s > 90 for start_s, end_s in load.spans_s])
    assert rms(relative[seen]) < 0.03 < rms(relative[~seen])


def test_a_counter_that_is_read_at_once_needs_no_power(load: Load) -> None:
    with_power, _ = settled(load, read_s=2e-5)
    without, _ = settled(load, dead, read_s=2e-5)
    assert with_power == without


def test_a_moment_in_a_long_tick_can_be_asked_for(load: Load) -> None:
    _, timeline = settled(load)
    reading = energy_at(timeline, 102 * SECOND)  # between two turns, and nothing is said of what ran
    assert reading is not None
    assert float(load.energy_j(100.0)) < reading.energy_j < float(load.energy_j(106.0))


@pytest.mark.parametrize(("each_s", "quality"), [(0.02, "interpolated"), (0.004, "modelled")])
def test_work_that_changes_more_often_than_power_can_tell_is_not_looked_at(
    load: Load, each_s: float, quality: str
) -> None:
    dense = copy(load)
    edges_s = np.arange(20, 35, each_s)
    dense.spans_s = list(pairwise(edges_s.tolist()))
    _, timeline = settled(dense)
    assert timeline.quality(26 * SECOND, 29 * SECOND) == quality
