from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest

from llmpower.daemon.storing.outbox import MAX_BATCH_ROWS, MAX_WAITING_ROWS, RETRY_S, SLOW_S, Outbox
from llmpower.exceptions import StoreError
from llmpower.store import Appended
from llmpower.types import Measurement, Span

Make = Callable[..., Measurement]

S = 1_000_000_000
FULL = StoreError("--store", "spans.db", "the disk is full; make room")


class Slow:
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.future: Future[Appended] = Future()

    def append(self, measurements: Sequence[Measurement]) -> Future[Appended]:
        self.batches.append([measurement.span.span_id for measurement in measurements])
        self.future = Future()
        return self.future


class Bench:
    def __init__(self) -> None:
        self.store = Slow()
        self.failed: list[str] = []
        self.told: list[Span] = []
        self.outbox = Outbox(self.store.append, self.failed.append)
        self.outbox.on_stored = self.told.extend


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_comes_while_a_batch_is_under_way_waits_for_the_next(bench: Bench, make_measurement: Make) -> None:
    bench.outbox.put(make_measurement(1))
    bench.outbox.turn(0)
    bench.outbox.put(make_measurement(2))
    bench.outbox.put(make_measurement(3))
    bench.outbox.turn(S)
    assert bench.store.batches == [["span-1"]]
    assert bench.outbox.waiting == 3
    assert bench.told == [], "nothing is acknowledged before it is committed"
    bench.store.future.set_result(Appended(1))
    bench.outbox.turn(2 * S)
    assert bench.store.batches == [["span-1"], ["span-2", "span-3"]]
    assert [span.span_id for span in bench.told] == ["span-1"]
    assert (bench.outbox.waiting, bench.outbox.stored) == (2, 1)


def test_a_batch_that_fails_goes_again_before_what_came_later(bench: Bench, make_measurement: Make) -> None:
    for number in range(3):
        bench.outbox.put(make_measurement(number))
    bench.outbox.turn(0)
    bench.outbox.put(make_measurement(3))
    bench.store.future.set_exception(FULL)
    bench.outbox.turn(S)
    bench.outbox.turn(S + round(RETRY_S * 1e9) - 1)
    assert len(bench.store.batches) == 1
    assert bench.failed == [str(FULL)]
    bench.outbox.turn(S + round(RETRY_S * 1e9))
    assert bench.store.batches[1] == ["span-0", "span-1", "span-2", "span-3"]
    assert bench.told == []
    assert (bench.outbox.errors, bench.outbox.waiting, bench.outbox.lost) == (1, 4, 0)


def test_duplicates_and_what_no_table_holds_are_told_apart_and_done_with(bench: Bench, make_measurement: Make) -> None:
    for number in range(6):
        bench.outbox.put(make_measurement(number))
    bench.outbox.turn(0)
    bench.store.future.set_result(Appended(3, unstorable=1))
    bench.outbox.turn(1)
    assert (bench.outbox.stored, bench.outbox.duplicates, bench.outbox.unstorable) == (3, 2, 1)
    assert len(bench.told) == 6, "none of them is worth sending again"


def test_a_store_that_hangs_is_reported_and_costs_the_oldest_of_too_many(bench: Bench, make_measurement: Make) -> None:
    measurement = make_measurement(0)
    for _ in range(MAX_BATCH_ROWS):
        bench.outbox.put(measurement)
    bench.outbox.turn(0)
    for number in range(1, MAX_WAITING_ROWS + 1):
        bench.outbox.put(make_measurement(number))
    bench.outbox.turn(round(SLOW_S * 1e9))
    assert bench.failed == []
    assert bench.outbox.waiting == MAX_WAITING_ROWS, "with those under way, which nobody can take back"
    assert bench.outbox.lost == MAX_BATCH_ROWS
    bench.outbox.turn(round(SLOW_S * 1e9) + 1)
    assert bench.failed == ["the store has not answered for more than 10 s; its disk hangs or is overloaded"]
    bench.store.future.set_result(Appended(MAX_BATCH_ROWS))
    bench.outbox.turn(20 * S)
    assert bench.store.batches[1][0] == f"span-{MAX_BATCH_ROWS + 1}"
    assert len(bench.store.batches[1]) == MAX_BATCH_ROWS


def test_too_many_cost_those_of_the_user_who_has_most(bench: Bench, make_measurement: Make) -> None:
    few = [make_measurement(number, uid=1) for number in range(3)]
    for measurement in few:
        bench.outbox.put(measurement)
    bench.outbox.turn(0)
    for number in range(10, MAX_WAITING_ROWS + 10):
        if number % (MAX_WAITING_ROWS // 2) == 0:
            bench.outbox.put(few[0])
        bench.outbox.put(make_measurement(number, uid=2))
    bench.outbox.turn(S)
    assert (bench.outbox.waiting, bench.outbox.lost) == (MAX_WAITING_ROWS, 5)
    assert (bench.outbox.waiting_of(1), bench.outbox.waiting_of(2)) == (5, MAX_WAITING_ROWS - 5)
    bench.store.future.set_result(Appended(3))
    bench.outbox.turn(2 * S)
    assert bench.store.batches[1][0] == "span-15", "the oldest of them"
    assert bench.outbox.waiting_of(1) == 2


def test_the_end_of_a_failure_is_said_once(
    bench: Bench, make_measurement: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench.outbox.put(make_measurement(1))
    for second in (0, 10, 20):
        bench.outbox.turn(second * S)
        bench.store.future.set_exception(FULL)
        bench.outbox.turn(second * S + 1)
    for second in (30, 40):
        bench.outbox.turn(second * S)
        bench.store.future.set_result(Appended(1))
        bench.outbox.turn(second * S + 1)
        bench.outbox.put(make_measurement(2))
    assert [record.message for record in caplog.records] == [
        "the store works again after 30 s; 1 measurement had waited"
    ]
