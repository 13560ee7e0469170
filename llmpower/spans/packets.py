"""JSON packets: what both ends write and read, whatever the message; and how a packet is refused.

The types of a packet say what each of its fields may hold, and msgspec holds the bytes to them while it parses. What it
says of a packet that does not fit is made into one :class:`WireError`, with the field, the value and what was expected.
Keys that a type does not know are ignored, so that a later sender may add one without a new version.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

from llmpower.exceptions import LlmpowerError

Version = Literal[1]
WIRE_VERSION: Version = 1
MAX_PACKET_BYTES = 65_536
MAX_STRING_CHARS = 256

WireReason = Literal["not_json", "too_large", "version", "type", "missing_field", "bad_value", "other_clock"]
"""Why a packet was refused; few and fixed, so that it can be the label of a metric."""


class WireError(LlmpowerError):
    """A packet that is not a message. ``reason`` counts it, ``detail`` explains it to a person."""

    def __init__(self, reason: WireReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


_encoder = msgspec.json.Encoder()
_anything = msgspec.json.Decoder()


def dump(fields: Struct) -> bytes:
    """A packet of these fields.

    Raises:
        WireError: something in them is not JSON, or they do not fit in a packet.
    """
    try:
        return fitting(_encoder.encode(fields))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.EncodeError) as error:
        raise WireError("bad_value", f"cannot be written as JSON: {error}") from error


def fitting(packet: bytes) -> bytes:
    """The packet.

    Raises:
        WireError: it is too large for one.
    """
    if len(packet) > MAX_PACKET_BYTES:
        raise WireError("too_large", f"{len(packet)} bytes; a packet holds {MAX_PACKET_BYTES}")
    return packet


def load(packet: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    """The packet's fields, each within its bounds.

    Raises:
        WireError: the packet is none of those that the decoder knows.
    """
    if len(packet) > MAX_PACKET_BYTES:
        raise WireError("too_large", f"more than {MAX_PACKET_BYTES} bytes")
    try:
        return decoder.decode(packet)
    except msgspec.ValidationError as error:
        raise _explained(packet, str(error)) from error
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise WireError("not_json", str(error)[:MAX_STRING_CHARS]) from error


_MISSING = re.compile(r"Object missing required field `(\w+)`")
_MISFIT = re.compile(r"(?P<expected>.*) - at `(?:key in )?\$\.(?P<name>\w+).*`", re.DOTALL)


def _explained(packet: bytes, said: str) -> WireError:
    """What is wrong with a packet of which msgspec says this: the field, the value, and what was expected."""
    try:
        fields = _anything.decode(packet)
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        return WireError("not_json", str(error)[:MAX_STRING_CHARS])
    if not isinstance(fields, dict):
        return WireError("not_json", f"{_shown(fields)} is not an object")
    version = fields.get("v", WIRE_VERSION)
    if type(version) is not int or version != WIRE_VERSION:
        # Of another version nothing else can be said.
        return WireError("version", f"v = {_shown(version)}; this side speaks {WIRE_VERSION}")
    if missing := _MISSING.match(said):
        return WireError("missing_field", missing[1])
    if misfit := _MISFIT.fullmatch(said):
        name = misfit["name"]
        reason: WireReason = "type" if name == "type" else "bad_value"
        return WireError(reason, f"{name} = {_shown(fields.get(name))}; {misfit['expected'].lower()}")
    return WireError("bad_value", said[:MAX_STRING_CHARS])


def refuse(name: str, value: object, expected: str) -> NoReturn:
    """Raise the :class:`WireError` of a field whose value is not what it must be."""
    raise WireError("bad_value", f"{name} = {_shown(value)}; {expected}")


def _shown(value: object) -> str:
    # A nested value can be too deep to print, which is no way for a stranger to raise a RecursionError here.
    return type(value).__name__ if isinstance(value, list | dict) else ascii(value)[:80]
