"""Whether the stated deviation is what the error is, over many spans on a device whose energy is known."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
from devices import SECOND, feed_counter, feed_power, make_device, make_span
from numpy.typing import NDArray

from llmpower.attribution import Ledger, Timeline
from llmpower.daemon.accounting.engine import SETTLE_DELAY_S
from llmpower.types import Span

FLICKER, FLICKER_S = 0.02, 0.05
IDLE_W, PREFILL_W, DECODE_W = 55.0, 350.0, 205.0


class Script:
    """Power over time, and the spans in it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now_s = 0.0
        self.steps: list[tuple[float, float]] = []
        self.spans: list[Span] = []

    def run(self, power_w: float, duration_s: float) -> None:
        count = max(1, round(duration_s / FLICKER_S))
        self.steps += [(duration_s / count, power_w * self.chance.gauss(1, FLICKER)) for _ in range(count)]
        self.now_s += duration_s

    def request(self, duration_s: float) -> None:
        start_s = self.now_s
        self.run(PREFILL_W, duration_s * self.chance.uniform(0.1, 0.4))
        first_s = self.now_s
        self.run(DECODE_W, duration_s - (first_s - start_s))
        moments_ns = [round(moment_s * SECOND) for moment_s in (start_s, first_s, self.now_s)]
        self.spans.append(make_span(str(len(self.spans)), moments_ns[0], moments_ns[2], first_token_ns=moments_ns[1]))

    def energy_j(self) -> Callable[[float], float]:
        durations_s, powers_w = np.array([(0.0, 0.0), *self.steps]).T
        moments_s, energies_j = np.cumsum(durations_s), np.cumsum(durations_s * powers_w)
        return lambda time_s: float(np.interp(time_s, moments_s, energies_j))


def settled(script: Script, *, counter: bool = True) -> Iterator[tuple[float, float, float]]:
    """Energy, its stated deviation and the truth of each span, settled in the daemon's rhythm."""
    energy_j = script.energy_j()
    timeline = Timeline(make_device(counter=counter))
    ledger = Ledger({"GPU-0": timeline})

    def feed(start_s: float) -> None:
        if counter:
            feed_counter(timeline, energy_j, start_s, start_s + 0.25, rate_hz=1000)
        else:
            # A part-time sensor: the mean of the latest quarter of its period.
            shown_w = lambda t: (energy_j(t) - energy_j(max(t - 0.025, 0.0))) / 0.025 if t > 0 else IDLE_W  # noqa: E731
            # Reads keep no step with the updates.
            feed_power(timeline, shown_w, start_s + script.chance.uniform(0.0, 0.01), start_s + 0.25)

    waiting, now_s = list(script.spans), 0.0
    while now_s < script.now_s:
        feed(now_s)
        now_s += 0.25
        while waiting and waiting[0].end_ns <= now_s * SECOND:
            ledger.add(waiting.pop(0))
        if waiting and waiting[0].start_ns <= now_s * SECOND:
            ledger.begin(waiting[0].span_id, waiting[0].start_ns)
        for joules in ledger.settle(round((now_s - SETTLE_DELAY_S) * SECOND)):
            true_j = energy_j(joules.span.end_ns / SECOND) - energy_j(joules.span.start_ns / SECOND)
            assert joules.gpu_energy_j is not None
            assert joules.gpu_energy_std_j is not None
            yield joules.gpu_energy_j, joules.gpu_energy_std_j, true_j


def taught(idle_s: float, count: int, gap_s: float, span_s: float) -> tuple[Script, int]:
    """A script of this many requests, and how many there are before them.

    What the device has done before teaches what its phases draw.
    """
    script = Script(seed=7)
    script.run(IDLE_W, idle_s)
    for _ in range(20):
        script.request(1.0)
    warm = len(script.spans)
    for _ in range(count):
        if gap_s:
            script.run(IDLE_W, script.chance.uniform(0.8, 1.2) * gap_s)
        script.request(span_s * script.chance.uniform(0.9, 1.1))
    script.run(IDLE_W, 1.5)
    return script, warm


def check(measured_j: NDArray[np.float64], std_j: NDArray[np.float64], true_j: NDArray[np.float64]) -> float:
    """That intervals hold the truth and are no wider than that takes; the mean error."""
    relative = (measured_j - true_j) / true_j
    assert np.mean(np.abs(measured_j - true_j) <= 1.96 * std_j) >= 0.9
    # Wide enough is easy; as wide as the error justifies is not.
    assert np.median(std_j / true_j) <= 2.5 * np.sqrt(np.mean(relative**2))
    return float(np.mean(np.abs(relative)))


@pytest.mark.parametrize("gap_s", [0.0, 0.5], ids=["back to back", "isolated"])
@pytest.mark.parametrize(("span_s", "error_bar"), [(0.03, 0.03), (0.1, 0.02), (0.3, 0.01), (1.0, 0.004)])
def test_the_interval_holds_the_truth_as_often_as_it_says(gap_s: float, span_s: float, error_bar: float) -> None:
    script, warm = taught(10.0, 150, gap_s, span_s)
    found = np.array(list(settled(script)))
    assert len(found) == len(script.spans)
    assert check(*found[warm:].T) < error_bar


@pytest.mark.parametrize("gap_s", [0.0, 0.5], ids=["back to back", "isolated"])
@pytest.mark.parametrize(("span_s", "error_bar"), [(0.05, 0.05), (0.5, 0.01)])
def test_without_a_counter_the_interval_holds_the_truth_as_well(gap_s: float, span_s: float, error_bar: float) -> None:
    script, warm = taught(5.0, 60, gap_s, span_s)
    found = np.array(list(settled(script, counter=False)))
    assert len(found) == len(script.spans)
    assert check(*found[warm:].T) < error_bar


@pytest.mark.parametrize("step_s", [0.735, 0.835, 1.035])
def test_a_step_amid_windows_is_placed_where_the_ticks_beside_it_say(step_s: float) -> None:
    script = Script(seed=11)
    script.run(IDLE_W, 10.0)
    # Power steps in the middle of a window, and windows follow one another in the middle of ticks.
    script.run(PREFILL_W, step_s)
    script.run(DECODE_W, 1.0)
    bounds_s = np.append(10.0, np.arange(10.055, script.now_s, 0.1))
    for number, (start_s, end_s) in enumerate(pairwise(bounds_s)):
        script.spans.append(make_span(str(number), round(start_s * SECOND), round(end_s * SECOND)))
    script.run(IDLE_W, 1.0)

    measured_j, _, true_j = np.array(list(settled(script))).T
    middle = slice(5, 13)
    assert np.max(np.abs(measured_j - true_j)[middle] / true_j[middle]) < 0.02
