"""What the wall clock showed at a moment of CLOCK_MONOTONIC.

Spans are ordered and measured by CLOCK_MONOTONIC; people look them up by the wall clock, which is stepped now and then
(time synchronisation, an administrator, a suspended machine). ``started_at`` is what this machine's clock showed when
the span began: the time that a log line of the same program carries, and Prometheus's samples. It does not depend on
when the span was booked, so spans that began in one order between two steps stay in it, however late one ends.

Both clocks are slewed alike, so UTC less CLOCK_MONOTONIC changes by steps alone. They are seen at the next look, which
is how closely the moment of a step is known.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta

STEP_NS = 1_000_000
"""A change of the offset below this is the noise of reading two clocks one after the other."""

MAX_STEPS = 4096
"""How many of the latest steps are remembered: 17 minutes of a clock that is stepped at every look."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class WallClock:
    """Remembers the offset of the wall clock, and since when each one was in force."""

    def __init__(self) -> None:
        self._since_ns: list[int] = []
        self._offsets_ns: list[int] = []

    def note(self, now_ns: int, utc_offset_ns: int) -> int:
        """Take ``utc_offset_ns`` (UTC less CLOCK_MONOTONIC) as in force from ``now_ns``; return the step or 0."""
        step_ns = utc_offset_ns - self._offsets_ns[-1] if self._offsets_ns else 0
        if self._offsets_ns and abs(step_ns) < STEP_NS:
            return 0
        self._since_ns.append(now_ns)
        self._offsets_ns.append(utc_offset_ns)
        del self._since_ns[:-MAX_STEPS], self._offsets_ns[:-MAX_STEPS]
        return step_ns

    def at(self, moment_ns: int) -> datetime:
        """The time, in UTC to the microsecond, that the wall clock showed at ``moment_ns``.

        A moment before the first look, or before the steps remembered, has the earliest offset known.

        Raises:
            LookupError: nothing was noted yet.
        """
        number = max(bisect_right(self._since_ns, moment_ns) - 1, 0)
        # In integers: a float of seconds since 1970 is good to a quarter of a microsecond, and rounds.
        return _EPOCH + timedelta(microseconds=(moment_ns + self._offsets_ns[number]) // 1000)
