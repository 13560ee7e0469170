"""Requests that were reported before: sent again because an answer was lost, or reported by two that both handled it.

A gateway and the engine behind it both trace the same request, in one trace. To count both would share its joules out
between them. So of two requests of one trace only the first to arrive is counted where one lies within the other: by
their parents, as far as the spans between them were seen, or, where two services report, because the time of one
contains that of the other. Requests of one service that run side by side in one trace, as an agent makes them, are
counted all.

Within a batch the innermost come first, since that is where the model ran.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from llmpower.spans.otlp.records import OtlpSpan
from llmpower.spans.otlp.requests import service_of

MAX_TRACES = 8192
"""Remembered, the latest; some 5 MB. A client sends again within a minute or two."""

MAX_REQUESTS_OF_TRACE = 256
MAX_ANCESTORS = 32

Twin = Literal["repeated", "nested"]


@dataclass(frozen=True, slots=True)
class _Seen:
    span_id: bytes
    ancestors: tuple[bytes, ...]
    start_utc_ns: int
    end_utc_ns: int
    service: tuple[str, object]


class Kin:
    """Remembers the requests that were accepted, in a bounded memory."""

    def __init__(self, max_traces: int = MAX_TRACES) -> None:
        self._max_traces = max_traces
        self._traces: OrderedDict[bytes, list[_Seen]] = OrderedDict()

    def twin(self, span: OtlpSpan, parents: Mapping[bytes, bytes]) -> Twin | None:
        """Whether a request was told already; ``parents`` are those within its batch, see :func:`parents_of`."""
        new = _seen(span, parents)
        for old in self._traces.get(span.trace_id, ()):
            if old.span_id == new.span_id:
                return "repeated"
            if _is_nested(old, new, parents):
                return "nested"
        return None

    def accept(self, span: OtlpSpan, parents: Mapping[bytes, bytes]) -> None:
        """Remember a request."""
        trace = self._traces.setdefault(span.trace_id, [])
        trace.append(_seen(span, parents))
        del trace[:-MAX_REQUESTS_OF_TRACE]
        self._traces.move_to_end(span.trace_id)
        while len(self._traces) > self._max_traces:
            self._traces.popitem(last=False)


def parents_of(spans: Iterable[OtlpSpan]) -> dict[bytes, bytes]:
    """Who is whose parent, by span ids, which are unique enough across the traces of a batch."""
    return {span.span_id: span.parent_id for span in spans if span.parent_id}


def innermost_first(spans: Iterable[OtlpSpan]) -> list[OtlpSpan]:
    """In an order in which no span comes before one within it."""
    return sorted(spans, key=lambda span: (span.end_utc_ns, -span.start_utc_ns))


def _seen(span: OtlpSpan, parents: Mapping[bytes, bytes]) -> _Seen:
    instance = span.resource.get("service.instance.id") or span.resource.get("process.pid")
    service = service_of(span), instance
    return _Seen(span.span_id, _upwards(span.parent_id, parents), span.start_utc_ns, span.end_utc_ns, service)


def _upwards(span_id: bytes, parents: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    """A span, its parent, the parent's parent, as far as is known."""
    found: list[bytes] = []
    while span_id and span_id not in found and len(found) < MAX_ANCESTORS:
        found.append(span_id)
        span_id = parents.get(span_id, b"")
    return tuple(found)


def _is_nested(old: _Seen, new: _Seen, parents: Mapping[bytes, bytes]) -> bool:
    if old.span_id in new.ancestors or new.span_id in old.ancestors:
        return True
    # What lay between the old one and its ancestors may have come only now.
    if old.ancestors and new.span_id in _upwards(old.ancestors[-1], parents):
        return True
    if old.service == new.service:
        return False
    return _contains(old, new) or _contains(new, old)


def _contains(outer: _Seen, inner: _Seen) -> bool:
    return outer.start_utc_ns <= inner.start_utc_ns and inner.end_utc_ns <= outer.end_utc_ns
