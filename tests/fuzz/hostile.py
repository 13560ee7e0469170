"""Packets that nobody should send: garbage, near misses, and messages that are valid and malicious."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from llmpower.spans.wire import Begin, Cancel, MeasurementRequest, encode
from llmpower.types import Span

WILD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, 2**63 - 1, 2**63, -(2**70), 10**400, "", "x", "\ud800", "\x00", "x" * 257,
    "é" * 300, "💥", "\u2028", [], [[]], {}, {"": {}}, ["GPU-0"] * 65, ["GPU-0", "GPU-0"], {"k": 1}, "-Infinity",
    {str(n): "v" for n in range(40)},
]  # fmt: skip


def a_span(span_id: str, now_ns: int) -> dict[str, Any]:
    """The fields of a valid span that ended just now."""
    span = Span(
        span_id, "fuzz", None, now_ns - 50_000_000, now_ns - 40_000_000, now_ns - 30_000_000, 8, 4, 1, "host", 1,
        {"run": "1"},
    )  # fmt: skip
    fields: dict[str, Any] = json.loads(encode(span))
    return fields


class Sender:
    """Makes one packet after the other, from a seed.

    Args:
        seed: of all that is random.
        now_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, seed: int, now_ns: Callable[[], int]) -> None:
        self._random = random.Random(seed)
        self._now_ns = now_ns
        self._kinds = (
            self._rubbish,
            self._printable,
            self._mutated,
            self._mutated,
            self._wild,
            self._wild,
            self._valid,
        )

    def packet(self) -> bytes:
        """The next one; never empty, which would end the connection."""
        return self._random.choice(self._kinds)() or b"\x00"

    def _rubbish(self) -> bytes:
        return self._random.randbytes(self._random.choice((1, 2, 7, 64, 300, 4096, 66_000)))

    def _printable(self) -> bytes:
        letters = self._random.choices(string.printable + '{}[]":,\\' * 5, k=self._random.randrange(1, 200))
        return "".join(letters).encode()

    def _mutated(self) -> bytes:
        packet = bytearray(self._message())
        for _ in range(self._random.randrange(1, 5)):
            at, to = sorted(self._random.choices(range(len(packet) + 1), k=2))
            what = self._random.randrange(5)
            if what == 0:
                packet[at : at + 1] = self._random.randbytes(1)
            elif what == 1:
                del packet[at:to]
            elif what == 2:
                packet[at:at] = packet[at:to]
            elif what == 3:
                packet[at:to] = bytes(reversed(packet[at:to]))
            else:
                packet = packet[:at]
        return bytes(packet)

    def _wild(self) -> bytes:
        fields = json.loads(self._message())
        for _ in range(self._random.randrange(1, 4)):
            name = self._random.choice([*fields, "uid", "x" * 300])
            if self._random.randrange(4) == 0:
                fields.pop(name, None)
            else:
                fields[name] = self._random.choice(WILD)
        return json.dumps(fields).encode("utf-8", "surrogatepass")

    def _valid(self) -> bytes:
        return self._message()

    def _message(self) -> bytes:
        # Few names, so that messages repeat, end and cancel each other's.
        span_id, now_ns = f"fuzz-{self._random.randrange(2000)}", self._now_ns()
        kind = self._random.randrange(5)
        if kind == 0:
            return encode(Begin(span_id, now_ns + self._random.choice((0, -(10**9), 10**12))))
        if kind == 1:
            return encode(Cancel(span_id))
        if kind == 2:
            return encode(MeasurementRequest(span_id, self._random.choice((0, 100, 60_000))))
        return json.dumps(a_span(span_id, now_ns)).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just("x" * 257),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=4,
)
fields_of_messages = st.dictionaries(
    st.sampled_from([*a_span("a", 10**9), "uid"]) | st.text(max_size=20), json_values, max_size=8
).map(lambda fields: json.dumps({"v": 1, "type": "span", **fields}).encode("utf-8", "surrogatepass"))


@st.composite
def near_misses(draw: st.DrawFn) -> bytes:
    """A valid span but for a few of its fields."""
    fields = a_span(draw(st.sampled_from(["a", "b", "c"])), 10**9)
    fields |= draw(st.dictionaries(st.sampled_from([*fields]), json_values, min_size=1, max_size=3))
    return json.dumps(fields).encode("utf-8", "surrogatepass")


packets = st.one_of(st.binary(min_size=1, max_size=500), fields_of_messages, near_misses())
"""What Hypothesis sends; it searches for what breaks, and makes it small."""
