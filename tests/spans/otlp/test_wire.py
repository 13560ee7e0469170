"""What is read is what OpenTelemetry's own library wrote; anything else is an error of ours and nothing worse."""

from __future__ import annotations

import tracemalloc

import pytest
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span
from otlp_messages import S, a_body, a_request, a_span, attributes, of_resource

from llmpower.spans.otlp.records import OtlpSpan
from llmpower.spans.otlp.wire import (
    MAX_SPAN_BYTES,
    MAX_SPANS,
    TooManySpansError,
    UndecodableError,
    encode_answer,
    encode_error,
    read_spans,
)
from llmpower.spans.packets import WireError

VALUES = st.text(max_size=20) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
SPANS = st.builds(
    lambda start, end, values, **fields: Span(
        start_time_unix_nano=start, end_time_unix_nano=end, attributes=attributes(values), **fields
    ),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.dictionaries(st.text(max_size=20), VALUES, max_size=5),
    name=st.text(max_size=20),
    kind=st.integers(0, 5),
    trace_id=st.binary(max_size=20),
    span_id=st.binary(max_size=10),
    parent_span_id=st.binary(max_size=10),
)
RESOURCES = st.lists(
    st.tuples(st.lists(SPANS, max_size=4), st.dictionaries(st.text(max_size=9), VALUES, max_size=3)), max_size=3
)


@given(RESOURCES)
def test_what_its_own_library_wrote_is_read(resources: list[tuple[list[Span], dict[str, object]]]) -> None:
    request = ExportTraceServiceRequest(
        resource_spans=[of_resource(*spans, **values) for spans, values in resources],
    )
    wanted = [
        (
            span.trace_id,
            span.span_id,
            span.parent_span_id,
            span.name,
            span.kind,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes},
        )
        for spans, _ in resources
        for span in spans
    ]
    found = read_spans(request.SerializeToString())
    assert all(isinstance(span, OtlpSpan) for span in found)
    assert [
        (
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.name,
            span.kind,
            span.start_utc_ns,
            span.end_utc_ns,
            span.attributes,
        )
        for span in found
        if isinstance(span, OtlpSpan)
    ] == wanted


@settings(max_examples=500)
@given(st.binary(max_size=200) | st.integers(0, 400).map(lambda size: BODY[:size]))
@example(b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x0b")
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    try:
        spans = read_spans(body)
    except UndecodableError as error:
        # Where we refuse, so does OpenTelemetry's own library; but for groups, which none of its messages has.
        if "wire type" not in str(error):
            with pytest.raises(DecodeError):
                ExportTraceServiceRequest.FromString(body)
    else:
        count = sum(
            len(scope.spans)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
        )
        assert len(spans) == count


BODY = a_body(a_span(S, 2 * S), a_span(2 * S, 3 * S, attributes={"long": "x" * 100}))


def test_every_truncation_is_refused() -> None:
    """Apart from those that end between two messages, which are requests with less in them."""
    whole = len(read_spans(BODY))
    for size in range(1, len(BODY)):
        with pytest.raises(UndecodableError):
            read_spans(BODY[:size])
    assert whole == 2
    assert read_spans(b"") == []


def test_a_resource_may_come_after_its_spans() -> None:
    inner = a_request(a_span(S, 2 * S), service__name="late").resource_spans[0]
    spans_only, resource_only = ResourceSpans(scope_spans=inner.scope_spans), ResourceSpans(resource=inner.resource)
    swapped = spans_only.SerializeToString() + resource_only.SerializeToString()
    (span,) = read_spans(field(1, swapped))
    assert isinstance(span, OtlpSpan)
    assert span.resource == {"service.name": "late"}


def test_deep_nesting_is_refused() -> None:
    value = b""
    for _ in range(150):
        value = field(5, field(1, value))  # AnyValue.array_value, ArrayValue.values
    span = field(9, field(1, b"deep") + field(2, value))
    with pytest.raises(UndecodableError):
        read_spans(field(1, field(2, field(2, span))))


def test_a_huge_span_costs_itself_alone() -> None:
    huge = a_span(S, 2 * S, attributes={"prompt": "x" * MAX_SPAN_BYTES})
    first, second = read_spans(a_body(huge, a_span(S, 2 * S)))
    assert isinstance(first, WireError)
    assert first.reason == "too_large"
    assert isinstance(second, OtlpSpan)


def test_long_texts_are_left_out() -> None:
    (span,) = read_spans(a_body(a_span(S, 2 * S, attributes={"prompt": "x" * 5000, "bytes": b"x"})))
    assert isinstance(span, OtlpSpan)
    assert span.attributes == {"gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 11}


@pytest.mark.parametrize("empty", [b"\x12\x00", b"\x1a\x00", b"\x08\x00"])
def test_millions_of_empty_messages_are_refused_before_they_fill_the_memory(empty: bytes) -> None:
    body = field(1, field(2, empty * (2 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(TooManySpansError, match="smaller batches"):
            read_spans(body)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()


def test_as_many_as_are_allowed_are_read() -> None:
    spans = [Span(name="x")] * (MAX_SPANS - 3)
    body = ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])]
    ).SerializeToString()
    assert len(read_spans(body)) == len(spans)


def test_answers_are_the_messages_that_the_specification_names() -> None:
    assert encode_answer() == b""
    partial = ExportTraceServiceResponse.FromString(encode_answer(3, "why")).partial_success
    assert (partial.rejected_spans, partial.error_message) == (3, "why")
    status = Status.FromString(encode_error(3, "why"))
    assert (status.code, status.message) == (3, "why")


def field(number: int, content: bytes) -> bytes:
    """A message within another, by hand."""
    size, encoded = len(content), b""
    while size > 127:
        encoded += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + encoded + bytes([size]) + content
