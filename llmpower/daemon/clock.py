"""What the wall clock showed at a moment of CLOCK_MONOTONIC.

Spans are ordered and measured by CLOCK_MONOTONIC; people look them up by the wall clock, which is stepped now and then
(time synchronisation, an administrator, a suspended machine). ``started_at`` is what this machine's clock showed when
the span began: the time that a log line of the same program carries, and Prometheus's samples. It does not depend on
when the span was booked, so spans that began in one order between two steps stay in it, however late one ends.

Both clocks are slewed alike, so UTC less CLOCK_MONOTONIC changes by steps alone. They are seen at the next look, which
is how closely the moment of a step is known.

What OpenTelemetry sends is timed by the wall clock, and is taken back to CLOCK_MONOTONIC by the same steps. That is as
exact as the offset was read, give or take steps too small to be noticed.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from threading import Lock

STEP_NS = 1_000_000
"""A change of the offset below this is the noise of reading two clocks one after the other."""

MAX_STEPS = 4096
"""How many of the latest steps are remembered: 17 minutes of a clock that is stepped at every look."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOGGED_STEP_NS = 1_000_000_000

logger = logging.getLogger("llmpower.daemon")


class WallClock:
    """Remembers the offset of the wall clock, and since when each one was in force; any thread may ask or tell it."""

    def __init__(self) -> None:
        self._noting = Lock()
        # Replaced whole, so that whoever reads sees moments and offsets that belong together.
        self._steps: tuple[tuple[int, ...], tuple[int, ...]] = (), ()

    def note(self, now_ns: int, utc_offset_ns: int) -> int:
        """Take ``utc_offset_ns`` (UTC less CLOCK_MONOTONIC) as in force from ``now_ns``; return the step or 0."""
        with self._noting:
            since_ns, offsets_ns = self._steps
            step_ns = utc_offset_ns - offsets_ns[-1] if offsets_ns else 0
            if offsets_ns and abs(step_ns) < STEP_NS:
                return 0
            # Another thread may have looked a little later and told it first.
            now_ns = max((now_ns, *since_ns[-1:]))
            self._steps = (*since_ns, now_ns)[-MAX_STEPS:], (*offsets_ns, utc_offset_ns)[-MAX_STEPS:]
        if abs(step_ns) >= _LOGGED_STEP_NS:
            logger.warning(
                "the wall clock stepped %s by %.0f s", "forward" if step_ns > 0 else "back", abs(step_ns) / 1e9
            )
        return step_ns

    def at(self, moment_ns: int) -> datetime:
        """The time, in UTC to the microsecond, that the wall clock showed at ``moment_ns``.

        A moment before the first look, or before the steps remembered, has the earliest offset known.

        Raises:
            LookupError: nothing was noted yet.
        """
        since_ns, offsets_ns = self._steps
        number = max(bisect_right(since_ns, moment_ns) - 1, 0)
        # In integers: a float of seconds since 1970 is good to a quarter of a microsecond, and rounds.
        return _EPOCH + timedelta(microseconds=(moment_ns + offsets_ns[number]) // 1000)

    def moment_ns(self, utc_ns: int, now_ns: int) -> int:
        """When the wall clock showed ``utc_ns``, by CLOCK_MONOTONIC; below 0 is before boot, above ``now_ns`` to come.

        A time that it has shown twice, because it was set back in between, is the later of these. One that it never
        showed, because it was set forward past it, is the moment of that step.

        Raises:
            LookupError: nothing was noted yet.
        """
        since_ns, offsets_ns = self._steps
        until_ns, later, skipped_ns = now_ns + STEP_NS, False, None
        for began_ns, offset_ns in zip(reversed(since_ns), reversed(offsets_ns), strict=True):
            moment_ns = utc_ns - offset_ns
            if began_ns <= moment_ns <= until_ns:
                return moment_ns
            if later and moment_ns > until_ns and skipped_ns is None:
                skipped_ns = until_ns
            # This offset has shown later times only.
            later = moment_ns < began_ns
            until_ns = began_ns
        if skipped_ns is not None:
            return skipped_ns
        return utc_ns - offsets_ns[0 if later else -1]
