"""Spans that are reported after their end: joined to samples still held, at no cost to others."""

from __future__ import annotations

import pytest
from engine_bench import Bench

from llmpower.daemon.accounting.admission import PRESSING
from llmpower.daemon.accounting.engine import SETTLE_DELAY_S
from llmpower.daemon.accounting.settling import settle_delay_s


def settle(bench: Bench, seconds: float, hold_s: float) -> None:
    for _ in range(round(seconds / 0.25)):
        bench.pass_time(0.25, settle_delay_s=hold_s)


def test_a_span_that_comes_within_the_hold_has_its_joules(bench: Bench) -> None:
    settle(bench, 30.0, 20.0)
    # It began 15 s ago, ended 5 s ago, and nobody has known of it.
    bench.engine.finish(bench.span("late", 10.0, ended_s_ago=5.0))
    settle(bench, 20.0, 20.0)
    (measurement,) = bench.stored
    assert measurement.gpu_energy_j == pytest.approx(3000.0, rel=1e-3)
    assert measurement.quality == "measured"
    assert bench.engine.snapshot.spans_late == 0
    assert bench.engine.snapshot.settle_delay_s == 20.0


def test_a_span_that_comes_after_it_is_kept_without_and_counted(bench: Bench) -> None:
    settle(bench, 60.0, 20.0)
    bench.engine.finish(bench.span("later", 10.0, ended_s_ago=15.0))
    settle(bench, 1.0, 20.0)
    (measurement,) = bench.stored
    assert measurement.gpu_energy_j is None
    assert measurement.quality == "unavailable"
    assert bench.engine.snapshot.spans_late == 1


def test_without_a_sender_nothing_waits(bench: Bench) -> None:
    bench.engine.finish(bench.span("now", 2.0))
    settle(bench, 1.0, SETTLE_DELAY_S)
    assert [measurement.span.span_id for measurement in bench.stored] == ["now"]


def test_when_senders_come_the_books_stand_still_and_then_go_on(bench: Bench) -> None:
    settle(bench, 10.0, SETTLE_DELAY_S)
    energy_j = bench.engine.snapshot.devices[0].energy_j
    settle(bench, 19.0, 20.0)
    assert bench.engine.snapshot.devices[0].energy_j == energy_j
    settle(bench, 10.0, 20.0)
    assert bench.engine.snapshot.devices[0].energy_j > energy_j


def test_every_joule_is_in_one_account_however_spans_come(bench: Bench) -> None:
    settle(bench, 20.0, 15.0)
    for number in range(40):
        # Side by side, told of in an order that is not that of their ends.
        bench.engine.finish(bench.span(f"span {number}", 3.0, ended_s_ago=(number * 7) % 10))
        settle(bench, 0.5, 15.0)
    settle(bench, 20.0, 15.0)
    (card,) = bench.engine.snapshot.devices
    assert len(bench.stored) == 40
    assert sum(measurement.gpu_energy_j or 0.0 for measurement in bench.stored) == pytest.approx(card.inference_j)
    assert card.energy_j == pytest.approx(card.inference_j + card.idle_j + sum(card.unattributed_j.values()))


def test_what_waits_is_bounded() -> None:
    assert settle_delay_s(60.0, 0) == settle_delay_s(60.0, PRESSING // 2) == 60.0
    assert settle_delay_s(60.0, 3 * PRESSING // 4) == 30.0
    assert settle_delay_s(60.0, PRESSING) == settle_delay_s(60.0, 2 * PRESSING) == SETTLE_DELAY_S


@pytest.mark.parametrize("per_s", [10, 100, 1000, 5000])
def test_at_any_rate_the_wait_finds_a_level_below_what_may_wait(per_s: int) -> None:
    waiting: list[float] = []
    for step in range(4 * 600):
        now_s = step / 4
        waiting += [now_s] * (per_s // 4)
        delay_s = settle_delay_s(120.0, len(waiting))
        waiting = [ended_s for ended_s in waiting if ended_s > now_s - delay_s]
        assert len(waiting) < PRESSING
