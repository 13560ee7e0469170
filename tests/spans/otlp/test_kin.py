"""One request is one span, however often and by however many it is reported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otlp_messages import INTERNAL, SERVER, S

from llmpower.spans.otlp.kin import Kin, Twin, innermost_first, parents_of
from llmpower.spans.otlp.records import OtlpSpan

TRACE = b"t" * 16


def a_span(name: str, start_s: float, end_s: float, parent: str = "", service: str = "vllm", **fields: Any) -> OtlpSpan:
    values: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": name.encode(),
        "parent_id": parent.encode(),
        "name": name,
        "kind": SERVER,
        "start_utc_ns": round(start_s * S),
        "end_utc_ns": round(end_s * S),
        "attributes": {},
        "resource": {"service.name": service},
    }
    return OtlpSpan(**values | fields)


def tell(kin: Kin, *spans: OtlpSpan, silent: tuple[OtlpSpan, ...] = ()) -> Mapping[str, Twin | None]:
    """Give a batch of requests, with spans that are none; return what each was called."""
    parents = parents_of((*spans, *silent))
    found: dict[str, Twin | None] = {}
    for span in innermost_first(spans):
        found[span.name] = kin.twin(span, parents)
        if found[span.name] is None:
            kin.accept(span, parents)
    return found


def test_a_span_that_is_sent_again_is_known() -> None:
    kin = Kin()
    assert tell(kin, a_span("a", 1, 2)) == {"a": None}
    assert tell(kin, a_span("a", 1, 2), a_span("b", 3, 4)) == {"a": "repeated", "b": None}
    assert tell(kin, a_span("a", 1, 2, trace_id=b"u" * 16)) == {"a": None}


def test_a_gateway_and_its_engine_tell_of_one_request() -> None:
    gateway, engine = a_span("g", 1, 5, service="gateway", kind=INTERNAL), a_span("e", 2, 4, "g")
    assert tell(Kin(), gateway, engine) == {"e": None, "g": "nested"}
    for first, second in ((gateway, engine), (engine, gateway)):
        kin = Kin()
        assert tell(kin, first) == {first.name: None}
        assert tell(kin, second) == {second.name: "nested"}


def test_what_lies_between_them_may_be_seen_or_not() -> None:
    gateway, between = a_span("g", 1, 5, service="gateway"), a_span("h", 1.5, 4.5, "g")
    engine = a_span("e", 2, 4, "h")
    kin = Kin()
    tell(kin, engine)
    assert tell(kin, gateway) == {"g": "nested"}, "by their times"
    # In one service only their parents tell.
    outer = a_span("o", 1, 5)
    kin = Kin()
    tell(kin, outer)
    assert tell(kin, a_span("c", 2, 4, "o"), a_span("d", 2, 4)) == {"c": "nested", "d": None}
    inner, link = a_span("i", 2, 4, "l"), a_span("l", 1.5, 4.5, "o")
    kin = Kin()
    assert tell(kin, inner) == {"i": None}
    assert tell(kin, outer, silent=(link,)) == {"o": "nested"}
    assert tell(Kin(), inner, outer, silent=(link, between)) == {"i": None, "o": "nested"}


def test_requests_side_by_side_in_one_trace_are_counted_all() -> None:
    kin = Kin()
    assert tell(kin, a_span("a", 1, 9, "agent"), a_span("b", 2, 3, "agent"), a_span("c", 4, 5, "agent")) == {
        "b": None,
        "c": None,
        "a": None,
    }


def test_parents_in_a_circle_end() -> None:
    circle = (a_span("x", 1, 2, "y"), a_span("y", 1, 2, "x"))
    assert tell(Kin(), a_span("a", 1, 2, "x"), silent=circle) == {"a": None}
    assert tell(Kin(), a_span("a", 1, 2, "a")) == {"a": None}


def test_memory_is_bounded_by_traces_and_within_one() -> None:
    kin = Kin(max_traces=3)
    for number in range(10):
        tell(kin, a_span("a", 1, 2, trace_id=bytes([number]) * 16))
    assert len(kin._traces) == 3
    assert tell(kin, a_span("a", 1, 2, trace_id=bytes([9]) * 16)) == {"a": "repeated"}
    assert tell(kin, a_span("a", 1, 2, trace_id=bytes([1]) * 16)) == {"a": None}
    for number in range(600):
        tell(kin, a_span(str(number), number, number + 1))
    assert len(kin._traces[TRACE]) == 256
