"""What becomes of spans that arrive by OpenTelemetry, before and after they are acknowledged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from otlp_messages import CLIENT, S, a_body, a_span

from llmpower.daemon.clock import WallClock
from llmpower.daemon.otlp.spans import FORGET_S, PROGRAM, OtlpReceiver
from llmpower.spans.clocks import Offset
from llmpower.spans.spool import MAX_DIRECTORY_BYTES, SEGMENT_BYTES
from llmpower.spans.wire import decode
from llmpower.types import Span

NOW_NS = 5000 * S
OFFSET_NS = 1_767_225_600 * S


class Post:
    """A receiver at a moment of its own, and what it has written."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.now_ns = NOW_NS
        self.offset = Offset(OFFSET_NS, 100)
        self.clock = WallClock()
        self.receiver = OtlpReceiver(
            directory,
            self.clock,
            now=lambda: self.now_ns,
            utc_offset=lambda: self.offset,
            **{"hold_s": 60.0} | options,
        )

    def utc(self, seconds_ago: float) -> int:
        return self.now_ns + self.offset.ns - round(seconds_ago * S)

    def span(self, began_s_ago: float, ended_s_ago: float, **fields: Any) -> Any:
        return a_span(self.utc(began_s_ago), self.utc(ended_s_ago), **fields)

    def post(self, *spans: Any, **resource: Any) -> tuple[int, ExportTraceServiceResponse]:
        answer = self.receiver.take(a_body(*spans, **resource))
        return answer.status, ExportTraceServiceResponse.FromString(answer.body if answer.status == 200 else b"")

    @property
    def spans(self) -> list[Span]:
        lines = [line for file in sorted(self.directory.iterdir()) for line in file.read_bytes().splitlines()[1:]]
        return [message for message in map(decode, lines) if isinstance(message, Span)]


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path / "s.spool")
    yield post
    post.receiver.close()


def test_what_began_before_this_machine_is_said_to_by_its_own_beginning(post: Post) -> None:
    # Its queue ended 7 s after boot.
    _, response = post.post(post.span(5003, 2, attributes={"gen_ai.latency.time_in_queue": 10.0}))
    assert "started 3 s before this machine" in response.partial_success.error_message


def test_what_is_accepted_stands_in_the_spool_by_our_clock(post: Post) -> None:
    attributes = {"gen_ai.latency.time_in_queue": 1.0, "gen_ai.latency.time_to_first_token": 1.5}
    status, response = post.post(post.span(10, 2, attributes=attributes))
    assert (status, response) == (200, ExportTraceServiceResponse())
    (span,) = post.spans
    assert (span.start_ns, span.first_token_ns, span.end_ns) == (NOW_NS - 9 * S, NOW_NS - 8.5 * S, NOW_NS - 2 * S)
    assert (span.model_name, span.input_tokens, span.output_tokens, span.batch_size) == ("smol", 7, 11, 1)
    assert span.device_uuids is None
    assert post.receiver.state().spans == {"accepted": 1}


def test_spans_of_a_start_up_are_ignored_and_counted(post: Post) -> None:
    none = {"gen_ai.usage.prompt_tokens": None, "gen_ai.usage.completion_tokens": None}
    status, response = post.post(post.span(10, 2, attributes=none), post.span(-100, -50, attributes=none))
    assert (status, response) == (200, ExportTraceServiceResponse())
    assert post.receiver.state().spans == {"no_request": 2}
    assert post.receiver.sending, "who starts up will send requests"


@pytest.mark.parametrize(
    ("began", "ended", "reason"),
    [(1, -3600, "in_the_future"), (-3600, -3601, "in_the_future"), (5001, 5000, "before_boot"), (2, 3, "bad_value")],
)
def test_times_that_cannot_be_are_refused_and_the_rest_of_the_batch_is_not(
    post: Post, began: float, ended: float, reason: str
) -> None:
    status, response = post.post(post.span(began, ended), post.span(2, 1))
    assert status == 200
    assert response.partial_success.rejected_spans == 1
    assert reason in response.partial_success.error_message
    assert len(post.spans) == 1
    assert post.receiver.state().refused == {reason: 1}


def test_an_end_within_the_error_of_the_clock_is_now(post: Post) -> None:
    post.post(post.span(1, -0.0005))
    assert post.spans[0].end_ns == NOW_NS
    assert post.receiver.state().clock_error_s == pytest.approx(0.0010001)


@pytest.mark.parametrize("began", [1.0, -0.0004])
def test_a_first_token_at_such_an_end_is_now_too(post: Post, began: float) -> None:
    post.post(post.span(began, -0.0005, attributes={"gen_ai.latency.time_to_first_token": began + 0.0005}))
    assert post.receiver.state().refused == {}
    (span,) = post.spans
    assert (span.first_token_ns, span.end_ns) == (NOW_NS, NOW_NS)


def test_a_clock_that_was_set_is_seen_before_the_loop_does(post: Post) -> None:
    post.clock.note(NOW_NS - 100 * S, OFFSET_NS)
    post.now_ns += 10 * S
    post.offset = Offset(OFFSET_NS + 3600 * S, 100)
    # It was told of by the clock that it is now, and began by the one that was.
    post.post(a_span(post.utc(0) - 3600 * S - 30 * S, post.utc(0)), post.span(0, 0))
    first, _ = sorted(post.spans, key=lambda span: span.start_ns)
    assert (first.start_ns, first.end_ns) == (NOW_NS - 20 * S, NOW_NS + 10 * S)


def test_a_span_that_comes_again_is_accepted_and_written_once(post: Post) -> None:
    span = post.span(10, 2)
    for _ in range(3):
        assert post.post(span) == (200, ExportTraceServiceResponse())
    assert len(post.spans) == 1
    assert post.receiver.state().spans == {"accepted": 1, "repeated": 2}


def test_calls_of_clients_are_not_counted_unless_asked_for(post: Post, tmp_path: Path) -> None:
    status, response = post.post(post.span(2, 1, kind=CLIENT))
    assert (status, response.partial_success.rejected_spans) == (200, 0)
    assert "otlp.count-calls" in response.partial_success.error_message
    assert post.spans == []
    counting = Post(tmp_path / "other.spool", count_calls=True)
    assert counting.post(counting.span(2, 1, kind=CLIENT)) == (200, ExportTraceServiceResponse())
    assert len(counting.spans) == 1


def test_without_room_the_sender_is_asked_to_come_again_and_nothing_is_written_twice(post: Post) -> None:
    spans = [post.span(2, 1, attributes={"gen_ai.request.id": "x" * 250}) for _ in range(3)]
    post.directory.rename(post.directory.with_name("away"))
    answer = post.receiver.take(a_body(*spans))
    assert (answer.status, answer.retry_after_s) == (503, 5)
    assert "send again" in Status.FromString(answer.body).message
    assert "accepted" not in post.receiver.state().spans
    post.directory.with_name("away").rename(post.directory)
    assert post.post(*spans)[0] == 200
    assert post.post(*spans)[0] == 200
    assert len(post.spans) == 3


def test_a_full_spool_is_503(post: Post) -> None:
    for number in range(MAX_DIRECTORY_BYTES // SEGMENT_BYTES + 1):
        with (post.directory / f"other-{number:08}.spans").open("wb") as file:
            file.truncate(SEGMENT_BYTES)
    assert post.receiver.take(a_body(post.span(2, 1))).status == 503
    for path in post.directory.iterdir():
        path.unlink()
    assert post.receiver.take(a_body(post.span(2, 1))).status == 200


def test_who_stops_accepts_nothing_more(post: Post) -> None:
    post.receiver.stop()
    assert post.receiver.take(a_body(post.span(2, 1))).status == 503
    assert post.spans == []


def test_what_is_no_message_is_400_and_says_why(post: Post) -> None:
    answer = post.receiver.take(a_body(post.span(2, 1))[:-1])
    assert answer.status == 400
    status = Status.FromString(answer.body)
    assert (status.code, status.message) == (3, "the body ends in the middle of a message")
    assert post.receiver.state().refused == {"not_otlp": 1}
    assert not post.receiver.sending


def test_a_sender_is_remembered_for_a_day_and_by_the_next_daemon(post: Post) -> None:
    assert not post.receiver.sending
    post.post(post.span(2, 1))
    assert post.receiver.sending
    post.receiver.close()
    assert [path.name.startswith(PROGRAM) for path in post.directory.iterdir()] == [True]
    assert Post(post.directory).receiver.sending
    post.now_ns += round(FORGET_S * S) + 1
    assert not post.receiver.sending
    assert not Post(post.directory.with_name("fresh")).receiver.sending


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), max_size=5),
    offset_ns=st.integers(-(2**62), 2**62),
    tokens=st.floats() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=300),
)
def test_whatever_times_and_counts_come_each_span_is_accepted_or_refused(
    times: list[tuple[int, int]], offset_ns: int, tokens: Any, post: Post
) -> None:
    before = post.receiver.state().spans
    post.offset = Offset(offset_ns, 100)
    spans = [a_span(*each, attributes={"gen_ai.usage.prompt_tokens": tokens}) for each in times]
    status, response = post.post(*spans)
    assert status == 200
    after = post.receiver.state().spans
    accepted = after.get("accepted", 0) - before.get("accepted", 0)
    assert accepted + response.partial_success.rejected_spans == len(times)
