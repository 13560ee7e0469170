"""The one writer. Rows arrive in batches, each batch in one transaction: all of it is there, or none.

Write-ahead logging lets readers work while the daemon writes. ``synchronous=FULL`` waits for the disk at every commit,
so a row that was reported as stored survives the machine's losing power, not only the daemon's being killed; whoever
cannot wait hands over rows from another thread. That there is one writer is held by a lock beside the database: SQLite
would let two daemons take turns, and both would count the same device.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from llmpower.exceptions import StoreDamagedError, StoreError, StoreUnavailableError
from llmpower.store import rows, schema
from llmpower.types import Measurement

CHECK_S = 0.5
"""How long opening may look for damage: about 100 MB. What lies beyond is found when it is first used."""

LOG_KEPT_BYTES = 8 << 20
"""To this size the log is cut once all of it is in the database, as after a reader that has kept it long."""

_ASKED = 128
# What SQLite or its Python module say of a value that no table can hold.
_UNSTORABLE = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, UnicodeError)
_PASSING_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Appended(NamedTuple):
    """What has become of a batch: rows added, and rows that no table can hold; the rest was there already."""

    new: int
    unstorable: int = 0


class Store:
    """The measurements database, opened for writing; creates the file where there is none.

    It may be used from any thread, by one at a time.

    Raises:
        StoreDamagedError: it is ours, and damaged.
        StoreUnavailableError: the disk is full, read-only or failing, or another program holds the database locked.
        StoreError: another daemon writes to it, it is another program's or newer than this one, or out of reach.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)
        try:
            self._connection = _open(path)
            self.identity = identity(path)
            """Device and inode of the database."""
            self._log = path.with_name(f"{path.name}-wal")
            self._log_identity = identity(self._log)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, measurements: Sequence[Measurement]) -> Appended:
        """Store all of them in one transaction.

        A span that is there already stays as it is: a sender may repeat itself, and its joules must not double. Where
        it is another user's, the new one is kept under an id of its own (:func:`~llmpower.store.rows.under_own_id`). A
        row that no table can hold costs itself and not its batch, which would otherwise fail for ever.

        Raises:
            StoreError: nothing was stored; the same call may be made again.
        """
        new = unstorable = 0
        with self.transaction() as connection:
            for chunk in rows.chunks([rows.row_of(measurement) for measurement in measurements]):
                try:
                    new += self._insert(connection, chunk)
                except _UNSTORABLE:
                    for row in chunk:
                        try:
                            new += self._insert(connection, [row])
                        except _UNSTORABLE:
                            unstorable += 1
        return Appended(new, unstorable)

    def known(self, spans: Sequence[tuple[str, int | None]]) -> set[tuple[str, int | None]]:
        """Those of the spans, by id and sender's uid, that need not be stored again.

        Raises:
            StoreError: the database cannot be read.
        """
        found: set[tuple[str, int | None]] = set()
        with self.explaining() as connection:
            for start in range(0, len(spans), _ASKED):
                asked = {key: rows.stored_ids(*key) for key in spans[start : start + _ASKED]}
                names = {name for stored_ids in asked.values() for name in stored_ids}
                query = f"SELECT span_id, uid FROM measurements WHERE span_id IN ({', '.join('?' * len(names))})"
                there = set(connection.execute(query, [*names]))
                for key, stored_ids in asked.items():
                    if any((name, uid) in there for name in stored_ids for uid in (key[1], None)):
                        found.add(key)
        return found

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done in the block is committed at its end, or none of it.

        Raises:
            StoreError: it failed, or the file is no longer where it was and nobody would find what was stored.
        """
        with self.explaining():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite itself rolls back on some errors, such as a full disk; there is then nothing left to undo.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        if identity(self.path) != self.identity:
            advice = "the file was removed or replaced under the daemon; a file that is there again will be used"
            raise StoreUnavailableError(schema.OPTION, self.path, advice)

    @contextmanager
    def explaining(self) -> Iterator[sqlite3.Connection]:
        """The connection, for what needs no transaction.

        Raises:
            StoreError: in place of SQLite's own errors.
        """
        try:
            yield self._connection
        except sqlite3.Error as error:
            raise schema.explain(self.path, error) from error

    def close(self) -> None:
        """Fold the log into the database file and let go of it; a second call does nothing."""
        if self._lock < 0:
            return
        # The last connection to close folds the log in and removes it, or a reader that is still there; where the file
        # is no longer in its place, nobody does.
        with suppress(sqlite3.Error):
            self._connection.close()
        os.close(self._lock)
        self._lock = -1

    def close_moved(self) -> None:
        """Let go of a file that was moved away, or removed, with all that is committed in it.

        SQLite would take the log that stays behind for that of the next file of this name, whoever's it is.
        """
        # This finds the file wherever it is: it is still open.
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        self.close()
        if self._log_identity is not None and identity(self._log) == self._log_identity:
            with suppress(OSError):
                self._put_log_away()

    def _put_log_away(self) -> None:
        log = self._log.stat()
        if log.st_size == 0:
            self._log.unlink()
        else:
            # A reader or the disk kept it from being folded in. It is of use beside the file that was moved.
            self._log.rename(self._log.with_name(f"{self.path.name}.left-{log.st_ino}-wal"))
        self.path.with_name(f"{self.path.name}-shm").unlink(missing_ok=True)

    @staticmethod
    def _insert(connection: sqlite3.Connection, chunk: Sequence[rows.Row]) -> int:
        """How many of the rows are new."""
        new = connection.execute(rows.insert(len(chunk)), [value for row in chunk for value in row]).rowcount
        if new == len(chunk):
            return new
        marks = ", ".join("?" * len(chunk))
        query = f"SELECT span_id, uid FROM measurements WHERE span_id IN ({marks})"
        owners = dict(connection.execute(query, [row[rows.SPAN_ID] for row in chunk]))
        for row in chunk:
            owner, uid = owners[row[rows.SPAN_ID]], row[rows.UID]
            if uid is not None and owner is not None and uid != owner:
                new += connection.execute(rows.insert(1), rows.under_own_id(row)).rowcount
        return new


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what is there; ``None`` for nothing, or for what cannot be asked."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _lock(path: Path) -> int:
    """The descriptor that holds ``<path>.lock``; the kernel lets go of it however the process ends."""
    lock_path = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except FileNotFoundError as error:
        advice = f"there is no directory {path.parent}; create it, or give another file"
        raise StoreError(schema.OPTION, path, advice) from error
    except OSError as error:
        kind = StoreUnavailableError if error.errno in _PASSING_ERRNOS else StoreError
        raise kind(schema.OPTION, path, f"cannot write there ({error.strerror}); fix that") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        advice = f"another daemon (pid {holder or 'unknown'}) writes to it; stop that one, or give another file"
        raise StoreError(schema.OPTION, path, advice) from error
    # The pid is for people; a full disk has no room for it, and the lock holds without.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


def _open(path: Path) -> sqlite3.Connection:
    try:
        if path.exists() and path.stat().st_size:
            _check(path)
        connection = schema.connect(path, "rwc")
        try:
            schema.prepare(connection, path)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")
            schema.migrate(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise schema.explain(path, error) from error
    return connection


def _check(path: Path) -> None:
    """See that the file is ours, and look for damage, for :data:`CHECK_S` at most.

    Raises:
        StoreDamagedError: it is damaged.
        StoreError: it is another program's, or newer than this one.
        sqlite3.Error: see :func:`~llmpower.store.schema.explain`.
    """
    # Read-only: switching the journal of a file that is not ours would already be a change to it, and closing a
    # connection that may write would fold the log into a file that is damaged.
    with closing(schema.connect(path, "ro")) as connection:
        schema.check(connection, path, newest=schema.newest_version())
        # SQLite's progress handler is not called within the check of a table by every version; this reaches it.
        timer = threading.Timer(CHECK_S, connection.interrupt)
        timer.start()
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if schema.name_of(error) != "SQLITE_INTERRUPT":
                raise
            return
        finally:
            timer.cancel()
            # Without this it could still interrupt what comes next.
            timer.join()
    if found != "ok":
        advice = "the database is damaged; move it away, and save what can be read with 'sqlite3 FILE .recover'"
        raise StoreDamagedError(schema.OPTION, path, advice) from sqlite3.DatabaseError(" ".join(found.split())[:200])
