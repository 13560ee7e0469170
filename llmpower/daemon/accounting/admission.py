"""Which spans are let in: whose they are, and how many of each user may run or wait.

A span is known by its id and its sender's uid together, so nobody can end, repeat or cancel another's. The ledger knows
no users: it gets a span under its own id, or where another user's span of that id is there, under one made from both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from msgspec.structs import replace

from llmpower.attribution import Ledger
from llmpower.daemon.accounting.host import Host
from llmpower.types import Span

MAX_PENDING = 20_000
"""Finished spans that may wait: some 30 MB."""

MAX_PENDING_OF_USER = 15_000
PRESSING = 10_000
"""When more wait, what holds them up is given up. 5,000 spans a second leave some 4,000 waiting."""

MAX_OPEN_OF_USER = 8192

_FUTURE_NS = 1_000_000_000
_YOUNG_NS = 1_000_000_000

Key = tuple[str, int | None]
"""A span's id and its sender's uid; ``None`` where it came by a way that does not tell."""


class Admission:
    """The spans that run or wait.

    Args:
        ledger: what books their energy.
        host: what says where they ran.
        reject: counts a refusal by its reason.
        hold_s: for how long a span may run.
    """

    def __init__(self, ledger: Ledger, host: Host, reject: Callable[[str], None], hold_s: float) -> None:
        self._ledger = ledger
        self._host = host
        self._reject = reject
        self._hold_ns = round(hold_s * 1e9)
        self._open: dict[Key, int] = {}
        self._open_of: Counter[int | None] = Counter()
        self._pending: set[Key] = set()
        self._pending_of: Counter[int | None] = Counter()
        self._names: dict[Key, str] = {}
        self._keys: dict[str, Key] = {}

    @property
    def running(self) -> int:
        """Spans that have begun and not ended."""
        return len(self._open)

    @property
    def pending(self) -> int:
        """Spans that have ended and are not settled."""
        return len(self._pending)

    def pending_of(self, uid: int | None) -> int:
        """Those of a user's."""
        return self._pending_of[uid]

    def room(self, uid: int | None) -> int:
        """How many more of a user's may wait."""
        return min(MAX_PENDING_OF_USER - self._pending_of[uid], MAX_PENDING - len(self._pending))

    def begin(self, key: Key, start_ns: int, now_ns: int) -> bool:
        """A span has started; false when it is refused.

        That is so when it runs already, starts in the future, or too many of its user's run. One that waits has ended
        by the other of two ways, whose news came first; it is no second one, or its own end will say so.
        """
        if key in self._pending:
            return False
        reason = None
        if key in self._open:
            reason = "duplicate"
        elif start_ns > now_ns + _FUTURE_NS:
            reason = "in_the_future"
        elif self._open_of[key[1]] >= MAX_OPEN_OF_USER:
            reason = "too_many_open"
        if reason is not None:
            self._reject(reason)
            return False
        self._open[key] = start_ns
        self._open_of[key[1]] += 1
        self._ledger.begin(self._name(key), start_ns)
        return True

    def finish(self, span: Span, now_ns: int) -> bool:
        """A span has ended; false when it is refused.

        That is so when it waits already, ends in the future, or too many wait, in all or of its user's.
        """
        key = span.span_id, span.uid
        if key in self._pending:
            self._reject("duplicate")
            return False
        reason = None
        if span.end_ns > now_ns:
            # It would lay claim to joules that nobody has drawn yet. A clock of another boot or time namespace does so.
            reason = "in_the_future"
        elif self.room(span.uid) <= 0:
            reason = "overloaded"
        if reason is not None:
            self.cancel(key)
            self._reject(reason)
            return False
        self._close(key)
        self._pending.add(key)
        self._pending_of[span.uid] += 1
        name, resolved = self._name(key), self._host.resolve(span)
        self._ledger.add(resolved if name == span.span_id else replace(resolved, span_id=name))
        return True

    def cancel(self, key: Key) -> None:
        """A running span failed, or its program is gone."""
        if key in self._open:
            self._close(key)
            self._ledger.cancel(self._names[key])
            self._forget(key)

    def settled(self, span: Span) -> Span:
        """The ledger is done with a span; return it under its own id."""
        key = self._keys[span.span_id]
        self._forget(key)
        self._pending.discard(key)
        _take_one(self._pending_of, key[1])
        return span if key[0] == span.span_id else replace(span, span_id=key[0])

    def expire(self, now_ns: int) -> None:
        """Give up spans that have run for longer than samples are kept, or than there is room for what they hold up.

        What an open span holds up is everybody's. When too much waits, the older half of the time held is given up,
        until it fits: one long span goes before thousands of short ones, and so does one that somebody has begun to
        hold up the others.
        """
        horizon_ns = now_ns - self._hold_ns
        if self._open and len(self._pending) > PRESSING:
            horizon_ns = max(horizon_ns, min((min(self._open.values()) + now_ns) // 2, now_ns - _YOUNG_NS))
        for key, start_ns in list(self._open.items()):
            if start_ns <= horizon_ns:
                self.cancel(key)
                self._reject("abandoned")

    def _close(self, key: Key) -> None:
        if self._open.pop(key, None) is not None:
            _take_one(self._open_of, key[1])

    def _name(self, key: Key) -> str:
        if (name := self._names.get(key)) is None:
            name = key[0]
            while name in self._keys:
                name = f"{name}@{key[1]}"
            self._names[key], self._keys[name] = name, key
        return name

    def _forget(self, key: Key) -> None:
        del self._keys[self._names.pop(key)]


def _take_one(counts: Counter[int | None], uid: int | None) -> None:
    counts[uid] -= 1
    if not counts[uid]:
        # Users come and go, and are not remembered.
        del counts[uid]
