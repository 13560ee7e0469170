"""What the daemon answers to those who ask it: its status, and what came of a span.

One JSON object a packet, as :mod:`~llmpower.spans.wire` has it::

    {"v": 1, "type": "status_reply", "status": {…}}
    {"v": 1, "type": "measurement_reply", "measurement": {…} | null}

A measurement goes without its span, which whoever asks has, but for the devices, which the daemon may have found out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, structs

from llmpower.spans.packets import WIRE_VERSION, Version, WireError, dump, fitting, load
from llmpower.types import Measurement, Method, Quality, Span


class _StatusReply(Struct, tag_field="type", tag="status_reply"):
    v: Version
    status: dict[str, Any]


class _Figures(Struct):
    """The fields of a Measurement, by their names."""

    device_uuids: tuple[str, ...] | None
    system: str
    started_at: datetime
    gpu_energy_j: float | None
    gpu_energy_std_j: float | None
    cpu_energy_j: float | None
    cpu_energy_std_j: float | None
    prefill_energy_j: float | None
    decode_energy_j: float | None
    quality: Quality
    method: Method
    allocated: bool
    simulated: bool
    gpu_idle_energy_j: float | None
    cpu_idle_energy_j: float | None


class _MeasurementReply(Struct, tag_field="type", tag="measurement_reply"):
    v: Version
    measurement: _Figures | None


_statuses = msgspec.json.Decoder(_StatusReply)
_measurements = msgspec.json.Decoder(_MeasurementReply)
_status_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode_status(status: Mapping[str, object]) -> bytes:
    """The answer to a :class:`~llmpower.spans.wire.StatusRequest`, as one packet; ``status`` is JSON without NaN.

    Raises:
        WireError: something in it is not JSON, or it does not fit in a packet.
    """
    try:
        # msgspec would make a NaN a null, which says something else.
        packet = _status_encoder.encode({"v": WIRE_VERSION, "type": "status_reply", "status": status}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("bad_value", f"cannot be written as JSON: {error}") from error
    return fitting(packet)


def decode_status(packet: bytes) -> dict[str, Any]:
    """What :func:`encode_status` was given.

    Raises:
        WireError: the packet is not an answer of this version.
    """
    status: dict[str, Any] = load(packet, _statuses).status
    return status


def encode_measurement(measurement: Measurement | None) -> bytes:
    """The answer to a :class:`~llmpower.spans.wire.MeasurementRequest`; ``None`` is not known.

    Raises:
        WireError: it does not fit in a packet.
    """
    figures = None
    if measurement is not None:
        fields = structs.asdict(measurement)
        span: Span = fields.pop("span")
        figures = _Figures(device_uuids=span.device_uuids, **fields)
    return dump(_MeasurementReply(WIRE_VERSION, figures))


def decode_measurement(packet: bytes, span: Span) -> Measurement | None:
    """What :func:`encode_measurement` was given, of ``span``.

    Raises:
        WireError: the packet is not an answer of this version.
    """
    figures: _Figures | None = load(packet, _measurements).measurement
    if figures is None:
        return None
    fields = structs.asdict(figures)
    return Measurement(span=structs.replace(span, device_uuids=fields.pop("device_uuids")), **fields)
