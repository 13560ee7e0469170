"""Readers of the database: they never write, and the daemon never waits for them.

A reader sees the rows committed when it began. It opens the file read-only, so it works for anyone who may read the
file, also where SQLite could not leave its own files beside it. It reads stores of every version there has been: what
an older one does not have is absent.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from llmpower.exceptions import StoreError, StoreUnavailableError
from llmpower.store import schema
from llmpower.store.rows import FLAGS, iso
from llmpower.types import MEASUREMENT_COLUMNS

if TYPE_CHECKING:
    import pandas as pd

READABLE_COLUMNS = (*MEASUREMENT_COLUMNS, "uid")
"""What can be asked for. ``uid`` is whose process sent the span; it is handed out to those who ask."""


def iter_rows(
    path: Path,
    *,
    columns: Sequence[str] = MEASUREMENT_COLUMNS,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
) -> Iterator[tuple[object, ...]]:
    """Yield one tuple of ``columns`` a span, in order of start, without pandas.

    ``since`` is the first moment (UTC offset required) included, ``until`` the first excluded; ``model`` is an exact
    model name. ``None`` stands for NULL.

    Raises:
        StoreError: no such file, or not a store of a version known here.
        ValueError: a column that is not one of :data:`READABLE_COLUMNS`, or a naive time.
    """
    flags = [name in FLAGS for name in columns]
    for row in _rows(path, columns, since, until, model):
        yield tuple(bool(value) if flag else value for value, flag in zip(row, flags, strict=True))


def _rows(
    path: Path, columns: Sequence[str], since: datetime | None, until: datetime | None, model: str | None
) -> Iterator[tuple[object, ...]]:
    """As :func:`iter_rows`, as SQLite has them."""
    if unknown := set(columns) - set(READABLE_COLUMNS):
        raise ValueError(f"no such column: {', '.join(sorted(unknown))}")
    where, values = _where(since, until, model)
    try:
        with opened(path) as connection:
            there = {row[0] for row in connection.execute("SELECT name FROM pragma_table_info('measurements')")}
            chosen = ", ".join(name if name in there else f"NULL AS {name}" for name in columns)
            query = f"SELECT {chosen} FROM measurements{where} ORDER BY started_at, id"
            yield from connection.execute(query, values)
    except sqlite3.Error as error:
        raise schema.explain(path, error) from error


def count_rows(
    path: Path, *, since: datetime | None = None, until: datetime | None = None, model: str | None = None
) -> int:
    """How many rows :func:`iter_rows` would give; errors as there."""
    where, values = _where(since, until, model)
    try:
        with opened(path) as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM measurements{where}", values).fetchone()
    except sqlite3.Error as error:
        raise schema.explain(path, error) from error
    return int(count)


def _where(since: datetime | None, until: datetime | None, model: str | None) -> tuple[str, tuple[object, ...]]:
    """The condition of a query, with its values."""
    conditions: dict[str, object] = {}
    if since is not None:
        conditions["started_at >= ?"] = _aware(since)
    if until is not None:
        conditions["started_at < ?"] = _aware(until)
    if model is not None:
        conditions["model_name = ?"] = model
    return f" WHERE {' AND '.join(conditions)}" if conditions else "", tuple(conditions.values())


def read_measurements(
    path: Path,
    *,
    columns: Sequence[str] = MEASUREMENT_COLUMNS,
    since: datetime | None = None,
    until: datetime | None = None,
    model: str | None = None,
) -> pd.DataFrame:
    """The stored spans as a frame of exactly ``columns``, in order of start.

    Arguments as :func:`iter_rows`. ``started_at`` is text (UTC, ISO 8601), ``device_uuids`` joined by ``;``; absent
    readings are NaN.

    Raises:
        StoreError: no such file, or not a store of a version known here.
        ValueError: a column that is not one of :data:`READABLE_COLUMNS`, or a naive time.
    """
    from llmpower.store.frames import frame_of

    return frame_of(_rows(path, columns, since, until, model), columns)


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads the rows committed by now.

    Raises:
        StoreError: no such file, or not a store of a version known here.
    """
    try:
        if not path.exists():
            advice = "no such file; start 'llmpower daemon', or give the store it writes to"
            raise StoreError(schema.OPTION, path, advice)
    except PermissionError as error:
        advice = "closed to this user; a service's is open to its group: usermod -aG llmpower USER"
        raise StoreError(schema.OPTION, path, advice) from error
    connection = schema.connect(path, "ro")
    version = before = None
    try:
        # A log-keeping database wants its index file beside it. Where we may not create that, or a full disk has no
        # room for it, and no daemon has, nobody is writing either, and the file can be read as it lies.
        if not _would_bar_owner(path):
            try:
                version = schema.check(connection, path, newest=schema.newest_version())
            except sqlite3.OperationalError:
                if _has_log(path):
                    raise
        if version is None:
            connection.close()
            before = path.stat()
            connection = schema.connect(path, "ro&immutable=1")
            version = schema.check(connection, path, newest=schema.newest_version())
        if version == 0:
            advice = "there is nothing in it yet; start 'llmpower daemon', or give the store it writes to"
            raise StoreError(schema.OPTION, path, advice)
        try:
            yield connection
        except sqlite3.Error:
            _see_unchanged(path, before)
            raise
        _see_unchanged(path, before)
    finally:
        connection.close()


def _would_bar_owner(path: Path) -> bool:
    """Whether SQLite would leave an index file beside it that is ours, and that its daemon could then not open."""
    index = path.with_name(f"{path.name}-shm")
    return os.geteuid() not in (0, path.stat().st_uid) and not index.exists() and not _has_log(path)


def _see_unchanged(path: Path, before: os.stat_result | None) -> None:
    """A file read without locks (``before`` is not ``None``) must be as it was: rows may otherwise be of two minds."""
    if before is not None and (_has_log(path) or path.stat().st_mtime_ns != before.st_mtime_ns):
        advice = "a daemon has begun to write to it while it was read; run this again"
        raise StoreUnavailableError(schema.OPTION, path, advice)


def _has_log(path: Path) -> bool:
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _aware(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no UTC offset")
    return iso(moment)
