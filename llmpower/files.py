"""Outputs appear whole or not at all; and whether a file is still the one that was read.

Every file that llmpower writes for a user goes through :func:`replacing`: it is written beside its place under a
temporary name and moved there by ``rename(2)``, so a reader never sees half of it and a failed command leaves the
old one as it was.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmpower.exceptions import InputError

DEVICES = Path("/dev")


@contextmanager
def replacing(path: Path, option: str = "--out") -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success rename it to ``path``, on error remove it.

    ``option`` names the command-line option (or argument) in the error.

    Raises:
        InputError: the directory does not exist or cannot be written to, the disk is full, or ``path`` is there and is
            no file: what is renamed to it would take the place of a pipe, or of ``/dev/null`` where root asks for it.
    """
    try:
        refuse_no_file(path, option)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        # As any new file, and unlike mkstemp's. To ask for the umask is to set it, for a moment and in all threads.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise no_place(path, option, error) from error
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        advice = f"cannot be written ({error.strerror or error}); make room there, or give another place"
        raise InputError(option, path, advice) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def refuse_no_file(path: Path, option: str) -> None:
    """Refuse what no file may take the place of; ``/dev/stdout`` is a link, and may lead to a file."""
    if path.parent == DEVICES or (path.exists() and not path.is_file()):
        raise InputError(option, path, "is a directory, a device or a pipe; give a file, new or to be replaced")


def no_place(path: Path, option: str, error: OSError) -> InputError:
    """What to say where no file can be made beside ``path``."""
    advice = f"cannot write there ({error.strerror}); give a file in a directory that exists and is writable"
    return InputError(option, path, advice)


def write_text(path: Path, text: str, option: str = "--out") -> None:
    """Write ``text`` (UTF-8) to ``path`` by rename; errors as :func:`replacing`."""
    with replacing(path, option) as temporary:
        temporary.write_text(text, encoding="utf-8")


def file_state(path: Path) -> tuple[int, int, int] | None:
    """What is another after a file has changed: time of the change, inode, size; ``None`` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
