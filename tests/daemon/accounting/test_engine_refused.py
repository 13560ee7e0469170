"""What the engine does not take: spans that cannot be, duplicates, too many, and a store that takes no rows."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from engine_bench import Bench, S

from llmpower.daemon.accounting.admission import MAX_PENDING, MAX_PENDING_OF_USER, PRESSING
from llmpower.daemon.accounting.engine import OWN_ROWS
from llmpower.daemon.storing.outbox import MAX_WAITING_ROWS
from llmpower.types import Measurement


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda bench: bench.engine.begin("a", bench.now_ns + 2 * S), "in_the_future"),
        (lambda bench: bench.engine.finish(bench.span("a", 1.0, ended_s_ago=-0.1)), "in_the_future"),
        (lambda bench: [bench.engine.begin("a", bench.now_ns) for _ in range(2)], "duplicate"),
        (lambda bench: [bench.engine.finish(bench.span("a", 0.1)) for _ in range(2)], "duplicate"),
    ],
)
def test_what_cannot_be_is_refused_and_counted(act: Callable[[Bench], object], reason: str, bench: Bench) -> None:
    act(bench)
    bench.engine.cancel("a")
    bench.pass_time(5.0)
    assert bench.engine.snapshot.spans_rejected == {reason: 1}
    assert bench.engine.pending == 0


def test_a_beginning_that_is_heard_after_the_end_opens_nothing_and_is_no_second_span(bench: Bench) -> None:
    assert bench.engine.finish(bench.span("a", 0.1))
    assert not bench.engine.begin("a", bench.now_ns)
    assert bench.engine.pending == 1
    bench.pass_time(0.25)
    assert (bench.engine.snapshot.spans_running, bench.engine.snapshot.spans_rejected) == (0, {})
    assert not bench.engine.finish(bench.span("a", 0.1)), "where it was one, its end says so"
    bench.pass_time(1.0)
    assert bench.engine.snapshot.spans_rejected == {"duplicate": 1}


def test_a_span_that_was_stored_before_is_counted_as_a_duplicate(bench: Bench) -> None:
    for _ in range(2):
        bench.engine.finish(bench.span("a", 0.1))
        bench.pass_time(1.0)
    assert len(bench.stored) == 1
    assert bench.engine.snapshot.spans_rejected == {"duplicate": 1}


def test_too_many_spans_waiting_are_refused(bench: Bench) -> None:
    bench.engine.begin("long", bench.now_ns)
    bench.pass_time(1.0)
    for number in range(MAX_PENDING_OF_USER + 3):
        assert bench.engine.finish(bench.span(str(number), 0.1, uid=1)) == (number < MAX_PENDING_OF_USER)
    assert (bench.engine.room(1), bench.engine.room(2)) == (0, MAX_PENDING - MAX_PENDING_OF_USER)
    for number in range(MAX_PENDING - MAX_PENDING_OF_USER):
        assert bench.engine.finish(bench.span(str(number), 0.1, uid=2)), "one user leaves room for another"
    assert bench.engine.pending == MAX_PENDING
    assert not bench.engine.finish(bench.span("one more", 0.1, uid=3))
    bench.pass_time(0.25)
    assert bench.engine.snapshot.spans_rejected["overloaded"] == 4


def test_who_holds_up_too_many_others_is_given_up(bench: Bench) -> None:
    bench.engine.begin("holding", bench.now_ns, 666)
    bench.pass_time(20.0)
    bench.engine.begin("young", bench.now_ns, 1)
    for number in range(PRESSING + 1):
        bench.engine.finish(bench.span(str(number), 0.1, ended_s_ago=0.1, uid=1))
    bench.pass_time(0.5)
    assert bench.engine.snapshot.spans_rejected == {"abandoned": 1}
    assert bench.engine.snapshot.spans_running == 1
    bench.engine.cancel("young", 1)
    bench.pass_time(0.5)
    assert len(bench.stored) == PRESSING + 1
    assert all(row.gpu_energy_j is not None for row in bench.stored)


def test_two_users_may_use_one_id_and_neither_ends_or_cancels_the_others(bench: Bench) -> None:
    for uid in (1, 2):
        assert bench.engine.begin("a", bench.now_ns, uid)
    bench.engine.cancel("a", 3)
    bench.pass_time(1.0)
    assert bench.engine.finish(bench.span("a", 1.0, uid=1))
    assert bench.engine.snapshot.spans_running == 2
    bench.pass_time(0.25)
    assert bench.engine.snapshot.spans_running == 1
    assert not bench.engine.finish(bench.span("a", 0.5, uid=1)), "its own it may not repeat"
    assert bench.engine.finish(bench.span("a", 1.0, uid=2))
    assert bench.engine.begin("a@2", bench.now_ns, 1), "nor is what another's is called inside anybody's to take"
    bench.engine.cancel("a@2", 1)
    bench.pass_time(1.0)
    assert sorted((row.span.span_id, row.span.uid) for row in bench.stored) == [("a", 1), ("a", 2)]
    assert all(row.allocated for row in bench.stored)


def test_what_the_store_cannot_take_is_offered_again(bench: Bench) -> None:
    bench.broken = "the disk is full; make room"
    bench.engine.finish(bench.span("a", 0.5))
    bench.pass_time(1.0)
    bench.pass_time(0.25)
    snapshot = bench.engine.snapshot
    assert (snapshot.store_errors, snapshot.store_waiting, snapshot.spans_stored) == (1, 1, 0)
    assert bench.engine.last_error == "--store = spans.db: the disk is full; make room"
    bench.engine.finish(bench.span("b", 0.1))
    bench.broken = None
    bench.pass_time(1.0)
    assert [row.span.span_id for row in bench.stored] == ["a", "b"]
    snapshot = bench.engine.snapshot
    assert (snapshot.store_errors, snapshot.store_waiting, snapshot.spans_stored, snapshot.store_lost) == (1, 0, 2, 0)
    assert bench.engine.unstored == 0


def test_a_store_that_stays_broken_costs_the_oldest_rows(bench: Bench) -> None:
    bench.broken = "the disk is full; make room"
    number = 0
    while number < MAX_WAITING_ROWS + 100:
        for _ in range(2000):
            bench.engine.finish(bench.span(str(number), 0.0))
            number += 1
        bench.pass_time(1.25)
    bench.broken = None
    bench.pass_time(1.25)
    assert bench.engine.snapshot.store_lost == number - MAX_WAITING_ROWS
    assert [row.span.span_id for row in bench.stored] == [str(n) for n in range(number - MAX_WAITING_ROWS, number)]


def test_what_keeps_failing_is_logged_once_a_minute(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.broken = "the disk is full; make room"
    bench.engine.finish(bench.span("a", 0.1))
    for _ in range(150):
        bench.pass_time(1.0)
    assert bench.engine.snapshot.store_errors > 100
    assert [record.message for record in caplog.records].count("--store = spans.db: the disk is full; make room") == 3


def test_there_is_room_for_no_more_than_can_wait_should_the_store_fail(
    bench: Bench, make_measurement: Callable[..., Measurement]
) -> None:
    bench.broken = "the disk is full; make room"
    before = bench.engine.room(1)
    for number in range(MAX_WAITING_ROWS - before + 100):
        bench.engine.outbox.put(make_measurement(number))
    assert bench.engine.room(1) == before - 100


def test_there_is_room_for_some_of_a_user_however_many_of_another_wait_for_the_store(
    bench: Bench, make_measurement: Callable[..., Measurement]
) -> None:
    bench.broken = "the disk is full; make room"
    for number in range(MAX_WAITING_ROWS):
        bench.engine.outbox.put(make_measurement(number, uid=1))
    assert (bench.engine.room(1), bench.engine.room(2)) == (0, OWN_ROWS)
    bench.engine.outbox.put(make_measurement(0, uid=2))
    assert bench.engine.finish(bench.span("a", 0.1, uid=2))
    assert bench.engine.room(2) == OWN_ROWS - 2
    bench.pass_time(2.0)
    assert bench.engine.snapshot.store_lost == 2
    assert bench.engine.outbox.waiting_of(2) == 2, "another's are lost"


def test_users_who_have_gone_are_not_remembered(bench: Bench) -> None:
    for uid in range(100):
        bench.engine.begin("a", bench.now_ns, uid)
        bench.engine.begin("b", bench.now_ns, uid)
        bench.engine.finish(bench.span("a", 0.0, uid=uid))
        bench.engine.cancel("b", uid)
    bench.pass_time(2.0)
    admission = bench.engine._admission
    assert not any((admission._open_of, admission._pending_of, admission._names, admission._keys))
