"""What keeps the database from growing without end, in steps small enough to stand between two batches of rows.

Rows leave oldest first, a few hundred in a transaction; the pages that this empties go back to the file system a few
hundred at a time (incremental vacuum). A reader keeps the view it began with through all of it. Ages are found by the
index on ``started_at``; for size, the rows stored first go first, whatever a clock said when they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from llmpower.store.rows import iso
from llmpower.store.writer import Store


class Sizes(NamedTuple):
    """Bytes: ``file_bytes`` and ``log_bytes`` on the disk, of pages in use and of pages that hold nothing."""

    file_bytes: int
    log_bytes: int
    used_bytes: int
    free_bytes: int


def sizes(store: Store) -> Sizes:
    """How large the database is now, to all that is committed; the file itself follows when the log is folded in.

    Raises:
        StoreError: it cannot be read.
    """
    with store.explaining() as connection:
        page_bytes, pages, free_pages = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_size", "page_count", "freelist_count")
        )
    log = store.path.with_name(f"{store.path.name}-wal")
    return Sizes(
        file_bytes=_file_bytes(store.path),
        log_bytes=_file_bytes(log),
        used_bytes=page_bytes * (pages - free_pages),
        free_bytes=page_bytes * free_pages,
    )


def delete_before(store: Store, moment: datetime, rows: int) -> int:
    """Delete at most this many spans that began before ``moment``, the oldest first; return how many it were.

    Raises:
        StoreError: none was deleted.
    """
    chosen = "SELECT id FROM measurements WHERE started_at < ? ORDER BY started_at LIMIT ?"
    with store.transaction() as connection:
        return connection.execute(f"DELETE FROM measurements WHERE id IN ({chosen})", (iso(moment), rows)).rowcount


def delete_first(store: Store, rows: int) -> int:
    """Delete at most this many spans, those stored first; return how many it were.

    Raises:
        StoreError: none was deleted.
    """
    chosen = "SELECT id FROM measurements ORDER BY id LIMIT ?"
    with store.transaction() as connection:
        return connection.execute(f"DELETE FROM measurements WHERE id IN ({chosen})", (rows,)).rowcount


def give_back(store: Store, pages: int) -> None:
    """Cut at most this many empty pages off the file; it shrinks once the log is folded in.

    Raises:
        StoreError: nothing was given back.
    """
    with store.explaining() as connection:
        # execute() would stop after the first page: the pragma answers with a row without columns for each.
        connection.executescript(f"PRAGMA incremental_vacuum({pages})")


def checkpoint(store: Store) -> bool:
    """Fold the log into the file as far as readers allow; true when all of it is in.

    Raises:
        StoreError: it failed.
    """
    with store.explaining() as connection:
        busy, in_log, folded = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return not busy and in_log == folded


def gives_back(store: Store) -> bool:
    """Whether empty pages can be given back one by one; not so in a file that an early llmpower has made.

    Raises:
        StoreError: the database cannot be read.
    """
    with store.explaining() as connection:
        return bool(connection.execute("PRAGMA auto_vacuum").fetchone()[0])


def rewrite(store: Store) -> None:
    """Rewrite the file so that it gives pages back; takes as long as copying it, and twice the room.

    Raises:
        StoreError: it stays as it was.
    """
    with store.explaining() as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")


def span_of_ids(store: Store) -> int:
    """From the first row to the last, counted as if none between them were missing; 0 without rows.

    Raises:
        StoreError: the database cannot be read.
    """
    with store.explaining() as connection:
        first, last = connection.execute(
            "SELECT (SELECT min(id) FROM measurements), (SELECT max(id) FROM measurements)"
        ).fetchone()
    return 0 if first is None else int(last - first + 1)


def read_note(store: Store, name: str) -> int | None:
    """A number kept by name; ``None`` where there is none.

    Raises:
        StoreError: the database cannot be read.
    """
    with store.explaining() as connection:
        row = connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def write_notes(store: Store, values: Mapping[str, int]) -> None:
    """Keep numbers by name, across restarts.

    Raises:
        StoreError: none was kept.
    """
    with store.transaction() as connection:
        connection.executemany("INSERT OR REPLACE INTO notes (name, value) VALUES (?, ?)", values.items())


def _file_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
