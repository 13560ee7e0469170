"""The database's shape, and how an older one grows into it.

``migrations/NNN_*.sql`` are applied in order, each in a transaction of its own together with the ``user_version`` that
records it, so a daemon killed half way through finds the file at one version or the next. ``application_id`` marks the
file as ours: the wrong path given to ``--store`` must not plant a table in another program's database.
"""

from __future__ import annotations

import re
import sqlite3
from importlib import resources
from pathlib import Path

from llmpower.exceptions import StoreError

OPTION = "--store"
APPLICATION_ID = 0x6C6C6D70  # "llmp"
BUSY_TIMEOUT_S = 0.25

_STRICT_SINCE = (3, 37, 0)


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """Open ``path`` by SQLite's URI ``mode`` (``rwc``, ``ro``, ``ro&immutable=1``), without implicit transactions.

    Raises:
        StoreError: this Python's SQLite is too old for the tables.
        sqlite3.Error: the file cannot be opened; see :func:`explain`.
    """
    if sqlite3.sqlite_version_info < _STRICT_SINCE:
        advice = "this Python is linked with an SQLite that has no STRICT tables; use one with SQLite 3.37 or newer"
        raise StoreError("sqlite", sqlite3.sqlite_version, advice)
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the database up to the newest version; a new file gets every migration.

    Raises:
        StoreError: the file is another program's, or was written by a newer llmpower.
        sqlite3.Error: see :func:`explain`.
    """
    version = check(connection, path, newest=newest_version())
    if version == 0:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for number, script in _migrations():
        if number > version:
            connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def check(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    """The version of the database, 0 for an empty file, known to be ours and not newer than ``newest``.

    Raises:
        StoreError: it is not.
        sqlite3.Error: it is no database at all; see :func:`explain`.
    """
    application_id = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID and (application_id or version or tables):
        raise StoreError(OPTION, path, "this is the database of another program; give a file of llmpower's own")
    if version > newest:
        advice = f"written by a newer llmpower (version {version} of the tables, {newest} known here); upgrade llmpower"
        raise StoreError(OPTION, path, advice)
    return version


def newest_version() -> int:
    """The number of the last migration."""
    return _migrations()[-1][0]


def explain(path: Path, error: sqlite3.Error) -> StoreError:
    """What SQLite said, as what to do about it."""
    name = getattr(error, "sqlite_errorname", "")
    match re.sub(r"^(SQLITE_[A-Z]+)_.*", r"\1", name):
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            advice = "another program holds the database locked; close it and try again"
        case "SQLITE_NOTADB":
            advice = "this is not a database; give another file, or move this one away"
        case "SQLITE_CORRUPT":
            advice = "the database is damaged; move it away, and save what can be read with 'sqlite3 FILE .recover'"
        case "SQLITE_FULL":
            advice = "the disk is full; make room"
        case "SQLITE_READONLY" | "SQLITE_PERM":
            advice = "no permission to write there; mend the permissions of the file and its directory"
        case "SQLITE_CANTOPEN" if path.is_dir():
            advice = "this is a directory; give a file in it"
        case "SQLITE_CANTOPEN" if not path.parent.is_dir():
            advice = f"there is no directory {path.parent}; create it, or give another file"
        case "SQLITE_CANTOPEN":
            advice = "cannot be opened; check that it exists and that you may read it"
        case _:
            advice = f"the database failed ({error}); check the file and its disk"
    return StoreError(OPTION, path, advice)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _migrations() -> list[tuple[int, str]]:
    files = resources.files("llmpower.store").joinpath("migrations").iterdir()
    numbered = [(int(file.name[:3]), file.read_text("utf-8")) for file in files if file.name.endswith(".sql")]
    return sorted(numbered)
