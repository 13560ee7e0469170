"""A damaged database is kept: it is moved out of the way whole, so that whatever can be read of it can be saved.

Its files get their new names first, as links, and lose their old ones after that: a daemon killed in between leaves
two names for one file and loses nothing. The database loses its name before the log does, because SQLite takes a log
without its database for a leftover and removes it.
"""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path

from llmpower.exceptions import StoreUnavailableError
from llmpower.store import schema

_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
SUFFIXES = ("", "-wal", "-shm")


def set_aside(path: Path, now: datetime) -> Path:
    """Rename the database and its log to ``<path>.corrupt-<UTC timestamp>``; return that path.

    To be called before its last connection is closed: closing would fold the log into the damaged file.

    Raises:
        StoreUnavailableError: they cannot be renamed there, and are as they were.
    """
    try:
        target = _free_name(path.with_name(f"{path.name}.corrupt-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}"))
        _move(path, target)
    except OSError as error:
        advice = f"the database is damaged, and cannot be moved out of the way ({error.strerror}); move it away"
        raise StoreUnavailableError(schema.OPTION, path, advice) from error
    return target


def _free_name(path: Path) -> Path:
    """The path, or with a number from 2 on behind it, that is not a file's and no log's name yet."""
    found, number = path, 1
    while any(_beside(found, suffix).exists() for suffix in SUFFIXES):
        number += 1
        found = path.with_name(f"{path.name}.{number}")
    return found


def _move(path: Path, target: Path) -> None:
    present = [suffix for suffix in SUFFIXES if _beside(path, suffix).exists()]
    try:
        for suffix in present:
            os.link(_beside(path, suffix), _beside(target, suffix))
    except OSError as error:
        for suffix in present:
            _beside(target, suffix).unlink(missing_ok=True)
        if error.errno not in _NO_LINKS:
            raise
        # A file system without links, such as VFAT: there is a moment between the renames, and the log goes first.
        for suffix in reversed(present):
            _beside(path, suffix).rename(_beside(target, suffix))
        return
    for suffix in present:
        _beside(path, suffix).unlink()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{suffix}")
