"""A span as OpenTelemetry has it, with what we want to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Value = str | bool | int | float | tuple[str, ...]
"""An attribute's: the kinds that say something here; others are left out."""

CLIENT = 3
"""The kind of a span that waits for somebody who serves it."""


@dataclass(frozen=True, slots=True)
class OtlpSpan:
    """One span; times are nanoseconds of the wall clock since 1970, ``parent_id`` is empty where there is none."""

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    name: str
    kind: int
    start_utc_ns: int
    end_utc_ns: int
    attributes: Mapping[str, Value]
    resource: Mapping[str, Value]
