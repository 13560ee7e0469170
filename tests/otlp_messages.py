"""OpenTelemetry's messages as its own library makes them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

S = 1_000_000_000
INTERNAL, SERVER, CLIENT = 1, 2, 3
_ids = itertools.count(1)


def attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def any_value(value: Any) -> AnyValue:
    match value:
        case AnyValue():
            return value
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))
        case _:
            return AnyValue(string_value=value)


def a_span(start_ns: int, end_ns: int, *, name: str = "llm_request", kind: int = SERVER, **fields: Any) -> Span:
    """A span of vLLM's; ``attributes`` are added to its counts of tokens, or take them away where they are ``None``."""
    number = next(_ids)
    values = {"gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 11} | fields.pop("attributes", {})
    given = {"trace_id": number.to_bytes(16), "span_id": number.to_bytes(8)} | fields
    return Span(
        name=name,
        kind=kind,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=end_ns,
        attributes=attributes({key: value for key, value in values.items() if value is not None}),
        **given,
    )


def of_resource(*spans: Span, **resource: Any) -> ResourceSpans:
    values = {name.replace("__", "."): value for name, value in resource.items()}
    return ResourceSpans(resource=Resource(attributes=attributes(values)), scope_spans=[ScopeSpans(spans=spans)])


def a_request(*spans: Span, **resource: Any) -> ExportTraceServiceRequest:
    """All of one resource, whose attributes have ``__`` for a dot."""
    return ExportTraceServiceRequest(resource_spans=[of_resource(*spans, **resource)])


def a_body(*spans: Span, **resource: Any) -> bytes:
    return a_request(*spans, **({"service__name": "smol"} | resource)).SerializeToString()
