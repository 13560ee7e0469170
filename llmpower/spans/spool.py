"""The spool: files beside the socket, into which programs write what must not get lost.

What lies in a socket's queue dies with the daemon, and what the daemon holds in memory too. So a message is appended to
a file of its program's own, by one ``write(2)``: when that has returned, a finished span outlives the daemon, and that
is the moment from which it counts as acknowledged. The daemon reads these files as they grow and removes one once every
span in it is committed; after a crash, or an absence, it finds in them what it has not stored.

A file (a *segment*) holds one JSON object a line: a head that says by which clock it is timed, then messages as
:mod:`~llmpower.spans.wire` writes them. A torn or corrupt line loses itself and not the next one. Its writer holds a
lock (``flock(2)``) on it for as long as it may append, which the kernel lets go of however the program ends; what the
program has begun and not ended is then given up. Segments are small, so that space comes back soon, and a program keeps
:data:`MAX_SEGMENTS` of them at most. It is called ``<program>-<number>.spans``, and takes the lock on the next one
before it lets go of the one before.

The directory is the daemon's and sticky (mode 1770, as the socket is 0660): members of its group add files, and only
their owner or the daemon removes them. The kernel's word on a file's owner is what makes a span its sender's. The files
themselves are open to all who may enter: in a user namespace the directory's group has no name, and a file cannot be
given to it.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from contextlib import suppress
from pathlib import Path

from llmpower.spans.clocks import read_clock
from llmpower.spans.wire import encode_head

SUFFIX = ".spans"
SEGMENT_BYTES = 512 << 10
"""At this size the next one is begun: some 1,200 spans."""

MAX_SEGMENTS = 64
"""Of one program, 32 MiB: some 80,000 spans, or sixteen seconds of 5,000 a second."""

MAX_DIRECTORY_BYTES = 128 << 20
"""Of all programs together; beyond it none begins another segment."""

_MODE = 0o644  # for the daemon, whatever the program's umask and groups: who is let into the directory, that decides
_ATTEMPTS = 3


def spool_directory(socket_path: Path) -> Path:
    """The spool of the daemon at ``socket_path``: ``/run/llmpower/llmpower.spool`` for ``…/llmpower.sock``."""
    return socket_path.with_suffix(".spool")


class SpoolWriter:
    """Appends packets to segments in ``directory``. It may be used by one thread at a time.

    Where there is no directory, nothing is kept: no daemon has ever been there, and none may ever be. Nor is anything
    while this program has ``max_segments`` there, or all programs together have ``max_bytes``. ``program`` is what its
    files are called by, and no other's; one is made up by default.
    """

    def __init__(
        self,
        directory: Path,
        *,
        program: str | None = None,
        max_segments: int = MAX_SEGMENTS,
        max_bytes: int = MAX_DIRECTORY_BYTES,
    ) -> None:
        self.directory = directory
        self._max_segments = max_segments
        self._max_bytes = max_bytes
        self.segments = 0
        """This many were begun."""
        self._program = program or uuid.uuid4().hex
        self._descriptor = -1
        self._size_bytes = 0
        self._segments: list[Path] = []

    def append(self, packet: bytes) -> bool:
        """Whether the packet is in the spool, and so outlives this program and the daemon; never raises."""
        line = packet + b"\n"
        if (self._descriptor < 0 or self._size_bytes + len(line) > SEGMENT_BYTES) and not self._begin():
            return False
        try:
            written = os.write(self._descriptor, line)
        except OSError:
            written = 0
        if written < len(line):
            # No room on the disk. Half a line would spoil the next one, should there be room again.
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size_bytes)
            self.close()
            return False
        self._size_bytes += written
        return True

    def close(self) -> None:
        """Let go of the segment; the daemon removes it once it has stored what is in it."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _begin(self) -> bool:
        """Go on in a new segment; whether there is one."""
        self._segments = [path for path in self._segments if path.exists()]
        try:
            if len(self._segments) < self._max_segments and _size_bytes(self.directory) <= self._max_bytes:
                for _ in range(_ATTEMPTS):
                    self.segments += 1
                    path = self.directory / f"{self._program}-{self.segments:08d}{SUFFIX}"
                    descriptor = _create(path)
                    if descriptor >= 0:
                        self.close()
                        self._segments.append(path)
                        self._descriptor, self._size_bytes = descriptor, os.fstat(descriptor).st_size
                        return True
        except OSError:
            pass
        self.close()
        return False


def _create(path: Path) -> int:
    """A new segment, locked, its head written; -1 if the daemon took the file for one that was left behind."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # It removes only what it could lock: from here on not this one, if it has not already.
        if os.fstat(descriptor).st_nlink == 0:
            raise BlockingIOError
        os.fchmod(descriptor, _MODE)
        line = encode_head(read_clock()) + b"\n"
        if os.write(descriptor, line) < len(line):
            raise OSError
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError:
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()
        raise
    return descriptor


def _size_bytes(directory: Path) -> int:
    total_bytes = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            with suppress(OSError):
                total_bytes += entry.stat(follow_symlinks=False).st_size
    return total_bytes
