"""Which OpenTelemetry spans are requests to a model that runs here, and what each says of its request.

A request says how many tokens came in. vLLM's ``llm_request`` does, and so do the spans of whoever follows the
conventions for generative AI; spans of a start-up, of HTTP, of an agent or a tool do not run a model.

One request is one span. A span of kind CLIENT is by OpenTelemetry's definition a call to somebody else, who reports
it himself or runs on another machine: to count it too would count the request twice, or charge this machine's GPUs for
what ran elsewhere. It is counted where the operator says that the servers report nothing.

A request that waits in an engine's queue draws no power of its own, so it starts where the queue ends. Its time to
first token therefore is less than the one that its user saw; how long it waited is kept in its attributes.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and vllm/tracing (SpanAttributes)
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import isfinite

from llmpower.spans.otlp.records import CLIENT, OtlpSpan, Value
from llmpower.spans.packets import MAX_STRING_CHARS, WireError
from llmpower.spans.wire import MAX_PID

DEVICES_ATTRIBUTE = "llmpower.device_uuids"
"""Of a resource or a span: the GPUs that it runs on, as a list or separated by semicolons, commas or spaces."""

UNKNOWN_MODEL = "unknown"

_INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_MODEL = ("gen_ai.request.model", "gen_ai.response.model")
_FIRST_TOKEN_S = ("gen_ai.latency.time_to_first_token", "gen_ai.server.time_to_first_token")
_QUEUE_S = ("gen_ai.latency.time_in_queue",)
_REQUEST_ID = ("gen_ai.request.id", "gen_ai.response.id")
_PID = ("vllm.process_id", "process.pid")
_OPERATION = "gen_ai.operation.name"
_FRAMES = frozenset(("create_agent", "invoke_agent", "invoke_workflow", "execute_tool"))
_WITHOUT_OUTPUT = frozenset(("embeddings",))
_SDK_DEFAULT = "unknown_service"
_SEPARATORS = re.compile(r"[;,\s]+")


@dataclass(frozen=True, slots=True)
class Request:
    """What a span says of its request. Times are of the wall clock; ``device_uuids`` as in llmpower's Span."""

    span_id: str
    model_name: str
    device_uuids: tuple[str, ...] | None
    start_utc_ns: int
    first_token_utc_ns: int | None
    end_utc_ns: int
    input_tokens: int
    output_tokens: int
    hostname: str
    pid: int
    attributes: Mapping[str, str]


def is_request(span: OtlpSpan) -> bool:
    """Whether it reports a request to a model, wherever that ran."""
    attributes = span.attributes
    operation = attributes.get(_OPERATION)
    if operation in _FRAMES or _first(attributes, _INPUT_TOKENS) is None:
        return False
    return operation in _WITHOUT_OUTPUT or _first(attributes, _OUTPUT_TOKENS) is not None


def is_call_elsewhere(span: OtlpSpan) -> bool:
    """Whether it reports waiting for another process that ran the model."""
    return span.kind == CLIENT


def read_request(span: OtlpSpan, default_model_name: str | None = None) -> Request:
    """What a span says, for which :func:`is_request` is true.

    ``default_model_name`` is for spans that name neither a model nor a service.

    Raises:
        WireError: it says what cannot be.
    """
    if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id) or not any(span.span_id):
        raise WireError("bad_value", "trace_id or span_id is invalid: they have 16 and 8 bytes, not all 0")
    if span.end_utc_ns < span.start_utc_ns:
        raise WireError("bad_value", f"it ends {(span.start_utc_ns - span.end_utc_ns) / 1e9:.3f} s before it starts")
    attributes, resource = span.attributes, span.resource
    queue_s = _seconds(attributes, _QUEUE_S)
    first_ns = _later(span, _seconds(attributes, _FIRST_TOKEN_S))
    start_ns = _later(span, queue_s)
    if start_ns is None or (first_ns is not None and start_ns > first_ns):
        # It cannot have waited for longer than that, so nothing is known of the queue.
        start_ns, queue_s = span.start_utc_ns, None
    return Request(
        span_id=span_key(span),
        model_name=_model_name(span, default_model_name),
        device_uuids=_device_uuids(span),
        start_utc_ns=start_ns,
        first_token_utc_ns=first_ns,
        end_utc_ns=span.end_utc_ns,
        input_tokens=_tokens(attributes, _INPUT_TOKENS),
        output_tokens=_tokens(attributes, _OUTPUT_TOKENS),
        hostname=_text(resource.get("host.name")) or _hostname(),
        pid=_pid(resource),
        attributes=_kept(span, queue_s),
    )


def span_key(span: OtlpSpan) -> str:
    """Our id of a span: the same each time that it is sent."""
    return f"{span.trace_id.hex()}-{span.span_id.hex()}"


def service_of(span: OtlpSpan) -> str:
    """The service that a span is of; empty where nobody has named it."""
    name = _text(span.resource.get("service.name"))
    return "" if name.startswith(_SDK_DEFAULT) else name


def _model_name(span: OtlpSpan, default: str | None) -> str:
    return _text(_first(span.attributes, _MODEL)) or service_of(span) or default or UNKNOWN_MODEL


def _device_uuids(span: OtlpSpan) -> tuple[str, ...] | None:
    value = span.attributes.get(DEVICES_ATTRIBUTE, span.resource.get(DEVICES_ATTRIBUTE))
    if isinstance(value, str):
        value = tuple(filter(None, _SEPARATORS.split(value)))
    return value if isinstance(value, tuple) else None


def _tokens(attributes: Mapping[str, Value], names: tuple[str, ...]) -> int:
    value = _first(attributes, names)
    if value is None:
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise WireError("bad_value", f"{names[0]} = {ascii(value)[:80]}; expected a count of tokens")
    return value


def _seconds(attributes: Mapping[str, Value], names: tuple[str, ...]) -> float | None:
    value = _first(attributes, names)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
        return None
    return float(value)


def _later(span: OtlpSpan, seconds: float | None) -> int | None:
    """So long after the start, if that is within the span."""
    if seconds is None or seconds * 1e9 > span.end_utc_ns - span.start_utc_ns:
        return None
    return span.start_utc_ns + round(seconds * 1e9)


def _pid(resource: Mapping[str, Value]) -> int:
    value = _first(resource, _PID)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)  # as vLLM writes it
    return value if isinstance(value, int) and 0 <= value <= MAX_PID else 0


def _kept(span: OtlpSpan, queue_s: float | None) -> dict[str, str]:
    kept = {"source": "otlp", "otlp.name": span.name, "service.name": _text(span.resource.get("service.name"))}
    kept["gen_ai.request.id"] = _text(_first(span.attributes, _REQUEST_ID))
    if queue_s is not None:
        kept["gen_ai.latency.time_in_queue"] = f"{queue_s:.6f}"
    return {key: value for key, value in kept.items() if value}


def _first(values: Mapping[str, Value], names: tuple[str, ...]) -> Value | None:
    return next((values[name] for name in names if name in values), None)


def _text(value: Value | None) -> str:
    return value[:MAX_STRING_CHARS] if isinstance(value, str) else ""


@cache
def _hostname() -> str:
    return socket.gethostname()
