from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from devices import SECOND, energy_at, feed_counter, feed_power, make_device

from llmpower.attribution import Timeline
from llmpower.attribution.series import IDLE, Regime
from llmpower.types import EPOCH_STATUS, Field

BUSY, OTHER = Regime("busy", ("m",)), Regime("busy", ("another",))


def test_constant_power_is_exact_between_edges() -> None:
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 200 * t, 0, 3)
    a, b = energy_at(timeline, SECOND), energy_at(timeline, 2 * SECOND)
    assert a is not None
    assert b is not None
    # Both moments lie half a polling interval from where the edge's midpoint puts them; the bias cancels.
    assert b.energy_j - a.energy_j == pytest.approx(200, abs=1e-6)
    assert a.var_j2 > 0


def test_nothing_is_known_before_the_first_edge_and_after_the_last() -> None:
    timeline = Timeline(make_device())
    assert energy_at(timeline, 0) is None
    feed_counter(timeline, lambda t: 100 * t, 0, 1)
    assert energy_at(timeline, 10_000_000) is None
    assert energy_at(timeline, SECOND) is None
    assert timeline.known_until_ns is not None
    assert energy_at(timeline, timeline.known_until_ns) is not None


def test_the_stated_deviation_covers_a_step_at_the_span_boundary() -> None:
    def energy_j(t: float) -> float:
        return 60 * t + 340 * max(0.0, t - 1.05)  # steps from 60 to 400 W in the middle of a counter interval

    timeline = Timeline(make_device())
    feed_counter(timeline, energy_j, 0, 3)
    reading = energy_at(timeline, int(1.05 * SECOND))
    assert reading is not None
    error_j = abs(reading.energy_j - energy_j(1.05))
    # A straight line between the edges would be off by 8.5 J; the ticks around tell where the step was.
    assert error_j < 1
    assert error_j < 2 * reading.var_j2**0.5


def test_a_counter_that_goes_back_opens_an_epoch() -> None:
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 100 * t, 0, 1, offset_j=5000)
    feed_counter(timeline, lambda t: 100 * (t - 1), 1, 2)
    assert energy_at(timeline, SECOND) is None
    before, after = energy_at(timeline, SECOND // 2), energy_at(timeline, 3 * SECOND // 2)
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


def test_reads_that_failed_are_not_values() -> None:
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 100 * t, 0, 1)
    count = 10
    read_ns = np.arange(count, dtype=np.int64) * 10_000_000 + SECOND
    lost = np.full(count, 15, np.int32)
    timeline.extend(read_ns, read_ns, np.zeros(count, np.int64), lost, np.full(count, Field.ENERGY, np.uint8))
    feed_counter(timeline, lambda t: 100 * t, 1.1, 2)
    reading = energy_at(timeline, int(1.5 * SECOND))
    assert reading is not None
    assert reading.epoch == 0
    assert reading.energy_j == pytest.approx(150, rel=0.01)


def test_power_is_integrated_where_there_is_no_counter() -> None:
    timeline = Timeline(make_device(counter=False))
    feed_power(timeline, lambda _: 250.0, 0, 3)
    a, b = energy_at(timeline, SECOND), energy_at(timeline, 2 * SECOND)
    assert a is not None
    assert b is not None
    assert b.energy_j - a.energy_j == pytest.approx(250, rel=1e-3)
    assert timeline.method == "power"
    assert timeline.power_w == 250.0


def test_power_that_cannot_be_read_has_no_value_though_the_counter_answers() -> None:
    timeline = Timeline(make_device())
    feed_power(timeline, lambda _: 250.0, 0, 3)
    assert timeline.power_w == 250.0
    reads = np.array([3 * SECOND, 3 * SECOND + 1000])
    fields = np.array([Field.ENERGY, Field.POWER_INSTANT], np.uint8)
    timeline.extend(reads[:1], reads[:1] + 9, np.array([750_000_000]), np.zeros(1, np.int32), fields[:1])
    assert timeline.power_w == 250.0, "nobody has asked"
    timeline.extend(reads, reads + 9, np.array([750_000_000, 0]), np.array([0, 3], np.int32), fields)
    assert timeline.power_w is None


def test_a_hole_in_the_power_is_not_bridged() -> None:
    timeline = Timeline(make_device(counter=False))
    feed_power(timeline, lambda _: 250.0, 0, 1)
    feed_power(timeline, lambda _: 250.0, 4, 5)
    assert energy_at(timeline, 2 * SECOND) is None


def test_quality_counts_ticks() -> None:
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 100 * t, 0, 5)
    assert timeline.quality(SECOND, 3 * SECOND) == "measured"
    assert timeline.quality(SECOND, SECOND + 350_000_000) == "interpolated"
    assert timeline.quality(SECOND + 10_000_000, SECOND + 60_000_000) == "modelled"


def test_old_edges_are_forgotten_and_recent_ones_still_answer() -> None:
    timeline = Timeline(make_device(), hold_s=2.0)
    for second in range(20):
        feed_counter(timeline, lambda t: 100 * t, second, second + 1)
    assert energy_at(timeline, 10 * SECOND) is None
    assert energy_at(timeline, int(18.5 * SECOND)) is not None


def test_rapl_edges_are_narrow_however_sparse_the_reads() -> None:
    package = Timeline(make_device(kind="cpu_package", power=False))
    feed_counter(package, lambda t: 80 * t, 0, 2, period_s=0.001, rate_hz=50)
    reading = energy_at(package, SECOND)
    assert reading is not None
    assert reading.energy_j == pytest.approx(80, abs=0.1)
    assert reading.var_j2**0.5 < 0.05


@pytest.mark.parametrize("counter", [True, False])
def test_an_announced_break_opens_an_epoch_though_the_counter_goes_on(counter: bool) -> None:
    timeline = Timeline(make_device(counter=counter))
    feed = (
        (lambda a, b: feed_counter(timeline, lambda t: 100 * t, a, b))
        if counter
        else (lambda a, b: feed_power(timeline, lambda _: 100.0, a, b))
    )
    feed(0, 1)
    one = np.array([SECOND], np.int64)
    field = Field.ENERGY if counter else Field.POWER_INSTANT
    timeline.extend(one, one, one, np.array([EPOCH_STATUS], np.int32), np.array([field], np.uint8))
    feed(1, 2)
    # Between what was last known before the break (a lag and a period ago, for a power) and what was first known after.
    assert energy_at(timeline, int(0.93 * SECOND) if not counter else SECOND) is None
    before, after = energy_at(timeline, SECOND // 2), energy_at(timeline, 3 * SECOND // 2)
    assert before is not None
    assert after is not None
    assert before.epoch != after.epoch


def test_power_is_taken_back_by_the_lag_of_the_sensor() -> None:
    timeline = Timeline(make_device(counter=False))
    # The sensor shows at 1.0 s what the card drew until 0.96 s: the step is there, and not where it was read.
    feed_power(timeline, lambda t: 100.0 if t < 0.995 else 400.0, 0, 3)
    middle, end = energy_at(timeline, int(0.96 * SECOND)), energy_at(timeline, 2 * SECOND)
    assert middle is not None
    assert end is not None
    assert end.energy_j - middle.energy_j == pytest.approx(400 * 1.04, rel=0.02)


def test_a_power_that_does_not_move_is_known_all_the_same() -> None:
    timeline = Timeline(make_device(counter=False))
    feed_power(timeline, lambda _: 250.0, 0, 60)
    assert timeline.known_until_ns is not None
    assert timeline.known_until_ns > 59.5 * SECOND
    assert not timeline.stalled(60 * SECOND)


def test_a_break_of_the_power_reading_does_not_break_the_counter() -> None:
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 100 * t, 0, 1)
    one = np.array([SECOND], np.int64)
    timeline.extend(one, one, one, np.array([EPOCH_STATUS], np.int32), np.array([Field.POWER_INSTANT], np.uint8))
    feed_counter(timeline, lambda t: 100 * t, 1, 2)
    assert energy_at(timeline, SECOND) is not None


def test_an_edge_that_came_while_the_sampler_was_held_up_is_passed_over() -> None:
    def energy_j(t: float) -> float:
        return 100 * t + 200 * max(0.0, t - 3.08)  # steps from 100 to 300 W

    timeline = Timeline(make_device())
    feed_counter(timeline, energy_j, 0, 2.97, rate_hz=1000)
    feed_counter(timeline, energy_j, 3.06, 6, rate_hz=1000)
    # The edge at 3.0 s may have been anywhere between 2.97 and 3.06: its tick goes with the next.
    floor_ns = timeline.floor_ns(int(3.09 * SECOND))
    assert floor_ns is not None
    assert floor_ns == pytest.approx(2.9 * SECOND, abs=2e6)
    first, second = energy_at(timeline, int(2.5 * SECOND)), energy_at(timeline, int(3.08 * SECOND))
    assert first is not None
    assert second is not None
    assert second.energy_j - first.energy_j == pytest.approx(energy_j(3.08) - energy_j(2.5), abs=0.5)


def test_edges_that_are_all_wide_are_kept() -> None:
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 100 * t, 0, 10, rate_hz=12)
    assert timeline.quality(0, 10 * SECOND) == "measured"


def test_reads_that_are_far_apart_because_they_are_dear_are_no_stall() -> None:
    """As of eight cards whose counters take milliseconds to read: each has its turn every few seconds."""
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 100 * t, 0, 3)
    timeline.expect(Field.POWER_INSTANT, 0.01)
    feed_counter(timeline, lambda t: 100 * t, 8, 60, rate_hz=0.2)
    # The first one came late, for all one could know; of the others, none would be better.
    assert timeline.known_until_ns is not None
    assert timeline.known_until_ns > 50 * SECOND
    later_ns = timeline.known_until_ns + 12 * SECOND
    assert timeline.stalled(later_ns)
    timeline.expect(Field.ENERGY, 0.2)
    assert not timeline.stalled(later_ns)
    timeline.expect(Field.ENERGY, 100.0)
    assert not timeline.stalled(later_ns), "the next read was planned before that"
    feed_counter(timeline, lambda t: 100 * t, 60, 80)
    timeline.expect(Field.ENERGY, 100.0)
    assert timeline.stalled(timeline.known_until_ns + 3 * SECOND)


@pytest.mark.parametrize("asked", ["in two", "up to the end of the tick"])
def test_ticks_before_the_asking_began_and_after_it_ends_tell_the_level(asked: str) -> None:
    def energy_j(t: float) -> float:
        # Work of 150, from 2 s on of 300 W; something else of 500 W from 3.04 to 3.07 s, then the same of 200 W.
        return 150 * t + 150 * max(0.0, t - 2.0) + 200 * max(0.0, t - 3.04) - 300 * max(0.0, t - 3.07)

    timeline = Timeline(make_device())
    feed_counter(timeline, energy_j, 0, 5, rate_hz=1000)
    first_ns, begin_ns, end_ns = (
        timeline.floor_ns(moment_ns) or 0 for moment_ns in (SECOND, 3_010_000_000, 3_110_000_000)
    )
    if asked == "in two":
        timeline.readings([first_ns, begin_ns], [BUSY])
        cuts_ns, until_ns = [begin_ns, 3_040_000_000, 3_070_000_000, 4 * SECOND], None
    else:
        cuts_ns, until_ns = [first_ns, 3_040_000_000, 3_070_000_000, end_ns], 4 * SECOND
    _, first, second, _ = timeline.readings(cuts_ns, [BUSY, OTHER, BUSY], until_ns)
    assert first is not None
    assert second is not None
    assert second.energy_j - first.energy_j == pytest.approx(0.03 * 500, abs=1.0)


def test_a_cut_that_may_lie_beyond_an_edge_is_less_certain_by_the_step_there() -> None:
    # Reads 20 ms apart: an edge is anywhere within so much of its middle, 10 ms into each tenth of a second.
    cut_s, step_w = 2.013, 340.0
    timeline = Timeline(make_device())
    feed_counter(timeline, lambda t: 60 * t + step_w * max(0.0, t - cut_s), 0, 5, rate_hz=50, phase_s=0.01)
    first_ns, last_ns = timeline.floor_ns(SECOND), timeline.floor_ns(4 * SECOND)
    assert first_ns is not None
    assert last_ns is not None
    _, beyond, inside, _ = timeline.readings(
        [first_ns, round(cut_s * SECOND), 2_060_000_000, last_ns], [IDLE, BUSY, BUSY]
    )
    assert beyond is not None
    assert inside is not None
    # E[(u - r)²; u > r] of an even distribution over the width w: (w/2 - r)³/3w.
    assert beyond.boundary_var_j2 == pytest.approx(step_w**2 * 0.007**3 / (3 * 0.02), rel=0.1)
    assert inside.boundary_var_j2 == 0


def test_no_work_is_taken_to_draw_less_than_half_of_what_the_card_draws_idle() -> None:
    # Work of 400 W for long; then, for half of a tick, of 5 W: so little that the work before it must have drawn less.
    cut_s, end_s = 4.05, 4.1
    timeline = Timeline(make_device())

    def energy_j(t: float) -> float:
        return 60 * t + 340 * (min(max(t, 2.0), cut_s) - 2.0) - 55 * (min(max(t, cut_s), end_s) - cut_s)

    feed_counter(timeline, energy_j, 0, 6)
    first_ns, then_ns, last_ns = (timeline.floor_ns(moment_s * SECOND) or 0 for moment_s in (1, 3, 5))
    # Edges are taken to lie in the middle between two reads, 5 ms before the counter moved.
    begin_ns, cut_ns, end_ns = (round((moment_s - 0.005) * SECOND) for moment_s in (2.0, cut_s, end_s))
    timeline.readings([first_ns, begin_ns, then_ns], [IDLE, BUSY])
    _, start, end, _ = timeline.readings([then_ns, cut_ns, end_ns, last_ns], [BUSY, OTHER, IDLE])
    assert start is not None
    assert end is not None
    assert end.energy_j - start.energy_j >= 0.5 * 60 * (end_s - cut_s) - 1e-6


def sensed_w(true_w: Callable[[float], float], t: float) -> float:
    """What a sensor shows that looks at the 25 ms before t."""
    return float(np.mean([true_w(t - back_s) for back_s in np.linspace(0, 0.025, 26)]))


@pytest.mark.parametrize("duration_s", [0.3, 1.0])
def test_power_steps_where_work_begins_and_ends(duration_s: float) -> None:
    spans_s = [(5.013 + 2.037 * number, 5.013 + 2.037 * number + duration_s) for number in range(10)]

    def true_w(t: float) -> float:
        return 400.0 if any(start_s <= t < end_s for start_s, end_s in spans_s) else 60.0

    timeline = Timeline(make_device(counter=False))
    feed_power(timeline, lambda t: sensed_w(true_w, t), 0, 27)
    floors_ns = [timeline.floor_ns(SECOND), timeline.floor_ns(26 * SECOND)]
    assert None not in floors_ns
    boundaries_ns = [round(moment_s * SECOND) for span_s in spans_s for moment_s in span_s]
    cuts_ns = [floors_ns[0] or 0, *boundaries_ns, floors_ns[1] or 0]
    readings = timeline.readings(cuts_ns, [IDLE, *[BUSY, IDLE] * len(spans_s)])
    energies_j = [reading.energy_j if reading else 0.0 for reading in readings]
    measured_j = np.diff(energies_j)[1::2]
    # A trapezoid over the readings would lose 3 % of a second and 11 % of 0.3 s to the idle time beside it.
    assert measured_j == pytest.approx(duration_s * 400, rel=0.04)
    assert np.mean(measured_j) == pytest.approx(duration_s * 400, rel=0.01)
    known = [reading for reading in readings if reading is not None]
    assert len(known) == len(readings)
    for start, end in zip(known[1:-1:2], known[2:-1:2], strict=True):
        assert start.boundary_var_j2 + end.boundary_var_j2 + end.path_var_j2 - start.path_var_j2 > 0


def test_a_step_that_was_put_in_is_no_reading() -> None:
    timeline = Timeline(make_device(counter=False))
    feed_power(timeline, lambda _: 60.0, 0, 5)
    first_ns, last_ns = timeline.floor_ns(SECOND), timeline.floor_ns(4 * SECOND)
    assert first_ns is not None
    assert last_ns is not None
    # The work came and went between two updates: nothing was seen of it.
    start_ns, end_ns = 2 * SECOND + 20_000_000, 2 * SECOND + 40_000_000
    timeline.readings([first_ns, start_ns, end_ns, last_ns], [IDLE, BUSY, IDLE])
    assert timeline.quality(start_ns, end_ns) == "modelled"
