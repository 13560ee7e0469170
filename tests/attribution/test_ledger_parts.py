"""How much of what has been held up is booked at a call."""

from __future__ import annotations

import tracemalloc

import pytest
from devices import SECOND, conserved, feed_counter, make_device, make_span

from llmpower.attribution import Ledger, Timeline
from llmpower.attribution.ledger import AT_ONCE_S, MOST_PIECES


def test_what_a_long_span_has_held_up_is_booked_in_parts() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 101)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    for start_s in range(2, 90, 10):
        ledger.add(make_span(str(start_s), start_s * SECOND, (start_s + 5) * SECOND))
    reached_s, done = [], []
    for _ in range(4):
        done.append(len(ledger.settle(100 * SECOND)))
        reached_s.append(ledger.watermark_ns["GPU-0"] / SECOND)
    assert reached_s == pytest.approx([1 + AT_ONCE_S, 1 + 2 * AT_ONCE_S, 1 + 3 * AT_ONCE_S, 100], abs=0.5)
    assert done == [3, 3, 3, 0]
    assert ledger.totals["GPU-0"].inference_j == pytest.approx(9 * 5 * 200, rel=1e-3)
    conserved(ledger)


def settle_all(ledger: Ledger, until_ns: int) -> list[int]:
    """Settle until nothing is left behind; how many spans each call is done with."""
    done = [len(ledger.settle(until_ns))]
    while ledger.behind:
        done.append(len(ledger.settle(until_ns)))
    return done


def test_no_call_books_many_pieces() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 21)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    count = 2 * MOST_PIECES
    for number in range(count):
        start_ns = 2 * SECOND + number * 15_000_000
        ledger.add(make_span(str(number), start_ns, start_ns + 5_000_000))
    done = settle_all(ledger, 20 * SECOND)
    # Each makes two pieces: its own, and the idle time behind it.
    assert max(done) <= MOST_PIECES / 2 + 1
    assert (sum(done), len(done)) == (count, 5)
    conserved(ledger)


def test_thousands_of_spans_in_thousands_of_pieces_are_not_visited_one_by_one() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 8, period_s=2.0, phase_s=0.5)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    count = 2000
    for number in range(count):
        ledger.add(make_span(str(number), 3 * SECOND + number, 4 * SECOND + number * 100_000))
    tracemalloc.start()
    try:
        done = settle_all(ledger, 7 * SECOND)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # All in one tick, and six million spans in pieces: a float for each were 48 MB.
    assert max(done) == count
    assert most_bytes < 40e6
    conserved(ledger)


def test_what_one_tick_holds_is_booked_at_once_however_much_it_is() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 8, period_s=2.0, phase_s=0.5)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    for number in range(MOST_PIECES):
        start_ns = 3 * SECOND + number * 2_000_000
        ledger.add(make_span(str(number), start_ns, start_ns + 1_000_000))
    assert MOST_PIECES in settle_all(ledger, 7 * SECOND)
    conserved(ledger)


def test_a_tick_that_is_longer_than_what_is_booked_at_once_holds_nothing_up() -> None:
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 200, period_s=2 * AT_ONCE_S, phase_s=1.0)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(2 * SECOND)
    ledger.add(make_span("a", 70 * SECOND, 80 * SECOND))
    done = [joules.span.span_id for _ in range(4) for joules in ledger.settle(199 * SECOND)]
    assert done == ["a"]
    conserved(ledger)
