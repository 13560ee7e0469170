from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.spans.packets import WireError
from llmpower.spans.replies import decode_measurement, decode_status, encode_measurement, encode_status
from llmpower.spans.wire import StatusRequest, encode
from llmpower.types import Measurement


def test_a_status_is_answered_as_it_was_given() -> None:
    status = {"version": "1", "devices": [{"power_w": None}]}
    assert decode_status(encode_status(status)) == status


@pytest.mark.parametrize("data", [b"{}", b"", encode(StatusRequest()), b'{"v":1,"type":"status_reply","status":[]}'])
def test_what_is_no_status_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_status(data)


def test_a_status_that_is_not_json_is_refused() -> None:
    with pytest.raises(WireError, match="JSON"):
        encode_status({"watts": float("nan")})


def test_a_measurement_is_answered_as_it_was_made(make_measurement: Callable[..., Measurement]) -> None:
    made = make_measurement(1, cpu_energy_j=None, gpu_idle_energy_j=0.1 + 0.2)
    assert decode_measurement(encode_measurement(made), made.span) == made
    assert decode_measurement(encode_measurement(None), made.span) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gpu_energy_j", "1"),
        ("gpu_energy_j", True),
        ("gpu_energy_j", 10**400),
        ("quality", "splendid"),
        ("started_at", "yesterday"),
        ("device_uuids", [1]),
        ("simulated", None),
    ],
)
def test_what_is_no_measurement_is_refused(
    name: str, value: object, make_measurement: Callable[..., Measurement]
) -> None:
    made = make_measurement()
    fields = json.loads(encode_measurement(made))
    fields["measurement"][name] = value
    with pytest.raises(WireError):
        decode_measurement(json.dumps(fields).encode(), made.span)
    del fields["measurement"][name]
    with pytest.raises(WireError):
        decode_measurement(json.dumps(fields).encode(), made.span)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(changes=st.dictionaries(st.sampled_from(["system", "started_at", "device_uuids", "method"]), ANY))
def test_a_reply_is_a_measurement_or_one_error(
    changes: dict[str, Any], make_measurement: Callable[..., Measurement]
) -> None:
    made = make_measurement()
    fields = json.loads(encode_measurement(made))
    fields["measurement"] |= changes
    try:
        found = decode_measurement(json.dumps(fields).encode(), made.span)
    except WireError:
        return
    assert found is not None
    assert found.gpu_energy_j == made.gpu_energy_j
