"""Which spans are requests, and what each says."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp_messages import CLIENT, INTERNAL, SERVER, S

from llmpower.spans.otlp.records import OtlpSpan, Value
from llmpower.spans.otlp.requests import Request, is_call_elsewhere, is_request, read_request, span_key
from llmpower.spans.packets import WireError

VLLM = {
    "gen_ai.usage.prompt_tokens": 7,
    "gen_ai.usage.completion_tokens": 11,
    "gen_ai.latency.time_in_queue": 1.5,
    "gen_ai.latency.time_to_first_token": 2.25,
    "gen_ai.latency.e2e": 10.0,
    "gen_ai.request.id": "chatcmpl-1",
}


def a_span(attributes: dict[str, Any] | None = None, resource: dict[str, Any] | None = None, **fields: Any) -> OtlpSpan:
    values: dict[str, Any] = {
        "trace_id": b"t" * 16,
        "span_id": b"s" * 8,
        "parent_id": b"",
        "name": "llm_request",
        "kind": SERVER,
        "start_utc_ns": 100 * S,
        "end_utc_ns": 110 * S,
    }
    given = VLLM if attributes is None else attributes
    of = {"service.name": "smol", "vllm.process_id": "42"} if resource is None else resource
    return OtlpSpan(**values | fields, attributes=given, resource=of)


def test_a_request_of_vllm() -> None:
    assert read_request(a_span()) == Request(
        span_id=f"{(b't' * 16).hex()}-{(b's' * 8).hex()}",
        model_name="smol",
        device_uuids=None,
        start_utc_ns=101_500_000_000,
        first_token_utc_ns=102_250_000_000,
        end_utc_ns=110 * S,
        input_tokens=7,
        output_tokens=11,
        hostname=read_request(a_span()).hostname,
        pid=42,
        attributes={
            "source": "otlp",
            "otlp.name": "llm_request",
            "service.name": "smol",
            "gen_ai.request.id": "chatcmpl-1",
            "gen_ai.latency.time_in_queue": "1.500000",
        },
    )


def test_a_request_by_the_conventions() -> None:
    attributes = {"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 4, "gen_ai.response.model": "llama"}
    request = read_request(a_span(attributes, kind=INTERNAL))
    assert (request.model_name, request.input_tokens, request.output_tokens) == ("llama", 3, 4)
    assert (request.start_utc_ns, request.first_token_utc_ns) == (100 * S, None)


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        (VLLM, True),
        ({"gen_ai.usage.input_tokens": 3, "gen_ai.usage.output_tokens": 0}, True),
        ({"gen_ai.usage.input_tokens": 3, "gen_ai.operation.name": "embeddings"}, True),
        ({}, False),
        ({"http.method": "POST"}, False),
        ({"gen_ai.request.model": "llama"}, False),
        ({"gen_ai.usage.input_tokens": 3}, False),
        (VLLM | {"gen_ai.operation.name": "invoke_agent"}, False),
        (VLLM | {"gen_ai.operation.name": "chat"}, True),
    ],
)
def test_what_says_how_many_tokens_came_and_went_is_a_request(attributes: dict[str, Value], wanted: bool) -> None:
    assert is_request(a_span(attributes)) == wanted


def test_who_waits_for_a_server_makes_a_call() -> None:
    assert [is_call_elsewhere(a_span(kind=kind)) for kind in (0, INTERNAL, SERVER, CLIENT)] == [False] * 3 + [True]


@pytest.mark.parametrize(
    ("attributes", "resource", "default", "wanted"),
    [
        ({"gen_ai.request.model": "a", "gen_ai.response.model": "b"}, {"service.name": "c"}, "d", "a"),
        ({"gen_ai.response.model": "b"}, {"service.name": "c"}, "d", "b"),
        ({}, {"service.name": "c"}, "d", "c"),
        ({}, {"service.name": "unknown_service"}, "d", "d"),
        ({}, {"service.name": "unknown_service:python3"}, None, "unknown"),
        ({"gen_ai.request.model": ""}, {}, "d", "d"),
        ({"gen_ai.request.model": 7}, {"service.name": "c"}, None, "c"),
    ],
)
def test_the_models_name(
    attributes: dict[str, Value], resource: dict[str, Value], default: str | None, wanted: str
) -> None:
    assert read_request(a_span(VLLM | attributes, resource), default).model_name == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("GPU-a;GPU-b", ("GPU-a", "GPU-b")),
        ("GPU-a, GPU-b", ("GPU-a", "GPU-b")),
        (("GPU-a",), ("GPU-a",)),
        ("", ()),
        (5, None),
        (None, None),
    ],
)
def test_gpus_are_those_that_the_sender_names(value: Value | None, wanted: tuple[str, ...] | None) -> None:
    resource = {} if value is None else {"llmpower.device_uuids": value}
    assert read_request(a_span(resource=resource)).device_uuids == wanted
    assert read_request(a_span(VLLM | {"llmpower.device_uuids": "GPU-c"}, resource)).device_uuids == ("GPU-c",)


@pytest.mark.parametrize(
    ("queue_s", "first_s", "start_s", "first"),
    [
        (1.0, 2.0, 101.0, 102.0),
        (0, 2, 100.0, 102.0),
        (3.0, 2.0, 100.0, 102.0),
        (11.0, None, 100.0, None),
        (1.0, 11.0, 101.0, None),
        (-1.0, -2.0, 100.0, None),
        (math.nan, math.inf, 100.0, None),
        (1e300, 1e300, 100.0, None),
        ("1", True, 100.0, None),
    ],
)
def test_a_queue_draws_nothing_and_moments_lie_within_the_span(
    queue_s: Value, first_s: Value | None, start_s: float, first: float | None
) -> None:
    times = {"gen_ai.latency.time_in_queue": queue_s, "gen_ai.latency.time_to_first_token": first_s}
    attributes = VLLM | times
    request = read_request(a_span({name: value for name, value in attributes.items() if value is not None}))
    assert request.start_utc_ns == start_s * S
    assert request.first_token_utc_ns == (None if first is None else first * S)


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": b""},
        {"trace_id": bytes(16)},
        {"span_id": b"short"},
        {"span_id": bytes(8)},
        {"end_utc_ns": 99 * S},
        {"attributes": VLLM | {"gen_ai.usage.prompt_tokens": -1}},
        {"attributes": VLLM | {"gen_ai.usage.prompt_tokens": "7"}},
        {"attributes": VLLM | {"gen_ai.usage.completion_tokens": True}},
        {"attributes": VLLM | {"gen_ai.usage.completion_tokens": 1.5}},
        {"attributes": VLLM | {"gen_ai.usage.completion_tokens": math.nan}},
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError) as caught:
        read_request(a_span(**fields))
    assert caught.value.reason == "bad_value"


@given(
    st.dictionaries(
        st.sampled_from([*VLLM, "gen_ai.request.model", "gen_ai.operation.name", "llmpower.device_uuids"]),
        st.text() | st.integers() | st.floats() | st.booleans() | st.lists(st.text()).map(tuple),
    ),
    st.dictionaries(st.sampled_from(["service.name", "host.name", "vllm.process_id", "process.pid"]), st.text()),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
def test_whatever_stands_there_is_a_request_or_a_reason(
    attributes: dict[str, Value], resource: dict[str, Value], start_ns: int, end_ns: int
) -> None:
    span = a_span(attributes, resource, start_utc_ns=start_ns, end_utc_ns=end_ns)
    try:
        request = read_request(span) if is_request(span) else None
    except WireError:
        return
    if request is not None:
        moments = [request.start_utc_ns, request.first_token_utc_ns or request.end_utc_ns, request.end_utc_ns]
        assert moments == sorted(moments)
        assert request.span_id == span_key(span)
