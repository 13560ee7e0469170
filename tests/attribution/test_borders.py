"""What a device shows up to the end of an epoch, and from the beginning of the next one on, is in an account."""

from __future__ import annotations

import numpy as np
import pytest
from devices import SECOND, feed_counter, feed_power, make_device, make_span

from llmpower.attribution import Ledger, Timeline
from llmpower.types import EPOCH_STATUS, Field

POWER_W = 200.0


def feed(timeline: Timeline, start_s: float, end_s: float) -> None:
    if timeline.method == "counter":
        feed_counter(timeline, lambda t: POWER_W * t, start_s, end_s)
    else:
        feed_power(timeline, lambda _: POWER_W, start_s, end_s)


def lose(timeline: Timeline, at_s: float) -> None:
    """The device is lost: what it shows next has no connection to what it has shown."""
    field = Field.ENERGY if timeline.method == "counter" else Field.POWER_INSTANT
    at_ns = np.array([round(at_s * SECOND)])
    status, fields = np.array([EPOCH_STATUS], np.int32), np.array([field], np.uint8)
    timeline.extend(at_ns, at_ns, at_ns, status, fields)


@pytest.fixture(params=[True, False], ids=["counter", "power"])
def timeline(request: pytest.FixtureRequest) -> Timeline:
    return Timeline(make_device(counter=request.param))


def test_a_device_that_appears_after_the_first_settling_is_counted_from_its_first_moment_on(timeline: Timeline) -> None:
    ledger = Ledger({"GPU-0": timeline})
    ledger.settle(2 * SECOND)
    feed(timeline, 3, 12)
    ledger.settle(12 * SECOND)
    since_ns = timeline.known_since_ns
    assert since_ns is not None
    shown_s = (ledger.watermark_ns["GPU-0"] - since_ns) / SECOND
    assert shown_s > 8
    assert ledger.totals["GPU-0"].idle_j == pytest.approx(POWER_W * shown_s, rel=1e-3)


def test_both_sides_of_a_break_are_counted_however_much_is_settled_at_once(timeline: Timeline) -> None:
    ledger = Ledger({"GPU-0": timeline})
    feed(timeline, 1, 10)
    ledger.settle(3 * SECOND)
    ledger.begin("across", 4 * SECOND)
    feed(timeline, 10, 12)
    lose(timeline, 12)
    feed(timeline, 14, 24)
    ledger.add(make_span("across", 4 * SECOND, 20 * SECOND))
    (joules,) = ledger.settle(24 * SECOND)
    assert joules.gpu_energy_j is None
    watermark_s = ledger.watermark_ns["GPU-0"] / SECOND
    since_s, last_s, first_s, *_ = (each / SECOND for each in timeline.borders(0, 24 * SECOND))
    assert (since_s, last_s, first_s) == pytest.approx((1, 12, 14), abs=0.3)
    totals = ledger.totals["GPU-0"]
    assert totals.inference_j == pytest.approx(POWER_W * ((last_s - 4) + (20 - first_s)), rel=1e-3)
    assert totals.idle_j == pytest.approx(POWER_W * ((4 - since_s) + (watermark_s - 20)), rel=1e-3)


def test_what_was_shown_before_a_device_falls_silent_goes_to_what_ran_then(timeline: Timeline) -> None:
    ledger = Ledger({"GPU-0": timeline})
    feed(timeline, 1, 10)
    ledger.settle(2 * SECOND)
    ledger.begin("holding", 3 * SECOND)
    ledger.settle(9 * SECOND)
    ledger.add(make_span("holding", 3 * SECOND, 12 * SECOND))
    (joules,) = ledger.settle(20 * SECOND)
    assert joules.gpu_energy_j is None
    known_ns = timeline.known_until_ns
    assert known_ns is not None
    assert ledger.totals["GPU-0"].inference_j == pytest.approx(POWER_W * (known_ns / SECOND - 3), rel=1e-3)


@pytest.mark.parametrize("counter", [True, False], ids=["counter", "power"])
def test_what_was_read_while_the_daemon_stood_still_is_settled_however_long_that_was(counter: bool) -> None:
    timeline = Timeline(make_device(counter=counter), hold_s=10.0)
    ledger = Ledger({"GPU-0": timeline}, hold_s=10.0)
    feed(timeline, 1, 10)
    ledger.settle(9 * SECOND)
    since_ns = timeline.known_since_ns
    assert since_ns is not None
    ledger.begin("meanwhile", 20 * SECOND)
    feed(timeline, 10, 60)
    ledger.add(make_span("meanwhile", 20 * SECOND, 30 * SECOND))
    done = ledger.settle(60 * SECOND)
    while ledger.behind:
        done += ledger.settle(60 * SECOND)
    assert done[0].gpu_energy_j == pytest.approx(POWER_W * 10, rel=1e-3)
    totals = ledger.totals["GPU-0"]
    assert totals.energy_j == pytest.approx(POWER_W * (ledger.watermark_ns["GPU-0"] - since_ns) / SECOND, rel=1e-3)
    assert ledger.watermark_ns["GPU-0"] > 58 * SECOND
    # Of what is settled no more is kept than usual.
    feed(timeline, 60, 90)
    ledger.settle(90 * SECOND)
    feed(timeline, 90, 91)
    since_ns = timeline.known_since_ns
    assert since_ns is not None
    assert since_ns == pytest.approx(81 * SECOND, abs=SECOND)
