"""What programs tell the daemon: one JSON object a packet, over a ``SOCK_SEQPACKET`` Unix socket.

The socket keeps packet boundaries and order, so there is no framing, no partial read, and a sender that dies in the
middle of a message leaves nothing behind. Every packet names its version and type::

    {"v": 1, "type": "begin", "span_id": "…", "start_ns": 123}     a span has started; the daemon holds its time open
    {"v": 1, "type": "span", "span_id": "…", …}                    it has finished: every field of Span
    {"v": 1, "type": "cancel", "span_id": "…"}                     it failed; nothing is to be accounted for it
    {"v": 1, "type": "status"}                                     answered by one packet of type "status_reply"

Spans also travel as lines of a file (:mod:`~llmpower.spans.spool`), whose first line is::

    {"v": 1, "type": "spool", "boot_id": "…", "utc_offset_ns": 123}

Anyone on the machine who may open the socket can send bytes, so :func:`decode` trusts none of them: it returns a
message whose every field lies inside the bounds below, or raises :class:`WireError`, and nothing else. Keys that it
does not know are ignored, so that a later sender may add one without a new version.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from llmpower.exceptions import LlmpowerError
from llmpower.types import Span

WIRE_VERSION = 1
MAX_PACKET_BYTES = 65_536
MAX_STRING_CHARS = 256
MAX_ATTRIBUTES = 32
MAX_DEVICES = 64
MAX_TOKENS = 2**40
MAX_BATCH_SIZE = 2**31 - 1
MAX_PID = 2**31 - 1
MAX_NS = 2**63 - 1

WireReason = Literal["not_json", "too_large", "version", "type", "missing_field", "bad_value"]
"""Why a packet was refused; few and fixed, so that it can be the label of a metric."""


class WireError(LlmpowerError):
    """A packet that is not a message. ``reason`` counts it, ``detail`` explains it to a person."""

    def __init__(self, reason: WireReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


@dataclass(frozen=True, slots=True)
class Begin:
    """A span has started at ``start_ns`` (CLOCK_MONOTONIC); a Span or a Cancel of the same id will follow."""

    span_id: str
    start_ns: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The span that began under this id failed, and is not to be accounted."""

    span_id: str


@dataclass(frozen=True, slots=True)
class StatusRequest:
    """Asks the daemon what it is doing; answered on the same connection."""


@dataclass(frozen=True, slots=True)
class SpoolHead:
    """Which clock the spans of a file were timed by: CLOCK_MONOTONIC of that boot, and UTC less it at the time."""

    boot_id: str
    utc_offset_ns: int


Message = Begin | Span | Cancel | StatusRequest

_TYPES: dict[type[Message], str] = {Begin: "begin", Span: "span", Cancel: "cancel", StatusRequest: "status"}
# Who sent a span, the kernel says.
_SENT = {of: tuple(field.name for field in dataclasses.fields(of) if field.name != "uid") for of in _TYPES}
_STATUS_REPLY = "status_reply"
_SPOOL = "spool"


def encode(message: Message) -> bytes:
    """One message as one packet.

    Raises:
        WireError: the message breaks a bound that :func:`decode` holds it to, or does not fit in a packet.
    """
    kind = _TYPES[type(message)]
    values: dict[str, Any] = {name: getattr(message, name) for name in _SENT[type(message)]}
    if isinstance(message, Span):
        values["attributes"] = dict(message.attributes)
        values["device_uuids"] = None if message.device_uuids is None else list(message.device_uuids)
    # The bounds are stated once, for both ends: what the other would refuse is better refused here, beside its cause.
    _message(kind, values)
    return _dump(kind, values)


def decode(packet: bytes, uid: int | None = None) -> Message:
    """The message in one packet; ``uid`` is its sender, by the kernel's word.

    Raises:
        WireError: anything but a valid message of this version.
    """
    fields = _load(packet)
    return _message(fields["type"], fields, uid)


def encode_head(head: SpoolHead) -> bytes:
    """The first line of a spool's file, without its end."""
    return _dump(_SPOOL, dataclasses.asdict(head))


def decode_head(line: bytes) -> SpoolHead:
    """What :func:`encode_head` was given.

    Raises:
        WireError: the line is not a head of this version.
    """
    fields = _load(line)
    if fields["type"] != _SPOOL:
        raise WireError("type", f"type = {_shown(fields['type'])}; expected {_SPOOL}")
    boot_id = _string("boot_id", _field(fields, "boot_id"))
    return SpoolHead(boot_id, _integer(fields, "utc_offset_ns", -MAX_NS, MAX_NS))


def _message(kind: object, fields: Mapping[str, Any], uid: int | None = None) -> Message:
    match kind:
        case "begin":
            return Begin(span_id=_name(fields, "span_id"), start_ns=_integer(fields, "start_ns", 0, MAX_NS))
        case "span":
            return _span(fields, uid)
        case "cancel":
            return Cancel(span_id=_name(fields, "span_id"))
        case "status":
            return StatusRequest()
        case other:
            raise WireError("type", f"type = {_shown(other)}; expected one of {', '.join(_TYPES.values())}")


def encode_status(status: Mapping[str, object]) -> bytes:
    """The daemon's answer to a :class:`StatusRequest`, as one packet; ``status`` is JSON without NaN.

    Raises:
        WireError: something in it is not JSON, or it does not fit in a packet.
    """
    return _dump(_STATUS_REPLY, {"status": status})


def decode_status(packet: bytes) -> dict[str, Any]:
    """What :func:`encode_status` was given.

    Raises:
        WireError: the packet is not an answer of this version.
    """
    fields = _load(packet)
    if fields["type"] != _STATUS_REPLY:
        raise WireError("type", f"type = {_shown(fields['type'])}; expected {_STATUS_REPLY}")
    status = _field(fields, "status")
    if not isinstance(status, dict):
        _refuse("status", status, "expected an object")
    return status


def _dump(kind: str, fields: Mapping[str, object]) -> bytes:
    try:
        packet = _encoder.encode({"v": WIRE_VERSION, "type": kind, **fields}).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("bad_value", f"cannot be written as JSON: {error}") from error
    if len(packet) > MAX_PACKET_BYTES:
        raise WireError("too_large", f"{len(packet)} bytes; a packet holds {MAX_PACKET_BYTES}")
    return packet


def _load(packet: bytes) -> dict[str, Any]:
    """The packet's object, known to be of our version and to have a type."""
    if len(packet) > MAX_PACKET_BYTES:
        raise WireError("too_large", f"more than {MAX_PACKET_BYTES} bytes")
    try:
        fields = _decoder.decode(packet.decode())
    except (ValueError, RecursionError) as error:
        raise WireError("not_json", str(error)[:MAX_STRING_CHARS]) from error
    if not isinstance(fields, dict):
        raise WireError("not_json", f"{_shown(fields)} is not an object")
    version = _field(fields, "v")
    if type(version) is not int or version != WIRE_VERSION:
        raise WireError("version", f"v = {_shown(version)}; this side speaks {WIRE_VERSION}")
    _field(fields, "type")
    return fields


def _span(fields: Mapping[str, Any], uid: int | None) -> Span:
    start_ns = _integer(fields, "start_ns", 0, MAX_NS)
    end_ns = _integer(fields, "end_ns", start_ns, MAX_NS)
    first_token_ns = None
    if _field(fields, "first_token_ns") is not None:
        first_token_ns = _integer(fields, "first_token_ns", start_ns, end_ns)
    return Span(
        span_id=_name(fields, "span_id"),
        model_name=_shared(_name(fields, "model_name")),
        device_uuids=_device_uuids(fields),
        start_ns=start_ns,
        first_token_ns=first_token_ns,
        end_ns=end_ns,
        input_tokens=_integer(fields, "input_tokens", 0, MAX_TOKENS),
        output_tokens=_integer(fields, "output_tokens", 0, MAX_TOKENS),
        batch_size=_integer(fields, "batch_size", 1, MAX_BATCH_SIZE),
        hostname=_shared(_string("hostname", _field(fields, "hostname"))),
        pid=_integer(fields, "pid", 0, MAX_PID),
        attributes=_attributes(fields),
        uid=uid,
    )


def _device_uuids(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = _field(fields, "device_uuids")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_DEVICES:
        _refuse("device_uuids", value, f"expected null or a list of at most {MAX_DEVICES}")
    uuids = tuple(_shared(_string("device_uuids", uuid)) for uuid in value)
    if len(set(uuids)) < len(uuids):
        _refuse("device_uuids", value, "a device is named twice, and its joules would be counted twice")
    return uuids


def _attributes(fields: Mapping[str, Any]) -> dict[str, str]:
    value = _field(fields, "attributes")
    if not isinstance(value, dict) or len(value) > MAX_ATTRIBUTES:
        _refuse("attributes", value, f"expected an object of at most {MAX_ATTRIBUTES} strings")
    return {_string("attributes", key): _string("attributes", text) for key, text in value.items()}


def _field(fields: Mapping[str, Any], name: str) -> Any:
    try:
        return fields[name]
    except KeyError:
        raise WireError("missing_field", name) from None


def _integer(fields: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = _field(fields, name)
    # JSON's true is an int to Python, and 1.0 would compare equal: neither is what a sender means by a count.
    if type(value) is not int or not low <= value <= high:
        _refuse(name, value, f"expected an integer from {low} to {high}")
    return value


def _name(fields: Mapping[str, Any], name: str) -> str:
    value = _string(name, _field(fields, name))
    if not value:
        _refuse(name, value, "expected a name, found an empty string")
    return value


def _string(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_STRING_CHARS:
        _refuse(name, value, f"expected a string of at most {MAX_STRING_CHARS} characters")
    # JSON can spell half of a surrogate pair, which neither SQLite nor an HTTP response can carry further.
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        _refuse(name, value, "expected text that UTF-8 can carry, found a lone surrogate")
    return value


def _shared(text: str) -> str:
    """One copy of what stands in each of thousands of spans that wait."""
    return sys.intern(text) if type(text) is str else text


def _refuse(name: str, value: object, expected: str) -> NoReturn:
    raise WireError("bad_value", f"{name} = {_shown(value)}; {expected}")


def _shown(value: object) -> str:
    # A nested value can be too deep to print, which is no way for a stranger to raise a RecursionError here.
    return type(value).__name__ if isinstance(value, list | dict) else ascii(value)[:80]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# json.dumps() and json.loads() with options would make new ones at every call.
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
