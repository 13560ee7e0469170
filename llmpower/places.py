"""Where Parquet data sets lie: directories of this machine, and URLs that fsspec knows (s3://, gs://, sftp:// …).

Both are pyarrow's file systems to whoever reads or writes there. pyarrow and fsspec are imported on first use: neither
is needed by anything else.
"""

from __future__ import annotations

import sys
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING

from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

EXTRA = "pip install 'llmpower[fleet]'"
# Libraries of fsspec's file systems whose errors are not OSErrors: no credentials, no answer.
_OF_THEIR_OWN = {"botocore.exceptions": "BotoCoreError", "google.auth.exceptions": "GoogleAuthError"}


def is_url(place: str) -> bool:
    """Whether ``place`` is a URL and no path."""
    return "://" in place


def is_dataset(place: str) -> bool:
    """Whether ``place`` is read as a data set: a directory, or a URL."""
    return is_url(place) or Path(place).is_dir()


def matches(place: str) -> list[str]:
    """The files that a pattern finds, sorted; what is no pattern, or the name of something, is one by itself."""
    if is_url(place) or not has_magic(place) or Path(place).exists():
        return [place]
    return sorted(glob(place))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def file_system(place: str, option: str) -> tuple[FileSystem, str]:
    """The file system of a directory or URL, and the path in it; ``option`` is what it was given with.

    Raises:
        InputError: pyarrow or fsspec is missing, fsspec does not know such URLs, or the place is empty, as a shell
            makes it of a variable that is not set.
    """
    if not place:
        raise InputError(option, "empty", "names no place; give one (. is this directory)")
    try:
        from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem
    except ImportError as error:
        raise InputError(option, place, f"data sets need pyarrow; {EXTRA}") from error
    if not is_url(place):
        return LocalFileSystem(), str(Path(place).absolute())
    try:
        import fsspec
    except ImportError as error:
        raise InputError(option, place, f"URLs need fsspec; {EXTRA}") from error
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError, OSError) as error:
        raise InputError(option, place, f"cannot be opened ({first_line(error)}); check the URL") from error
    return PyFileSystem(FSSpecHandler(filesystem)), str(path).rstrip("/")


def failures(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What reading or writing at a place fails with, of the libraries that are loaded, and ``more``."""
    import pyarrow as pa

    loaded = [(sys.modules[module], error) for module, error in _OF_THEIR_OWN.items() if module in sys.modules]
    return (OSError, pa.ArrowException, *(getattr(module, error) for module, error in loaded), *more)


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
