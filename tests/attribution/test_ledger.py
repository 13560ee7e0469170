from __future__ import annotations

from itertools import pairwise

import pytest
from devices import SECOND, conserved, energy_at, feed_counter, feed_power, make_device, make_span
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.attribution import BookingKey, Ledger, Timeline


def ledger_at(power_w: float = 200.0, seconds: float = 10.0, **timelines: Timeline) -> Ledger:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: power_w * t, 0, seconds)
    ledger = Ledger({"GPU-0": gpu} | timelines)
    ledger.settle(SECOND)
    return ledger


def counted_j(timeline: Timeline, start_ns: int, end_ns: int) -> float:
    """What the device's own counter says from one of its edges to another."""
    start, end = energy_at(timeline, start_ns), energy_at(timeline, end_ns)
    assert start is not None
    assert end is not None
    return end.energy_j - start.energy_j


def test_a_lone_span_gets_its_joules_and_the_rest_is_idle() -> None:
    ledger = ledger_at()
    ledger.add(make_span("a", 3 * SECOND, 5 * SECOND, first_token_ns=int(3.5 * SECOND)))
    (joules,) = ledger.settle(8 * SECOND)
    assert joules.gpu_energy_j == pytest.approx(400, abs=1e-6)
    assert joules.prefill_energy_j == pytest.approx(100, abs=1e-6)
    assert joules.decode_energy_j == pytest.approx(300, abs=1e-6)
    assert joules.quality == "measured"
    assert joules.method == "counter"
    assert not joules.allocated
    assert joules.cpu_energy_j is None
    # A card of constant power draws as much with nothing to do: all of it is its idle share.
    assert joules.gpu_idle_energy_j == pytest.approx(400, rel=0.01)
    assert ledger.totals["GPU-0"].inference_j == pytest.approx(400, abs=1e-6)
    conserved(ledger)


def test_overlapping_spans_are_allocated_and_a_decoding_one_pays_more_per_token() -> None:
    ledger = ledger_at()
    prefilling = make_span("p", 3 * SECOND, 5 * SECOND, first_token_ns=5 * SECOND, input_tokens=1000, output_tokens=1)
    decoding = make_span("d", 3 * SECOND, 5 * SECOND, first_token_ns=3 * SECOND, input_tokens=1, output_tokens=1000)
    ledger.add(prefilling)
    ledger.add(decoding)
    by_id = {joules.span.span_id: joules for joules in ledger.settle(8 * SECOND)}
    p, d = by_id["p"].gpu_energy_j, by_id["d"].gpu_energy_j
    assert p is not None
    assert d is not None
    assert p + d == pytest.approx(400, abs=1e-6)
    assert d > 20 * p
    assert by_id["p"].allocated
    assert by_id["p"].gpu_energy_std_j > 5  # type: ignore[operator]  # known, as its energy is


def test_an_open_span_holds_the_watermark_back() -> None:
    ledger = ledger_at()
    ledger.begin("a", 3 * SECOND)
    ledger.settle(9 * SECOND)
    # The latest edge before the span's start: what lies between is divided once all of that tick is known.
    assert 2.9 * SECOND < ledger.watermark_ns["GPU-0"] <= 3 * SECOND
    ledger.add(make_span("a", 3 * SECOND, 6 * SECOND))
    (joules,) = ledger.settle(9 * SECOND)
    assert joules.gpu_energy_j == pytest.approx(600, abs=1e-6)
    ledger.begin("b", 9 * SECOND)
    ledger.cancel("b")
    assert ledger.pending == 0


def test_idle_time_before_a_span_that_has_only_begun_is_not_taken_to_go_on_through_it() -> None:
    # 300 W until 2.93 s, idle until 3.05 s, then 500 W: the ticks behind 3.05 s say nothing of those 0.12 s.
    def energy_j(t: float) -> float:
        return 60 * t + 240 * (min(max(t, 2.0), 2.93) - 2.0) + 440 * max(t - 3.05, 0.0)

    gpu = Timeline(make_device())
    feed_counter(gpu, energy_j, 0, 5, rate_hz=1000)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(1_500_000_000)
    ledger.begin("open", 3_050_000_000)
    ledger.add(make_span("a", 2 * SECOND, 2_930_000_000))
    (joules,) = ledger.settle(4_500_000_000)
    assert joules.gpu_energy_j == pytest.approx(0.93 * 300, abs=0.05)


def test_a_card_without_a_counter_that_shows_nothing_for_long_does_not_take_joules_back() -> None:
    gpu = Timeline(make_device(counter=False), hold_s=20.0)
    ledger = Ledger({"GPU-0": gpu})
    for since_s in (0, 100):
        feed_power(gpu, lambda _: 200.0, since_s, since_s + 10)
        before_j = ledger.totals["GPU-0"].energy_j
        for quarter in range(4, 39):
            ledger.settle((since_s + quarter // 4) * SECOND)
        assert ledger.totals["GPU-0"].energy_j == pytest.approx(before_j + 8 * 200, rel=0.15)
    assert sum(ledger.totals["GPU-0"].unattributed_j.values()) == 0
    conserved(ledger)


def test_a_span_that_comes_after_its_time_was_settled_is_null_and_says_late() -> None:
    ledger = ledger_at()
    ledger.settle(6 * SECOND)
    ledger.add(make_span("a", 3 * SECOND, 5 * SECOND))
    (joules,) = ledger.settle(7 * SECOND)
    assert joules.late
    assert joules.gpu_energy_j is None
    assert joules.quality == "unavailable"
    conserved(ledger)


def test_gross_less_idle_is_what_the_span_added() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 60 * t + 300 * min(max(t - 3, 0), 2), 0, 10)
    ledger = Ledger({"GPU-0": gpu})
    ledger.add(make_span("a", 3 * SECOND, 5 * SECOND))
    ledger.add(make_span("b", 4 * SECOND, 5 * SECOND))
    (a, b) = ledger.settle(8 * SECOND)
    assert a.gpu_energy_j is not None
    assert b.gpu_energy_j is not None
    assert a.gpu_idle_energy_j is not None
    assert b.gpu_idle_energy_j is not None
    # The time that they share is shared as its energy is: b does as much in half the time, so most of it.
    assert a.gpu_idle_energy_j + b.gpu_idle_energy_j == pytest.approx(60 * 2, rel=0.01)
    assert 30 < b.gpu_idle_energy_j < 60
    assert b.gpu_idle_energy_j / b.gpu_energy_j == pytest.approx(60 / 360, rel=0.01)
    assert a.gpu_energy_j + b.gpu_energy_j == pytest.approx(720, rel=0.01)


def test_the_idle_share_is_null_where_idle_was_never_seen() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 300 * t, 0, 10)
    ledger = Ledger({"GPU-0": gpu})
    ledger.add(make_span("a", 150_000_000, 4_950_000_000))
    ledger.add(make_span("b", 150_000_000, 4 * SECOND))
    joules = ledger.settle(5_080_000_000)  # before the first tick in which nothing runs is over
    assert [each.gpu_idle_energy_j for each in joules] == [None, None]


def test_an_unknown_gpu_is_null_not_zero() -> None:
    ledger = ledger_at()
    ledger.add(make_span("a", 3 * SECOND, 5 * SECOND, devices=("GPU-elsewhere",)))
    (joules,) = ledger.settle(8 * SECOND)
    assert joules.gpu_energy_j is None
    assert joules.gpu_energy_std_j is None
    assert joules.quality == "unavailable"


def test_cpu_packages_are_charged_to_every_span() -> None:
    package = Timeline(make_device("intel-rapl:0", kind="cpu_package", power=False))
    feed_counter(package, lambda t: 50 * t, 0, 10, period_s=0.001)
    ledger = ledger_at(**{"intel-rapl:0": package})
    ledger.add(make_span("a", 3 * SECOND, 5 * SECOND, devices=()))
    (joules,) = ledger.settle(8 * SECOND)
    assert joules.gpu_energy_j is None
    assert joules.cpu_energy_j == pytest.approx(100, abs=0.1)
    assert joules.quality == "measured"


def test_a_reset_in_the_middle_makes_the_span_null() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 4, offset_j=1000)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    feed_counter(gpu, lambda t: 200 * (t - 4), 4, 10)
    ledger.add(make_span("across", 3 * SECOND, 5 * SECOND))
    ledger.add(make_span("after", 6 * SECOND, 7 * SECOND))
    by_id = {joules.span.span_id: joules for joules in ledger.settle(9 * SECOND)}
    # What was booked to it before the reset stays booked: the model did use it, though nobody knows all it used.
    assert sum(ledger.take_booked().values()) == pytest.approx(ledger.totals["GPU-0"].inference_j, abs=1e-6)
    assert by_id["across"].gpu_energy_j is None
    assert by_id["after"].gpu_energy_j == pytest.approx(200, abs=1e-6)
    conserved(ledger)


def test_energy_used_while_a_device_was_away_is_unattributed() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 3)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    ledger.add(make_span("during", 4 * SECOND, 5 * SECOND))
    (joules,) = ledger.settle(6 * SECOND)  # the device has been silent for three seconds
    assert joules.gpu_energy_j is None
    feed_counter(gpu, lambda t: 200 * t, 7, 10)
    ledger.settle(9 * SECOND)
    totals = ledger.totals["GPU-0"]
    assert totals.unattributed_j["stalled"] > 500
    assert totals.energy_j == pytest.approx(200 * 8.8, rel=0.01)  # from the first edge to the latest
    conserved(ledger)


def test_a_span_that_began_before_its_device_had_shown_anything_is_null() -> None:
    gpu = Timeline(make_device())
    ledger = Ledger({"GPU-0": gpu})
    feed_counter(gpu, lambda t: 200 * t, 3, 10)
    ledger.add(make_span("before", 2 * SECOND, 5 * SECOND))
    ledger.add(make_span("after", 6 * SECOND, 7 * SECOND))
    by_id = {joules.span.span_id: joules for joules in ledger.settle(9 * SECOND)}
    assert by_id["before"].gpu_energy_j is None
    assert not by_id["before"].late
    assert by_id["after"].gpu_energy_j == pytest.approx(200, abs=1e-6)
    conserved(ledger)


def test_energy_of_time_that_nobody_read_is_unattributed_though_its_end_is_learnt_with_its_beginning() -> None:
    def energy_j(t: float) -> float:
        return 100 * t + 200 * (t // 0.7 * 0.35 + min(t % 0.7, 0.35))

    gpu = Timeline(make_device())
    feed_counter(gpu, energy_j, 0, 4)
    feed_counter(gpu, energy_j, 90, 96)  # what was read meanwhile found no room in the ring
    ledger = Ledger({"GPU-0": gpu})
    ledger.add(make_span("within", 60 * SECOND, 62 * SECOND))
    ledger.add(make_span("after", 92 * SECOND, 94 * SECOND))
    by_id = {joules.span.span_id: joules for _ in range(4) for joules in ledger.settle(95 * SECOND)}
    assert by_id["within"].gpu_energy_j is None
    assert by_id["after"].gpu_energy_j == pytest.approx(400, rel=0.1)
    totals = ledger.totals["GPU-0"]
    assert totals.unattributed_j["stalled"] == pytest.approx(200 * 86, rel=0.02)
    assert totals.inference_j == by_id["after"].gpu_energy_j
    conserved(ledger)


def test_a_span_across_time_that_nobody_read_has_all_of_it() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 4)
    feed_counter(gpu, lambda t: 200 * t, 90, 96)
    ledger = Ledger({"GPU-0": gpu})
    ledger.add(make_span("across", 3 * SECOND, 92 * SECOND))
    (joules,) = [joules for _ in range(4) for joules in ledger.settle(95 * SECOND)]
    assert joules.gpu_energy_j == pytest.approx(200 * 89, abs=1e-6)
    conserved(ledger)


moments = st.integers(min_value=0, max_value=12_000)


@settings(deadline=None, max_examples=200)
@given(
    spans=st.lists(st.tuples(moments, moments, moments, st.integers(0, 500), st.integers(0, 500)), max_size=12),
    settlings=st.lists(moments, max_size=6),
)
def test_every_joule_is_in_exactly_one_account(
    spans: list[tuple[int, int, int, int, int]], settlings: list[int]
) -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 150 * t + 40 * abs(t % 1.7 - 0.85), 0, 12)
    ledger = Ledger({"GPU-0": gpu})
    start_ns = 1_003_000_000
    ledger.settle(start_ns)
    done = []
    booked: dict[BookingKey, float] = {}

    def settle(until_ns: int) -> None:
        done.extend(ledger.settle(until_ns))
        for key, energy_j in ledger.take_booked().items():
            booked[key] = booked.get(key, 0.0) + energy_j
        # In every single scrape, whatever is under way, what went to models is what went to spans.
        assert sum(booked.values()) == pytest.approx(ledger.totals["GPU-0"].inference_j, abs=1e-6)

    for number, (a, b, c, tokens_in, tokens_out) in enumerate(spans):
        start, first, end = (1_000_000 * moment for moment in sorted((a, b, c)))
        ledger.add(
            make_span(str(number), start, end, first_token_ns=first, input_tokens=tokens_in, output_tokens=tokens_out)
        )
    for until in sorted(settlings):
        settle(max(until * 1_000_000, start_ns))
    settle(11_500_000_000)
    totals = ledger.totals["GPU-0"]
    conserved(ledger)
    assert gpu.known_since_ns is not None
    assert totals.energy_j == pytest.approx(counted_j(gpu, gpu.known_since_ns, ledger.watermark_ns["GPU-0"]), abs=1e-6)
    booked_j = sum(joules.gpu_energy_j for joules in done if joules.gpu_energy_j is not None)
    waiting = ledger.pending
    if not waiting:
        assert booked_j == pytest.approx(totals.inference_j, abs=1e-6)
    assert all((joules.gpu_energy_j is None) == joules.late for joules in done)


@settings(deadline=None, max_examples=100)
@given(cuts=st.lists(st.integers(2_000, 10_000), min_size=2, max_size=20, unique=True))
def test_contiguous_spans_sum_to_the_counters_delta(cuts: list[int]) -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 150 * t + 60 * abs(t % 2.3 - 1.1), 0, 12)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(1_500_000_000)
    edges_ns = [1_000_000 * cut for cut in sorted(cuts)]
    for number, (start_ns, end_ns) in enumerate(pairwise(edges_ns)):
        ledger.add(make_span(str(number), start_ns, end_ns))
    done = ledger.settle(11_500_000_000)
    idle_j = ledger.totals["GPU-0"].idle_j
    assert gpu.known_since_ns is not None
    delta_j = counted_j(gpu, gpu.known_since_ns, ledger.watermark_ns["GPU-0"])
    assert sum(joules.gpu_energy_j or 0 for joules in done) + idle_j == pytest.approx(delta_j, abs=1e-6)
    assert all(joules.gpu_energy_j is not None and joules.gpu_energy_j >= 0 for joules in done)
    assert not any(joules.allocated for joules in done)


def test_a_tick_is_settled_as_a_whole_also_while_the_device_shows_nothing_new() -> None:
    timeline = Timeline(make_device())
    ledger = Ledger({"GPU-0": timeline})
    feed_counter(timeline, lambda t: 100 * t, 0, 5)
    feed_counter(timeline, lambda t: 100 * t, 8, 12)
    ledger.begin("open", 6_500_000_000)
    ledger.settle(20 * SECOND)
    watermark_ns = ledger.watermark_ns["GPU-0"]
    assert watermark_ns == timeline.floor_ns(6_500_000_000)
    assert watermark_ns < 5 * SECOND
