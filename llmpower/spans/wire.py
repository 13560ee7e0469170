"""What programs tell the daemon: one JSON object a packet, over a ``SOCK_SEQPACKET`` Unix socket.

The socket keeps packet boundaries and order, so there is no framing, no partial read, and a sender that dies in the
middle of a message leaves nothing behind. Every packet names its version and type::

    {"v": 1, "type": "begin", "span_id": "…", "start_ns": 123}     a span has started; the daemon holds its time open
    {"v": 1, "type": "span", "span_id": "…", …}                    it has finished: every field of Span
    {"v": 1, "type": "cancel", "span_id": "…"}                     it failed; nothing is to be accounted for it
    {"v": 1, "type": "status"}                                     answered by one packet of type "status_reply"
    {"v": 1, "type": "measurement", "span_id": "…", "wait_ms": 5}  by "measurement_reply", once there is one
    {"v": 1, "type": "hello", "boot_id": "…", …}                   by which clock the sender times what follows

Spans also travel as lines of a file (:mod:`~llmpower.spans.spool`), whose first line is of type "spool" and names the
clock, too. Replies are in :mod:`~llmpower.spans.replies`.

Anyone on the machine who may open the socket can send bytes, so :func:`decode` trusts none of them: it returns a
message whose every field lies inside the bounds below, or raises :class:`~llmpower.spans.packets.WireError`, and
nothing else. The bounds are stated once, as types that msgspec holds each packet to while it parses it
(:mod:`~llmpower.spans.packets`); what two fields must be to each other is asked afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from llmpower.spans.packets import MAX_STRING_CHARS, WIRE_VERSION, Version, dump, load, refuse
from llmpower.types import Span

MAX_ATTRIBUTES = 32
MAX_DEVICES = 64
MAX_TOKENS = 2**40
MAX_BATCH_SIZE = 2**31 - 1
MAX_PID = 2**31 - 1
MAX_NS = 2**63 - 1
MAX_WAIT_MS = 60_000


class Begin(Struct, frozen=True):
    """A span has started at ``start_ns`` (CLOCK_MONOTONIC); a Span or a Cancel of the same id will follow."""

    span_id: str
    start_ns: int


class Cancel(Struct, frozen=True):
    """The span that began under this id failed, and is not to be accounted."""

    span_id: str


class StatusRequest(Struct, frozen=True):
    """Asks the daemon what it is doing; answered on the same connection."""


class MeasurementRequest(Struct, frozen=True):
    """Asks what was measured of a span of the sender's own; answered when that is known, or after ``wait_ms``."""

    span_id: str
    wait_ms: int


class SenderClock(Struct, frozen=True):
    """The clock that a sender's spans are timed by.

    ``boot_id`` names the boot, ``utc_offset_ns`` is UTC less its CLOCK_MONOTONIC when this was written, and
    ``namespace_offset_ns`` is by how much its time namespace shifts CLOCK_MONOTONIC, by the kernel's word; ``None``
    where the kernel does not say it.
    """

    boot_id: str
    utc_offset_ns: int
    namespace_offset_ns: int | None = None


Message = Begin | Span | Cancel | StatusRequest | MeasurementRequest | SenderClock

# --- What a packet may hold ------------------------------------------------------------------------------------------

_Text = Annotated[str, Meta(max_length=MAX_STRING_CHARS)]
_Name = Annotated[str, Meta(min_length=1, max_length=MAX_STRING_CHARS)]
_Moment = Annotated[int, Meta(ge=0, le=MAX_NS)]
_Tokens = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
_Offset = Annotated[int, Meta(ge=-MAX_NS, le=MAX_NS)]


class _BeginPacket(Struct, tag_field="type", tag="begin"):
    v: Version
    span_id: _Name
    start_ns: _Moment


class _SpanPacket(Struct, tag_field="type", tag="span"):
    v: Version
    span_id: _Name
    model_name: _Name
    device_uuids: Annotated[tuple[_Text, ...], Meta(max_length=MAX_DEVICES)] | None
    start_ns: _Moment
    first_token_ns: _Moment | None
    end_ns: _Moment
    input_tokens: _Tokens
    output_tokens: _Tokens
    batch_size: Annotated[int, Meta(ge=1, le=MAX_BATCH_SIZE)]
    hostname: _Text
    pid: Annotated[int, Meta(ge=0, le=MAX_PID)]
    attributes: Annotated[dict[_Text, _Text], Meta(max_length=MAX_ATTRIBUTES)]


class _CancelPacket(Struct, tag_field="type", tag="cancel"):
    v: Version
    span_id: _Name


class _StatusPacket(Struct, tag_field="type", tag="status"):
    v: Version


class _MeasurementPacket(Struct, tag_field="type", tag="measurement"):
    v: Version
    span_id: _Name
    wait_ms: Annotated[int, Meta(ge=0, le=MAX_WAIT_MS)]


class _HelloPacket(Struct, tag_field="type", tag="hello"):
    v: Version
    boot_id: _Text
    utc_offset_ns: _Offset
    namespace_offset_ns: _Offset | None = None


class _HeadPacket(Struct, tag_field="type", tag="spool"):
    v: Version
    boot_id: _Text
    utc_offset_ns: _Offset
    namespace_offset_ns: _Offset | None = None


_Packet = _BeginPacket | _SpanPacket | _CancelPacket | _StatusPacket | _MeasurementPacket | _HelloPacket

_messages = msgspec.json.Decoder(_Packet)
_heads = msgspec.json.Decoder(_HeadPacket)

# --- Both ends -------------------------------------------------------------------------------------------------------


def encode(message: Message) -> bytes:
    """One message as one packet.

    Raises:
        WireError: the message breaks a bound that :func:`decode` holds it to, or does not fit in a packet.
    """
    fields = _packet_of(message)
    packet = dump(fields)
    if type(fields) is _BeginPacket:
        moment, name = fields.start_ns, fields.span_id
        # Two fields are quicker looked at than read back, and a request waits for this.
        if type(moment) is int and 0 <= moment <= MAX_NS and type(name) is str and 0 < len(name) <= MAX_STRING_CHARS:
            return packet
    # msgspec asks nothing of what it writes. What the other end would refuse is better refused here, beside its cause.
    read = load(packet, _messages)
    if type(read) is _SpanPacket:
        _check(read)
    return packet


def decode(packet: bytes, uid: int | None = None) -> Message:
    """The message in one packet; ``uid`` is its sender, by the kernel's word.

    Raises:
        WireError: anything but a valid message of this version.
    """
    fields = load(packet, _messages)
    # The commonest first.
    if type(fields) is _SpanPacket:
        _check(fields)
        return _span(fields, uid)
    if type(fields) is _BeginPacket:
        return Begin(fields.span_id, fields.start_ns)
    if type(fields) is _CancelPacket:
        return Cancel(fields.span_id)
    if type(fields) is _MeasurementPacket:
        return MeasurementRequest(fields.span_id, fields.wait_ms)
    if type(fields) is _HelloPacket:
        return SenderClock(fields.boot_id, fields.utc_offset_ns, fields.namespace_offset_ns)
    return StatusRequest()


def encode_head(clock: SenderClock) -> bytes:
    """The first line of a spool's file, without its end."""
    return dump(_HeadPacket(WIRE_VERSION, clock.boot_id, clock.utc_offset_ns, clock.namespace_offset_ns))


def decode_head(line: bytes) -> SenderClock:
    """What :func:`encode_head` was given.

    Raises:
        WireError: the line is not a head of this version.
    """
    fields = load(line, _heads)
    return SenderClock(fields.boot_id, fields.utc_offset_ns, fields.namespace_offset_ns)


def _packet_of(message: Message) -> Struct:
    # The commonest first.
    if isinstance(message, Span):
        return _SpanPacket(
            WIRE_VERSION,
            message.span_id,
            message.model_name,
            message.device_uuids,
            message.start_ns,
            message.first_token_ns,
            message.end_ns,
            message.input_tokens,
            message.output_tokens,
            message.batch_size,
            message.hostname,
            message.pid,
            _as_dict(message.attributes),
        )
    if isinstance(message, Begin):
        return _BeginPacket(WIRE_VERSION, message.span_id, message.start_ns)
    if isinstance(message, Cancel):
        return _CancelPacket(WIRE_VERSION, message.span_id)
    if isinstance(message, StatusRequest):
        return _StatusPacket(WIRE_VERSION)
    if isinstance(message, MeasurementRequest):
        return _MeasurementPacket(WIRE_VERSION, message.span_id, message.wait_ms)
    return _HelloPacket(WIRE_VERSION, message.boot_id, message.utc_offset_ns, message.namespace_offset_ns)


def _as_dict(attributes: Mapping[str, str]) -> dict[str, str]:
    """As JSON has them; what is not a mapping is left for the bounds to refuse."""
    return dict(attributes) if isinstance(attributes, Mapping) else attributes


def _check(fields: _SpanPacket) -> None:
    """Hold a span's fields to what they must be to each other."""
    start_ns, first_token_ns, end_ns, uuids = fields.start_ns, fields.first_token_ns, fields.end_ns, fields.device_uuids
    if end_ns < start_ns:
        refuse("end_ns", end_ns, f"expected no less than start_ns = {start_ns}")
    if first_token_ns is not None and not start_ns <= first_token_ns <= end_ns:
        refuse("first_token_ns", first_token_ns, f"expected it between start_ns = {start_ns} and end_ns = {end_ns}")
    if uuids is not None and len(uuids) > 1 and len(set(uuids)) < len(uuids):
        refuse("device_uuids", uuids, "a device is named twice, and its joules would be counted twice")


def _span(fields: _SpanPacket, uid: int | None) -> Span:
    # Of what stands in each of thousands of spans that wait, one copy is kept.
    uuids = fields.device_uuids
    return Span(
        fields.span_id,
        sys.intern(fields.model_name),
        None if uuids is None else tuple(map(sys.intern, uuids)),
        fields.start_ns,
        fields.first_token_ns,
        fields.end_ns,
        fields.input_tokens,
        fields.output_tokens,
        fields.batch_size,
        sys.intern(fields.hostname),
        fields.pid,
        fields.attributes,
        uid,
    )
