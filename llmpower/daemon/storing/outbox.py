"""Measurements on their way to the store: the loop hands them over and never waits for a disk.

One batch is under way at a time, in the store's own thread, and what comes meanwhile waits here. A batch that fails is
offered again, in its order and before what came later, so a full disk costs a delay; it costs rows only when more wait
than the memory for them, the oldest of the user who has most waiting, and these are counted.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from llmpower.exceptions import StoreError
from llmpower.phrases import plural
from llmpower.store import Appended
from llmpower.types import Measurement, Span

MAX_WAITING_ROWS = 20_000
"""Measurements kept while the store does not take them: some 20 MB."""

MAX_BATCH_ROWS = 4096
"""What one transaction holds at most; more than come within a step of the loop at 5,000 spans a second."""

RETRY_S = 1.0
SLOW_S = 10.0
"""A write under way for so long is reported: the disk hangs, or is so busy that the rows waiting will be too many."""

Append = Callable[[Sequence[Measurement]], "Future[Appended]"]

logger = logging.getLogger("llmpower.daemon")


class Outbox:
    """Keeps measurements until they are stored.

    Args:
        append: begins to store a batch; its future gives what has become of it, or raises StoreError and nothing of it
            is stored.
        fail: takes a sentence on something that went wrong.
    """

    def __init__(self, append: Append, fail: Callable[[str], None]) -> None:
        self._append = append
        self._fail = fail
        self._rows: deque[Measurement] = deque()
        self._batch: list[Measurement] = []
        self._waiting_of: Counter[int | None] = Counter()
        self._future: Future[Appended] | None = None
        self._begun_ns = self._retry_ns = 0
        self._failing_since_ns: int | None = None
        self.on_stored: Callable[[Sequence[Span]], None] = lambda _: None
        """Is told which spans are committed; also those that were in the store before."""
        self.stored = 0
        """Rows added."""
        self.duplicates = 0
        """Spans that were there already."""
        self.unstorable = 0
        """Spans that no table can hold, such as a count beyond 64 bits."""
        self.errors = 0
        """Batches that failed."""
        self.lost = 0
        """Rows given up because too many waited."""

    @property
    def waiting(self) -> int:
        """Measurements that are not stored yet."""
        return len(self._batch) + len(self._rows)

    def waiting_of(self, uid: int | None) -> int:
        """Those of a user's spans."""
        return self._waiting_of[uid]

    def put(self, measurement: Measurement) -> None:
        """Take one more."""
        self._rows.append(measurement)
        self._waiting_of[measurement.span.uid] += 1

    def turn(self, now_ns: int) -> None:
        """Look what has become of the batch under way, and send the next if there is one; never waits."""
        self._look(now_ns)
        while self._future is None and self._rows and now_ns >= self._retry_ns:
            self._batch = [self._rows.popleft() for _ in range(min(len(self._rows), MAX_BATCH_ROWS))]
            self._begun_ns = now_ns
            self._future = self._append(self._batch)
            self._look(now_ns)
        while self._rows and self.waiting > MAX_WAITING_ROWS:
            self._give_up(self.waiting - MAX_WAITING_ROWS)

    def _give_up(self, count: int) -> None:
        """Lose so many rows, or all, of the user who has most of those that can still be lost."""
        ((uid, most),) = Counter(row.span.uid for row in self._rows).most_common(1)
        left = min(count, most)
        self.lost += left
        self._waiting_of[uid] -= left
        kept: deque[Measurement] = deque()
        for row in self._rows:
            if left and row.span.uid == uid:
                left -= 1
            else:
                kept.append(row)
        self._rows = kept

    def _look(self, now_ns: int) -> None:
        if self._future is None:
            return
        if not self._future.done():
            if now_ns - self._begun_ns > SLOW_S * 1e9:
                self._fail(f"the store has not answered for more than {SLOW_S:.0f} s; its disk hangs or is overloaded")
            return
        future, self._future = self._future, None
        batch, self._batch = self._batch, []
        try:
            appended = future.result()
        except StoreError as error:
            self.errors += 1
            self._fail(str(error))
            self._failing_since_ns = self._begun_ns if self._failing_since_ns is None else self._failing_since_ns
            self._retry_ns = now_ns + round(RETRY_S * 1e9)
            self._rows.extendleft(reversed(batch))
            return
        # Users come and go, and are not remembered.
        self._waiting_of -= Counter(measurement.span.uid for measurement in batch)
        self.stored += appended.new
        self.unstorable += appended.unstorable
        self.duplicates += len(batch) - appended.new - appended.unstorable
        if self._failing_since_ns is not None:
            failing_s = (now_ns - self._failing_since_ns) / 1e9
            waited = plural(len(batch), "measurement")
            logger.warning("the store works again after %.0f s; %s had waited", failing_s, waited)
            self._failing_since_ns = None
        self.on_stored([measurement.span for measurement in batch])
