"""The bytes of OTLP/HTTP: a request's spans, and the answers that the specification asks for.

Messages are OpenTelemetry's own, read by protobuf, but not the request as a whole: two bytes make an empty span, of
which protobuf makes an object of 170, so 4 MiB of them took 343 MB and kept the interpreter for 0.4 s. The outermost
levels, which only hold others, are walked here, and counted; each span is then decoded by itself, within a bound.

https://opentelemetry.io/docs/specs/otlp/ and opentelemetry/proto/collector/trace/v1/trace_service.proto
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from llmpower.exceptions import LlmpowerError
from llmpower.spans.otlp.records import OtlpSpan, Value
from llmpower.spans.packets import MAX_STRING_CHARS, WireError
from llmpower.spans.wire import MAX_DEVICES

MAX_SPANS = 20_000
"""Of one request, and other parts of it. A collector sends 8,192 at a time, a program 512."""

MAX_SPAN_BYTES = 1 << 20
"""Prompts and answers stand in the spans of some programs."""

MAX_VALUE_CHARS = 4 * MAX_STRING_CHARS
"""Longer texts are prompts, which nobody here wants to know; a list of GPUs is shorter."""

# Numbers of fields: in ExportTraceServiceRequest, in ResourceSpans, and in ScopeSpans.
_RESOURCE_SPANS = 1
_RESOURCE, _SCOPE_SPANS = 1, 2
_SPANS = 2
_LENGTH = 2
_MAX_VARINT_BYTES = 10


class UndecodableError(LlmpowerError):
    """A body that is no ExportTraceServiceRequest."""


class TooManySpansError(LlmpowerError):
    """A body that holds more than :data:`MAX_SPANS`."""


def read_spans(body: bytes) -> list[OtlpSpan | WireError]:
    """The spans of an ExportTraceServiceRequest, in its order; an error for each that is too large to be looked at.

    Raises:
        UndecodableError: it is none, wholly or in part.
        TooManySpansError: it holds more than anybody sends.
    """
    try:
        return list(_read(body))
    except DecodeError as error:
        raise UndecodableError(f"the body is not an ExportTraceServiceRequest in protobuf: {error}") from error


def encode_answer(rejected_spans: int = 0, message: str = "") -> bytes:
    """An ExportTraceServiceResponse; without arguments, that of full success."""
    if not rejected_spans and not message:
        return ExportTraceServiceResponse().SerializeToString()
    partial = ExportTracePartialSuccess(rejected_spans=rejected_spans, error_message=message)
    return ExportTraceServiceResponse(partial_success=partial).SerializeToString()


def encode_error(code: int, message: str) -> bytes:
    """A google.rpc.Status, the body of every answer that is an error; ``code`` is gRPC's."""
    body: bytes = Status(code=code, message=message).SerializeToString()
    return body


def _read(body: bytes) -> Iterator[OtlpSpan | WireError]:
    left = MAX_SPANS
    for number, of_resource in _messages(memoryview(body)):
        if number != _RESOURCE_SPANS:
            continue
        # A part may come before the resource that it is of.
        parts = list(_messages(of_resource, left))
        left -= len(parts) + 1
        resource: dict[str, Value] = {}
        for number, part in parts:
            if number == _RESOURCE and len(part) <= MAX_SPAN_BYTES:
                resource |= _values(Resource.FromString(bytes(part)).attributes)
        for number, part in parts:
            if number != _SCOPE_SPANS:
                continue
            for number, span in _messages(part, left):
                left -= 1
                if number == _SPANS:
                    yield _span(span, resource)


def _span(data: memoryview, resource: Mapping[str, Value]) -> OtlpSpan | WireError:
    if len(data) > MAX_SPAN_BYTES:
        return WireError("too_large", f"a span of {len(data)} bytes; up to {MAX_SPAN_BYTES} are looked at")
    span = Span.FromString(bytes(data))
    return OtlpSpan(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id=span.parent_span_id,
        name=span.name[:MAX_STRING_CHARS],
        kind=span.kind,
        start_utc_ns=span.start_time_unix_nano,
        end_utc_ns=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        resource=resource,
    )


def _values(attributes: Iterable[KeyValue]) -> dict[str, Value]:
    return {each.key: value for each in attributes if (value := _value(each.value)) is not None}


def _value(value: AnyValue) -> Value | None:
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value if len(value.string_value) <= MAX_VALUE_CHARS else None
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bool_value":
            return value.bool_value
        case "array_value":
            items = value.array_value.values[: MAX_DEVICES + 1]
            return tuple(item.string_value[:MAX_STRING_CHARS] for item in items)
    return None


def _messages(data: memoryview, most: int = MAX_SPANS) -> Iterator[tuple[int, memoryview]]:
    """The fields of a message that may be messages themselves, at most this many, by their numbers.

    https://protobuf.dev/programming-guides/encoding/
    """
    at, count = 0, 0
    while at < len(data):
        key, at = _varint(data, at)
        if not 8 <= key < 1 << 32:
            raise UndecodableError("the body is not an ExportTraceServiceRequest: a field without a number")
        match key & 7:
            case 0:
                _, at = _varint(data, at)
                size = 0
            case 1:
                size = 8
            case 2:
                size, at = _varint(data, at)
            case 5:
                size = 4
            case other:
                raise UndecodableError(f"the body is not an ExportTraceServiceRequest: a field of wire type {other}")
        if at + size > len(data):
            raise UndecodableError("the body ends in the middle of a message")
        count += 1
        if count > most:
            raise TooManySpansError(f"more than {MAX_SPANS} spans in one request; send smaller batches")
        if key & 7 == _LENGTH:
            yield key >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for length, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        number |= (byte & 0x7F) << (7 * length)
        if byte < 0x80:
            return number, at + length + 1
    raise UndecodableError("the body ends in the middle of a number, or has one that is too long")
