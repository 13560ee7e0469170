"""Keeps the database small: deletes what retention does not allow, and gives the space back to the file system.

It does so in turns of some 50 ms, between which batches are stored. A reader at work keeps its view through all of it;
what a reader that never ends would do, make the write-ahead log grow without end, is reported, and nothing is deleted
meanwhile, which would make it grow faster.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from llmpower.daemon.storing.retention import AGE_OPTION, SIZE_OPTION, Reckoning, Retention
from llmpower.exceptions import StoreUnavailableError
from llmpower.store import Store, upkeep
from llmpower.store.upkeep import Sizes

TURN_S = 0.05
"""What a turn may take; the rows it deletes are made more or fewer to meet it."""

MIN_ROWS, MAX_ROWS = 32, 4096
GIVEN_BACK_PAGES = 256
"""A turn; 1 MiB."""

SLACK = 16
"""One part in so many of the file stays empty for the rows to come, rather than being cut off and grown again."""

LEAST_SLACK_BYTES = 256 << 10
LARGE_LOG_BYTES = 64 << 20
"""A write-ahead log beyond this is kept open by a reader, and reported; it is 4 MiB where nobody reads for long."""

REWRITE_BYTES = 256 << 20
"""Up to this size, a file of an early llmpower is rewritten so that it gives space back: one or two seconds."""

NOTE_S = 3600.0
"""Between two notes of the time that is believed, for the next start."""

_BELIEVED, _DOUBTED = "clock_believed_s", "clock_doubted_s"

logger = logging.getLogger("llmpower.daemon")


def read_uptime_s() -> float:
    """Seconds since boot, suspended time included; never set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Tidier:
    """Does the turns.

    Args:
        retention: what is deleted.
        say: takes a sentence on something that somebody should look after.
        utc_s: the wall clock, in seconds since 1970.
        uptime_s: a clock that is never set.
    """

    def __init__(
        self,
        retention: Retention,
        say: Callable[[str], None],
        *,
        utc_s: Callable[[], float] = time.time,
        uptime_s: Callable[[], float] = read_uptime_s,
    ) -> None:
        self._retention = retention
        self._say = say
        self._utc_s = utc_s
        self._uptime_s = uptime_s
        self._reckoning: Reckoning | None = None
        self._noted_s = 0.0
        self._rows = MIN_ROWS
        self._rewritten = False
        self.deleted: Counter[str] = Counter()
        """Spans deleted, by the limit that they exceeded."""
        self.sizes: Sizes | None = None
        """As they were at the latest turn."""

    def turn(self, store: Store) -> bool:
        """Do one; true when there is more to do at once.

        Raises:
            StoreError: the turn failed, and may be done again.
        """
        self.sizes = sizes = upkeep.sizes(store)
        now_s = self._judge(store)
        if sizes.log_bytes > LARGE_LOG_BYTES and not upkeep.checkpoint(store):
            # Whatever is deleted now would only make it larger.
            self._say(
                f"the log of {store.path} has grown to {sizes.log_bytes >> 20} MiB: a reader (an export, an sqlite3 "
                "shell) keeps an old view of the database open; end it"
            )
            return False
        if not self._rewritten:
            self._rewritten = True
            self._rewrite(store, sizes)
        began_s = self._uptime_s()
        deleted = self._delete(store, sizes, now_s)
        gave_back = self._give_back(store)
        took_s = self._uptime_s() - began_s
        if took_s > 2 * TURN_S:
            self._rows = max(self._rows // 2, MIN_ROWS)
        elif deleted and took_s < TURN_S / 2:
            self._rows = min(self._rows * 2, MAX_ROWS)
        return deleted or gave_back

    def _judge(self, store: Store) -> float:
        """The time by which ages are judged."""
        if self._reckoning is None:
            self._reckoning = Reckoning(upkeep.read_note(store, _BELIEVED), upkeep.read_note(store, _DOUBTED) or 0)
        uptime_s = self._uptime_s()
        now_s = self._reckoning.now_s(self._utc_s(), uptime_s)
        if uptime_s >= self._noted_s:
            self._noted_s = uptime_s + NOTE_S
            believed_s, doubted_s = self._reckoning.believed_s or now_s, self._reckoning.doubted_s
            upkeep.write_notes(store, {_BELIEVED: int(believed_s), _DOUBTED: int(doubted_s)})
        if self._reckoning.ahead_s and self._retention.age_s is not None:
            days = self._reckoning.ahead_s / 86_400
            self._say(
                f"the wall clock has jumped ahead by {days:.0f} d; until it has stayed there for three days,"
                f" {AGE_OPTION} counts on from the time before. If the clock is wrong, set it right"
            )
        return now_s

    def _delete(self, store: Store, sizes: Sizes, now_s: float) -> bool:
        """Delete some of what retention does not allow; whether there was any."""
        aged = sized = 0
        if self._retention.age_s is not None:
            before = datetime.fromtimestamp(now_s, UTC) - timedelta(seconds=self._retention.age_s)
            aged = upkeep.delete_before(store, before, self._rows)
            self._count(AGE_OPTION, "age", aged, store)
        if self._retention.size_bytes is not None and sizes.used_bytes > self._retention.size_bytes:
            excess = (sizes.used_bytes - self._retention.size_bytes) / sizes.used_bytes
            rows = max(round(excess * upkeep.span_of_ids(store)), MIN_ROWS)
            sized = upkeep.delete_first(store, min(rows, self._rows))
            self._count(SIZE_OPTION, "size", sized, store)
        return aged + sized > 0

    def _count(self, option: str, limit: str, rows: int, store: Store) -> None:
        if rows and not self.deleted[limit]:
            logger.info("%s: the oldest spans are being deleted from %s", option, store.path)
        self.deleted[limit] += rows

    def _give_back(self, store: Store) -> bool:
        """Cut some empty pages off, beyond what rows to come will need; whether there were any."""
        self.sizes = sizes = upkeep.sizes(store)
        slack_bytes = max(sizes.used_bytes // SLACK, LEAST_SLACK_BYTES)
        if sizes.free_bytes > slack_bytes and upkeep.gives_back(store):
            upkeep.give_back(store, GIVEN_BACK_PAGES)
            return True
        if sizes.file_bytes > sizes.used_bytes + sizes.free_bytes:
            # Cut off already, and the file follows when the log is folded in.
            upkeep.checkpoint(store)
            self.sizes = upkeep.sizes(store)
        return False

    def _rewrite(self, store: Store, sizes: Sizes) -> None:
        if upkeep.gives_back(store):
            return
        if sizes.file_bytes > REWRITE_BYTES:
            logger.warning(
                "%s was made by an early llmpower: it will not grow beyond its limits, but not shrink either. To fix "
                "that, stop the daemon and run: sqlite3 %s 'PRAGMA auto_vacuum = INCREMENTAL; VACUUM'",
                store.path,
                store.path,
            )
            return
        try:
            upkeep.rewrite(store)
            logger.info("rewrote %s, so that it can shrink when spans are deleted", store.path)
        except StoreUnavailableError as error:
            logger.warning("%s could not be rewritten, so it will not shrink with deletions: %s", store.path, error)
