"""Keeps the store working through what happens to files on a real machine, and keeps it small.

A database that cannot be reached is reopened at the next attempt: the disk may have been full, read-only, unmounted
or failing, the directory removed or replaced. One that is damaged is set aside whole, and a new one begun; damage is
believed when a fresh look at the file finds it too. Nothing here waits until things improve: the caller tries again.
"""

from __future__ import annotations

import logging
import re
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from llmpower.daemon.storing.retention import Retention
from llmpower.daemon.storing.tidying import TURN_S, Tidier, read_uptime_s
from llmpower.exceptions import StoreDamagedError, StoreError, StoreUnavailableError
from llmpower.metrics import Histogram, StoreState
from llmpower.store import Appended, Store, schema, set_aside, upkeep
from llmpower.store.upkeep import Sizes
from llmpower.store.writer import identity
from llmpower.types import Measurement

UPKEEP_S = 10.0
"""Between turns with nothing to do."""

FAILED_S = 60.0
"""Between turns that fail."""

ASIDE_AGAIN_S = 60.0
"""A disk that damages each new database must not be filled with them."""

COMMIT_BOUNDS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

_SAY_AGAIN_S = 60.0
_Result = TypeVar("_Result")

logger = logging.getLogger("llmpower.daemon")


class Keeper:
    """The store, whatever happens to it. It may be used from any thread, by one at a time.

    Args:
        path: of the database.
        retention: what is deleted.
        utc_s: the wall clock, in seconds since 1970.
        uptime_s: a clock that is never set.

    Raises:
        StoreError: what was given is not a store, or out of reach by somebody's mistake. A disk that is full, read-only
            or failing, and a database locked by another program, are no reason not to start.
    """

    def __init__(
        self,
        path: Path,
        retention: Retention,
        *,
        utc_s: Callable[[], float] = time.time,
        uptime_s: Callable[[], float] = read_uptime_s,
    ) -> None:
        self._path = path
        self._utc_s = utc_s
        self._uptime_s = uptime_s
        self._store: Store | None = None
        self._identity: tuple[int, int] | None = None
        self._replaced = False
        self._aside_s: float | None = None
        self._tidier = Tidier(retention, self._say, utc_s=utc_s, uptime_s=uptime_s)
        self._sizes: Sizes | None = None
        self._commits = [0] * (len(COMMIT_BOUNDS_S) + 1)
        self._commits_s = 0.0
        self._errors = self._corruptions = self._faults = 0
        self._last_fault: str | None = None
        self._append_error: str | None = None
        self._said_s: dict[str, float] = {}
        self.state = StoreState()
        """The store's state to report; replaced whole, so any thread may read it at any time."""
        try:
            self._sizes = self._attempt(upkeep.sizes)
        except StoreUnavailableError as error:
            self._fail(error)
        self._publish()

    def append(self, measurements: Sequence[Measurement]) -> Appended:
        """Store all of them in one transaction, see :meth:`~llmpower.store.Store.append`.

        Raises:
            StoreError: nothing was stored; the same call may be made again.
        """
        began_s = self._uptime_s()
        try:
            appended = self._attempt(lambda store: store.append(measurements))
            self._append_error = None
        except StoreError as error:
            self._append_error = str(error)
            raise
        finally:
            took_s = self._uptime_s() - began_s
            self._commits[bisect_left(COMMIT_BOUNDS_S, took_s)] += 1
            self._commits_s += took_s
            self._publish()
        return appended

    def known(self, spans: Sequence[tuple[str, int | None]]) -> set[tuple[str, int | None]]:
        """Those that are stored, see :meth:`~llmpower.store.Store.known`.

        Raises:
            StoreError: that cannot be said now.
        """
        return self._attempt(lambda store: store.known(spans))

    def upkeep(self) -> float:
        """Do one turn of it; return after how many seconds the next is wanted."""
        try:
            began_s = self._uptime_s()
            more = self._attempt(self._tidier.turn)
            took_s = self._uptime_s() - began_s
            self._sizes = self._tidier.sizes
        except StoreError as error:
            self._fail(error)
            return FAILED_S
        finally:
            self._publish()
        # At most half of the time is spent on it, so that batches find the disk free.
        return max(took_s, TURN_S) if more else UPKEEP_S

    def close(self) -> None:
        """Let go of the database."""
        self._close()

    def _attempt(self, work: Callable[[Store], _Result]) -> _Result:
        """Do it, if need be with the database reopened, or with a new one in place of one that is damaged."""
        try:
            return work(self._opened())
        except StoreError as error:
            if schema.leaves_connection(error):
                raise
            self._close()
            if not self._is_damaged(error):
                raise
        # What was remembered of the file may have been out of date, if somebody put another in its place.
        try:
            return work(self._opened())
        except StoreError as error:
            if not self._is_damaged(error):
                raise
            self._set_aside(error)
        return work(self._opened())

    def _opened(self) -> Store:
        if self._store is None:
            try:
                self._store = Store(self._path)
            except StoreError as error:
                if not self._is_damaged(error):
                    raise
                self._set_aside(error)
                self._store = Store(self._path)
            self._begin(self._store)
        return self._store

    def _is_damaged(self, error: StoreError) -> bool:
        """Whether it is known to be ours and is damaged; a file that begins like none is, if we had it open before."""
        return isinstance(error, StoreDamagedError) or (
            schema.is_no_database(error) and self._identity is not None and identity(self._path) == self._identity
        )

    def _begin(self, store: Store) -> None:
        """Take up work with a database, which may be another than before."""
        if self._replaced or self._identity not in (None, store.identity):
            self._say(f"{self._path} was removed or replaced; measurements go into the file that is there now")
        self._identity, self._replaced = store.identity, False

    def _close(self) -> None:
        if self._store is not None:
            if identity(self._path) == self._store.identity:
                self._store.close()
            else:
                self._store.close_moved()
                # The inode is free for any file from here on.
                self._identity, self._replaced = None, True
            self._store = None
        self._sizes = None

    def _set_aside(self, error: StoreError) -> None:
        now_s = self._uptime_s()
        if self._aside_s is not None and now_s - self._aside_s < ASIDE_AGAIN_S:
            self._close()
            raise error
        target = set_aside(self._path, datetime.fromtimestamp(self._utc_s(), UTC))
        if self._store is not None:
            # As it lies: what is damaged is not to be written to.
            self._store.close()
            self._store = None
        self._aside_s, self._identity = now_s, None
        self._corruptions += 1
        self._say(
            f"{self._path} is damaged ({error.__cause__ or error.advice}): it is kept as {target}, of which 'sqlite3 "
            f"{target} .recover' saves what can be read, and a new database takes its place"
        )

    def _fail(self, error: StoreError) -> None:
        self._errors += 1
        # Whoever offers rows says so already.
        if str(error) != self._append_error:
            self._say(str(error))

    def _say(self, fault: str) -> None:
        """Log what went wrong, the same once a minute, and remember it."""
        now_s = self._uptime_s()
        self._faults += 1
        self._last_fault = fault
        kind = re.sub(r"\d+", "#", fault)
        if now_s >= self._said_s.get(kind, now_s):
            self._said_s[kind] = now_s + _SAY_AGAIN_S
            logger.error("%s", fault)

    def _publish(self) -> None:
        sizes = self._sizes
        self.state = StoreState(
            size_bytes=None if sizes is None else sizes.file_bytes,
            free_bytes=None if sizes is None else sizes.free_bytes,
            log_bytes=None if sizes is None else sizes.log_bytes,
            deleted=dict(self._tidier.deleted),
            errors=self._errors,
            corruptions=self._corruptions,
            commit_s=Histogram(COMMIT_BOUNDS_S, tuple(self._commits), self._commits_s),
            faults=self._faults,
            last_fault=self._last_fault,
        )
