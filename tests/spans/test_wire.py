from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.spans.packets import MAX_PACKET_BYTES, MAX_STRING_CHARS, WireError, WireReason
from llmpower.spans.wire import (
    MAX_ATTRIBUTES,
    MAX_BATCH_SIZE,
    MAX_DEVICES,
    MAX_NS,
    MAX_PID,
    MAX_TOKENS,
    MAX_WAIT_MS,
    Begin,
    Cancel,
    MeasurementRequest,
    Message,
    SenderClock,
    StatusRequest,
    decode,
    decode_head,
    encode,
    encode_head,
)
from llmpower.types import Span

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_STRING_CHARS)
name = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=MAX_STRING_CHARS)
moment = st.integers(0, MAX_NS)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    start_ns, first_token_ns, end_ns = sorted(draw(st.tuples(moment, moment, moment)))
    return Span(
        span_id=draw(name),
        model_name=draw(name),
        device_uuids=draw(st.none() | st.lists(name, unique=True, max_size=4).map(tuple)),
        start_ns=start_ns,
        first_token_ns=draw(st.none() | st.just(first_token_ns)),
        end_ns=end_ns,
        input_tokens=draw(st.integers(0, MAX_TOKENS)),
        output_tokens=draw(st.integers(0, MAX_TOKENS)),
        batch_size=draw(st.integers(1, MAX_BATCH_SIZE)),
        hostname=draw(text),
        pid=draw(st.integers(0, MAX_PID)),
        attributes=draw(st.dictionaries(text, text, max_size=4)),
    )


offset = st.integers(-MAX_NS, MAX_NS)
clocks = st.builds(SenderClock, text, offset, st.none() | offset)
messages = (
    spans()
    | st.builds(Begin, span_id=name, start_ns=moment)
    | st.builds(Cancel, name)
    | st.just(StatusRequest())
    | st.builds(MeasurementRequest, name, st.integers(0, MAX_WAIT_MS))
    | clocks
)


def packet(**changes: Any) -> bytes:
    """A valid span's packet with some fields changed; ``...`` removes one."""
    fields: dict[str, Any] = {
        "v": 1,
        "type": "span",
        "span_id": "a",
        "model_name": "llama",
        "device_uuids": ["GPU-1"],
        "start_ns": 10,
        "first_token_ns": 20,
        "end_ns": 30,
        "input_tokens": 4,
        "output_tokens": 5,
        "batch_size": 1,
        "hostname": "host",
        "pid": 7,
        "attributes": {},
    }
    fields |= changes
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def outcome(packet: bytes) -> Message | str:
    """The message, or the reason of the refusal; any other exception is a failure."""
    try:
        return decode(packet)
    except WireError as error:
        return error.reason


@given(messages)
def test_what_is_encoded_decodes_to_the_same(message: Any) -> None:
    assert decode(encode(message)) == message


@given(clocks)
def test_a_head_that_is_encoded_decodes_to_the_same(clock: SenderClock) -> None:
    assert decode_head(encode_head(clock)) == clock


@pytest.mark.parametrize("name", ["boot_id", "utc_offset_ns", "namespace_offset_ns"])
@pytest.mark.parametrize("value", ["1", 1.5, True, 2**63, [], "x" * (MAX_STRING_CHARS + 1)])
def test_a_clock_out_of_bounds_is_refused(name: str, value: Any) -> None:
    fields = {"v": 1, "type": "spool", "boot_id": "b", "utc_offset_ns": 1, "namespace_offset_ns": None, name: value}
    if (name, value) == ("boot_id", "1"):
        fields["boot_id"] = 1
    for kind, parse in (("spool", decode_head), ("hello", decode)):
        with pytest.raises(WireError) as caught:
            parse(json.dumps(fields | {"type": kind}).encode())
        assert caught.value.reason == "bad_value"


def test_a_head_of_a_writer_that_knows_no_namespaces_is_read() -> None:
    line = b'{"v": 1, "type": "spool", "boot_id": "b", "utc_offset_ns": 1}'
    assert decode_head(line) == SenderClock("b", 1, None)


@given(st.binary(max_size=300))
def test_arbitrary_bytes_give_a_message_or_a_wire_error(data: bytes) -> None:
    result = outcome(data)
    assert result in get_args(WireReason) or decode(encode(result)) == result


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = list(json.loads(packet()))


@given(st.sampled_from(FIELDS), json_values)
def test_any_json_in_any_field_gives_a_message_or_a_wire_error(field: str, value: Any) -> None:
    result = outcome(packet(**{field: value}))
    # What is let through can be passed on unchanged.
    assert result in get_args(WireReason) or decode(encode(result)) == result


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "v"])
def test_every_field_is_required(field: str) -> None:
    assert outcome(packet(**{field: ...})) == "missing_field"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("span_id", ""),
        ("span_id", "x" * (MAX_STRING_CHARS + 1)),
        ("model_name", None),
        ("device_uuids", "GPU-1"),
        ("device_uuids", [1]),
        ("device_uuids", ["GPU-1", "GPU-1"]),
        ("device_uuids", [str(number) for number in range(MAX_DEVICES + 1)]),
        ("start_ns", -1),
        ("start_ns", 10.0),
        ("first_token_ns", 9),
        ("first_token_ns", 31),
        ("end_ns", 9),
        ("end_ns", MAX_NS + 1),
        ("input_tokens", -1),
        ("input_tokens", True),
        ("input_tokens", "4"),
        ("output_tokens", MAX_TOKENS + 1),
        ("batch_size", 0),
        ("pid", -1),
        ("attributes", []),
        ("attributes", {"key": 1}),
        ("attributes", {str(number): "" for number in range(MAX_ATTRIBUTES + 1)}),
    ],
)
def test_a_value_out_of_bounds_is_refused_and_named(field: str, value: Any) -> None:
    with pytest.raises(WireError, match=field) as caught:
        decode(packet(**{field: value}))
    assert caught.value.reason == "bad_value"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not_json"),
        (b"[]", "not_json"),
        (b"\xff", "not_json"),
        (b'{"v": NaN}', "not_json"),
        (b'{"v": 1, "type": "cancel", "span_id": "\\ud800"}', "not_json"),
        (b"[" * 60_000, "not_json"),
        (b"9" * 10_000, "not_json"),
        (b'{"type": "status"}', "missing_field"),
        (b'{"v": 2, "type": "status"}', "version"),
        (b'{"v": true, "type": "status"}', "version"),
        (b'{"v": 1.0, "type": "status"}', "version"),
        (b'{"v": 1, "type": "spam"}', "type"),
        (b'{"v": 1, "type": {}}', "type"),
        (b" " * (MAX_PACKET_BYTES + 1), "too_large"),
    ],
)
def test_what_is_no_message_is_refused_with_its_reason(data: bytes, expected: str) -> None:
    assert outcome(data) == expected


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_nesting_at_the_edge_of_the_recursion_limit_is_a_wire_error(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    assert outcome(b'{"v":1,"type":' + nested + b"}") in ("type", "not_json")


def test_keys_of_a_later_sender_are_ignored() -> None:
    assert decode(b'{"v": 1, "type": "cancel", "span_id": "a", "why": ["new"]}') == Cancel("a")


def test_a_key_that_stands_twice_counts_as_it_stood_last() -> None:
    assert decode(b'{"v": 1, "type": "cancel", "span_id": "b", "span_id": "a"}') == Cancel("a")


def test_a_message_that_would_be_refused_is_not_encoded() -> None:
    with pytest.raises(WireError, match="span_id"):
        encode(Begin("", 1))


def test_a_message_larger_than_a_packet_is_not_encoded() -> None:
    full = "𝄞" * MAX_STRING_CHARS
    attributes = {f"{number:02}{full[2:]}": full for number in range(MAX_ATTRIBUTES)}
    message = Span("a", "m", None, 1, None, 2, 0, 0, 1, "host", 1, attributes)
    with pytest.raises(WireError) as caught:
        encode(message)
    assert caught.value.reason == "too_large"
