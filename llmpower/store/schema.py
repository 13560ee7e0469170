"""The database's shape, and how an older one grows into it.

``migrations/NNN_*.sql`` are applied in order, each in a transaction of its own together with the ``user_version`` that
records it, so a daemon killed half way through finds the file at one version or the next. ``application_id`` marks the
file as ours: the wrong path given to ``--store`` must not plant a table in another program's database.
"""

from __future__ import annotations

import os
import re
import sqlite3
from importlib import resources
from pathlib import Path

from llmpower.exceptions import StoreDamagedError, StoreError, StoreUnavailableError

OPTION = "--store"
APPLICATION_ID = 0x6C6C6D70  # "llmp"
BUSY_TIMEOUT_S = 0.25

_STRICT_SINCE = (3, 37, 0)
_HEADER_BYTES = 100


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
    # Opened in one thread and used in another, never by two at once.
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Give an empty file what can only be given before its first page; leave any other as it is.

    Raises:
        StoreError: the file is another program's, or was written by a newer llmpower.
        sqlite3.Error: see :func:`explain`.
    """
    if check(connection, path, newest=newest_version()) == 0:
        # Pages that deletions empty can then be given back a few at a time, without rewriting the file.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # In the file itself before there is a log, so that even a damaged one is known to be ours.
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the database up to the newest version; a new file (see :func:`prepare`) gets every migration.

    Raises:
        StoreError: the file is another program's, or was written by a newer llmpower.
        sqlite3.Error: see :func:`explain`.
    """
    version = check(connection, path, newest=newest_version())
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


def is_ours(path: Path) -> bool:
    """Whether the header of the file, damaged or not, says that it is a store of a version known here."""
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError:
        return False
    application_id, version = (int.from_bytes(header[at : at + 4], "big") for at in (68, 60))
    return application_id == APPLICATION_ID and version <= newest_version()


def explain(path: Path, error: sqlite3.Error) -> StoreError:
    """What SQLite said, as what to do about it."""
    match _primary(error):
        case _ if path.is_dir():
            advice = "this is a directory; give a file in it"
        case "SQLITE_BUSY" | "SQLITE_LOCKED":
            advice = "another program holds the database locked; close it and try again"
            return StoreUnavailableError(OPTION, path, advice)
        case "SQLITE_CORRUPT":
            advice = "the database is damaged; move it away, and save what can be read with 'sqlite3 FILE .recover'"
            return StoreDamagedError(OPTION, path, advice)
        case "SQLITE_NOTADB" if is_ours(path):
            return StoreDamagedError(OPTION, path, "the database is damaged: its first page cannot be read")
        case "SQLITE_NOTADB":
            return StoreError(OPTION, path, "this is not a database; give another file, or move this one away")
        case "SQLITE_FULL":
            return StoreUnavailableError(OPTION, path, "the disk is full; make room")
        case "SQLITE_READONLY" | "SQLITE_PERM" | "SQLITE_CANTOPEN" | "SQLITE_IOERR" if _is_read_only(path.parent):
            return StoreUnavailableError(OPTION, path, "the disk is read-only; see dmesg, and mount it for writing")
        case "SQLITE_IOERR":
            advice = f"the disk fails ({error}, {name_of(error)}); see dmesg, and the quota"
            return StoreUnavailableError(OPTION, path, advice)
        case "SQLITE_READONLY" | "SQLITE_PERM":
            advice = "no permission to write there; fix the permissions of the file and its directory"
        case "SQLITE_CANTOPEN" if not path.parent.is_dir():
            advice = f"there is no directory {path.parent}; create it, or give another file"
        case "SQLITE_CANTOPEN":
            advice = "cannot be opened; check that it exists and that you may read it"
        case _:
            advice = f"the database failed ({error}); check the file and its disk"
    return StoreError(OPTION, path, advice)


def leaves_connection(error: StoreError) -> bool:
    """Whether the connection is as good as before: the file is where it was, and only locked or without room."""
    return _cause(error) in ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL")


def is_no_database(error: StoreError) -> bool:
    """Whether the file does not even begin like a database."""
    return _cause(error) == "SQLITE_NOTADB"


def name_of(error: sqlite3.Error) -> str:
    """SQLite's own name of what went wrong, such as ``SQLITE_IOERR_WRITE``."""
    return getattr(error, "sqlite_errorname", type(error).__name__)


def _primary(error: sqlite3.Error) -> str:
    """``SQLITE_IOERR`` for ``SQLITE_IOERR_WRITE``."""
    return re.sub(r"^(SQLITE_[A-Z]+)_.*", r"\1", getattr(error, "sqlite_errorname", ""))


def _cause(error: StoreError) -> str:
    return _primary(error.__cause__) if isinstance(error.__cause__, sqlite3.Error) else ""


def _is_read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _migrations() -> list[tuple[int, str]]:
    files = resources.files("llmpower.store").joinpath("migrations").iterdir()
    numbered = [(int(file.name[:3]), file.read_text("utf-8")) for file in files if file.name.endswith(".sql")]
    return sorted(numbered)
