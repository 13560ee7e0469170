"""The daemon's end of the spool: everything that can be read is taken once, and nothing that lies there does harm."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest
from msgspec import structs
from spool_station import BEGAN_NS, NOBODY, OFFSET_NS, UID, Station, a_span

from llmpower.daemon.receiving.spool import MAX_LINES_A_STEP
from llmpower.exceptions import StoreError
from llmpower.spans.clocks import boot_id
from llmpower.spans.spool import SpoolWriter
from llmpower.spans.wire import Begin, Cancel, SenderClock, encode, encode_head
from llmpower.types import Span

S = 1_000_000_000


def test_spans_are_taken_as_they_are_written_and_the_file_goes_when_all_are_stored(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.step()
    writer.append(encode(a_span("b")))
    station.step()
    assert station.book.spans == [a_span("a"), a_span("b")]
    station.spool.stored([a_span("b")])
    station.step()
    writer.close()
    station.step()
    assert len(station.files()) == 1, "a is not stored"
    station.spool.stored([a_span("a")])
    station.step()
    assert station.files() == []
    assert station.book.rejected == {}


def test_a_file_that_is_being_written_stays_though_all_is_stored(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.step()
    station.spool.stored([a_span("a")])
    for _ in range(3):
        station.step()
    assert writer.append(encode(a_span("b")))
    station.step()
    assert station.book.ids == ["a", "b"]


def test_what_is_written_after_the_look_waits_for_the_next(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.spool.look()
    writer.append(encode(a_span("b")))
    assert not station.spool.is_read(UID)
    station.spool.read()
    assert station.book.ids == ["a"]
    assert station.spool.is_read(UID)
    station.step()
    assert station.book.ids == ["a", "b"]


def test_what_a_program_writes_last_is_taken_though_it_has_gone_since_the_look(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.step()
    station.spool.stored([a_span("a")])
    station.spool.look()
    writer.append(encode(a_span("b")))
    writer.close()
    station.spool.read()
    assert len(station.files()) == 1
    station.step()
    assert station.book.ids == ["a", "b"]
    station.spool.stored([a_span("b")])
    station.step()
    assert station.files() == []


def test_a_span_that_comes_twice_before_it_is_stored_holds_no_file(station: Station) -> None:
    station.write(a_span("a")).close()
    station.step()
    station.write(a_span("a"), a_span("a")).close()
    station.step()
    assert station.book.ids == ["a", "a", "a"]
    assert len(station.files()) == 1
    station.spool.stored([a_span("a")])
    station.spool.stored([a_span("a"), a_span("a")])
    station.step()
    assert station.files() == []


def test_a_span_that_is_refused_is_not_waited_for(station: Station) -> None:
    station.book.takes = False
    station.write(a_span("a")).close()
    station.step()
    assert station.book.ids == ["a"]
    assert station.files() == []


def test_nothing_is_read_for_which_there_is_no_room_and_nothing_is_lost(station: Station) -> None:
    station.write(*(a_span(str(number)) for number in range(100)))
    station.book.rooms[UID] = 30
    station.step()
    station.step()
    assert len(station.book.spans) == 30
    waiting = station.spool.waiting_bytes
    assert waiting > 0
    assert not station.spool.is_read(UID)
    station.book.rooms[UID] = 1000
    station.step(held_up=lambda uid: uid == UID)
    assert len(station.book.spans) == 30, "his packets come first"
    station.step()
    assert station.book.ids == [str(number) for number in range(100)]
    assert station.spool.waiting_bytes == 0


def test_one_step_takes_so_many_and_no_more(station: Station) -> None:
    for number in range(12):
        station.write(*(a_span(f"{number}-{each}") for each in range(600)))
    station.step()
    assert len(station.book.spans) == MAX_LINES_A_STEP
    station.step()
    assert len(set(station.book.ids)) == 7200


def test_a_span_runs_from_its_beginning_until_it_ends_or_fails(station: Station) -> None:
    writer = station.write()
    for span_id in "abc":
        writer.append(encode(Begin(span_id, 1500)))
    station.step()
    assert station.book.running == dict.fromkeys("abc", (1500, UID))
    writer.append(encode(a_span("a")))
    writer.append(encode(Cancel("b")))
    station.step()
    assert (station.book.ids, list(station.book.running)) == (["a"], ["c"])


def test_a_program_that_goes_takes_what_it_had_begun(station: Station) -> None:
    leaving, staying = station.write(), station.write()
    leaving.append(encode(Begin("a", 1500)))
    leaving.append(encode(Begin("finished", 1500)))
    staying.append(encode(Begin("b", 1500)))
    leaving.append(encode(a_span("finished")))
    leaving.close()
    station.step()
    assert list(station.book.running) == ["b"], "though what has ended is not stored"
    assert len(station.files()) == 2


def test_a_program_that_goes_on_in_another_file_keeps_what_it_had_begun(station: Station) -> None:
    writer = station.write()
    writer.append(encode(Begin("a", 1500)))
    while writer.segments < 3:
        writer.append(encode(Cancel("nothing")))
    for _ in range(5):
        station.step()
    assert station.spool.waiting_bytes == 0
    assert list(station.book.running) == ["a"]
    assert len(station.files()) == 1, "what is read of those before is done with"
    writer.append(encode(a_span("a")))
    station.step()
    assert (station.book.ids, station.book.running) == (["a"], {})


def test_a_program_cannot_cancel_what_another_began(station: Station) -> None:
    owner, other = station.write(), station.write()
    owner.append(encode(Begin("a", 1500)))
    station.step()
    other.append(encode(Cancel("a")))
    station.step()
    assert list(station.book.running) == ["a"]


def test_what_was_stored_before_a_crash_does_not_run_on(station: Station) -> None:
    writer = station.write()
    writer.append(encode(Begin("old", 1)))
    writer.append(encode(a_span("old", start_ns=1, end_ns=2)))
    station.book.in_store = {("old", UID)}
    station.step()
    station.book.answer()
    station.step()
    assert (station.book.ids, station.book.running) == ([], {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_writes_much_delays_nobody_and_each_is_who_he_is(station: Station) -> None:
    station.directory.chmod(0o1777)
    for directory in station.directory.parents[:3]:
        directory.chmod(0o755)
    for number in range(10):
        station.write(*(a_span(f"{number}-{each}") for each in range(600)))
    os.seteuid(NOBODY)
    try:
        # He says that it is root's.
        line = encode(a_span("quiet")).replace(b'"type":"span"', b'"type":"span","uid":0')
        writer = SpoolWriter(station.directory)
        assert writer.append(line)
        station.writers.append(writer)
    finally:
        os.seteuid(0)
    station.step()
    (quiet,) = [span for span in station.book.spans if span.span_id == "quiet"]
    assert quiet.uid == NOBODY
    assert len(station.book.spans) == MAX_LINES_A_STEP


def test_after_a_crash_what_the_store_has_is_not_taken_again(station: Station) -> None:
    old = [a_span(f"old-{number}", start_ns=1, end_ns=BEGAN_NS - 1) for number in range(3)]
    station.write(*old, a_span("new")).close()
    station.book.in_store = {("old-0", UID), ("old-2", UID + 1)}
    station.step()
    assert station.book.ids == ["new"]
    assert station.book.questions[0][0] == [(span.span_id, UID) for span in old]
    station.step()
    assert len(station.files()) == 1
    station.book.answer()
    station.step()
    assert station.book.ids == ["new", "old-1", "old-2"]
    station.spool.stored(station.book.spans)
    station.step()
    assert station.files() == []


def test_a_store_that_cannot_answer_is_asked_again(station: Station) -> None:
    station.write(a_span(start_ns=1, end_ns=2)).close()
    station.step()
    station.book.questions.pop()[1].set_exception(StoreError("--store", "spans.db", "the disk is gone"))
    station.step()
    station.book.answer()
    station.step()
    assert station.book.ids == ["a"]


def test_the_next_daemon_finds_what_this_one_had_not_stored(station: Station) -> None:
    writer = station.write(a_span("a"), a_span("b"))
    station.step()
    station.spool.stored([a_span("a")])
    station.spool.close()
    writer.close()
    station.book.spans.clear()
    station.spool = station.open()
    station.step()
    assert station.book.ids == ["a", "b"]


def test_spans_of_another_boot_keep_their_time_of_day(station: Station) -> None:
    # Its clock stood at 7 s when UTC less it was 5 s - 9 s: by this boot's clock that was at -2 s.
    head = encode_head(SenderClock("another", OFFSET_NS - 9 * S, 0))
    station.lay(encode(a_span(start_ns=6 * S, first_token_ns=6 * S + 1, end_ns=7 * S)), head=head)
    station.step()
    station.book.answer()
    station.step()
    assert station.book.spans == [a_span(start_ns=-3 * S, first_token_ns=-3 * S + 1, end_ns=-2 * S)]


def test_spans_of_another_time_namespace_are_brought_to_our_clock(station: Station) -> None:
    head = encode_head(SenderClock(boot_id(), OFFSET_NS - 1000 * S, 1000 * S))
    station.lay(
        encode(Begin("a", 1000 * S + 2000)), encode(a_span(start_ns=1000 * S + 2000, end_ns=1000 * S + 3000)), head=head
    )
    station.step()
    assert station.book.spans == [a_span()]


def test_a_clock_of_which_nobody_knows_how_far_it_is_from_ours_is_refused(station: Station) -> None:
    path = station.lay(encode(a_span()), head=encode_head(SenderClock(boot_id(), OFFSET_NS - 1000 * S)))
    station.step()
    assert station.book.spans == []
    assert station.book.rejected["other_clock"] == 1
    assert "-1000.000 s from ours" in station.book.failed[0]
    assert not path.exists()


def test_a_line_is_taken_once_however_the_reads_fall(station: Station, make_lines: Callable[[int], list[Span]]) -> None:
    spans = make_lines(1500)
    writer = station.write()
    deadline_s = time.monotonic() + 30
    for start in range(0, 1500, 7):
        for span in spans[start : start + 7]:
            assert writer.append(encode(span))
        station.step()
        assert time.monotonic() < deadline_s
    assert station.book.spans == spans


@pytest.fixture
def make_lines() -> Callable[[int], list[Span]]:
    """Spans whose lines are of many lengths."""
    return lambda count: [
        structs.replace(a_span(str(number)), attributes={"x": "é" * (number * 37 % 250)}) for number in range(count)
    ]
