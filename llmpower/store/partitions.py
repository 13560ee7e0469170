"""A store's measurements as part of a data set that many hosts write: ``host=…/date=…/`` of Parquet files.

A run adds what is new and touches nothing that is there, so it may be repeated, stopped, and run by any number of hosts
at once. What is new it knows from the data set itself, and nothing else is kept:

- A file is called after its first and last row, and the last one's span: ``17-2301-5f3a90c1.parquet``. Rows get their
  numbers in the order in which they are stored, so where a day's last row has its file, the day is complete.
- Where it has none, the spans of that day's files are read, and rows that are not among them make another file. So a
  store that was recreated, whose rows count from 1 again, or a second store of the same host loses nothing.

A file is written under a name that readers pass over, and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

from llmpower.exceptions import InputError
from llmpower.places import failures, file_system, first_line
from llmpower.store import schema
from llmpower.store.parquet import schema_of, write_groups
from llmpower.store.reader import opened
from llmpower.types import MEASUREMENT_COLUMNS

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

OPTION = "-o"
_FILE = re.compile(r"\d+-(\d+)-([0-9a-f]{8})\.parquet")


@dataclass(frozen=True, slots=True)
class Added:
    """What a run added: this many ``rows`` in this many ``files``."""

    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class _Day:
    """A day of one host, and the last row that the store has of it."""

    hostname: str
    date: str
    last: int
    last_span: str

    @property
    def directory(self) -> str:
        return f"host={quote(self.hostname, safe='')}/date={self.date}"


def export_partitions(store: Path, place: str, tell: Callable[[int, int], None] | None = None) -> Added:
    """Add what the data set at ``place`` (a directory or a URL) lacks of the store; ``tell`` hears days done, of all.

    Raises:
        StoreError: no such store, or not one of a version known here.
        InputError: pyarrow or fsspec is missing, or the place cannot be written to.
    """
    filesystem, root = file_system(place, OPTION)
    rows = files = 0
    try:
        with opened(store) as connection:
            days = list(_days(connection))
            for number, day in enumerate(days, 1):
                added = _add_day(connection, day, filesystem, f"{root}/{day.directory}")
                rows, files = rows + added, files + bool(added)
                if tell is not None:
                    tell(number, len(days))
    except sqlite3.Error as error:
        raise schema.explain(store, error) from error
    except failures() as error:
        advice = f"cannot be written to ({first_line(error)}); make room there, or give another place"
        raise InputError(OPTION, place, advice) from error
    return Added(rows, files)


def _days(connection: sqlite3.Connection) -> Iterator[_Day]:
    # With one max() the other columns are those of the row that has it: SQLite's own rule.
    query = (
        "SELECT hostname, substr(started_at, 1, 10) AS date, max(id), span_id"
        " FROM measurements GROUP BY hostname, date ORDER BY date, hostname"
    )
    for values in connection.execute(query).fetchall():
        yield _Day(*values)


def _add_day(connection: sqlite3.Connection, day: _Day, filesystem: FileSystem, directory: str) -> int:
    """Write the day's rows that are not there yet; how many they were."""
    from pyarrow.fs import FileSelector

    there = [
        info.path
        for info in filesystem.get_file_info(FileSelector(directory, allow_not_found=True))
        if info.is_file and not info.base_name.startswith((".", "_")) and info.base_name.endswith(".parquet")
    ]
    ends = {match.groups() for path in there if (match := _FILE.fullmatch(path.rsplit("/", 1)[-1]))}
    if (str(day.last), _digest(day.last_span)) in ends:
        return 0
    known: set[str] = set()
    for path in there:
        known.update(_spans(filesystem, path))
    new = ((number, row) for number, row in _rows(connection, day) if row[0] not in known)
    first = next(new, None)
    if first is None:
        return 0
    filesystem.create_dir(directory, recursive=True)
    temporary = f"{directory}/.{uuid4().hex}.parquet"
    try:
        rows = _write(filesystem, temporary, (row for _, row in chain([first], new)))
        name = f"{first[0]}-{day.last}-{_digest(day.last_span)}.parquet"
        filesystem.move(temporary, f"{directory}/{name}")
    except BaseException:
        with suppress(*failures()):
            filesystem.delete_file(temporary)
        raise
    return rows


def _rows(connection: sqlite3.Connection, day: _Day) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The day's rows with their numbers, up to the last that was seen, in their order."""
    there = {row[0] for row in connection.execute("SELECT name FROM pragma_table_info('measurements')")}
    chosen = ", ".join(name if name in there else f"NULL AS {name}" for name in MEASUREMENT_COLUMNS)
    query = (
        f"SELECT id, {chosen} FROM measurements"
        " WHERE started_at >= ? AND started_at < ? AND hostname = ? AND id <= ? ORDER BY id"
    )
    # Every moment of a day is its date, a T and a time; U comes after T.
    for number, *row in connection.execute(query, (day.date, f"{day.date}U", day.hostname, day.last)):
        yield number, tuple(row)


def _write(filesystem: FileSystem, path: str, rows: Iterator[tuple[Any, ...]]) -> int:
    import pyarrow as pa

    shape = schema_of(MEASUREMENT_COLUMNS, started_at=pa.timestamp("us", tz="UTC"))
    with filesystem.open_output_stream(path) as stream:
        return write_groups(rows, shape, stream)


def _spans(filesystem: FileSystem, path: str) -> list[str]:
    from pyarrow import parquet

    spans: list[str] = parquet.read_table(path, columns=["span_id"], filesystem=filesystem)["span_id"].to_pylist()
    return spans


def _digest(span_id: str) -> str:
    return hashlib.sha256(span_id.encode()).hexdigest()[:8]
