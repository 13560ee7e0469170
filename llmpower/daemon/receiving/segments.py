"""The files of the spool: found, opened, removed; and what else lies among them, removed too.

The directory is open to every program that may send spans, so whatever is in it may be anything: what is no segment,
is too large, or one too many of its user's, goes at once and is counted.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from llmpower.daemon.receiving.inbox import Inbox
from llmpower.daemon.receiving.segment import Segment
from llmpower.exceptions import InputError
from llmpower.spans.packets import MAX_PACKET_BYTES
from llmpower.spans.spool import SEGMENT_BYTES, SUFFIX
from llmpower.spans.wire import SenderClock

OPTION = "--socket"
MAX_SEGMENTS = 1024
MAX_SEGMENTS_OF_USER = 256
"""Four programs that have filled all they may."""

MAX_SEGMENT_BYTES = SEGMENT_BYTES + MAX_PACKET_BYTES
MAX_ENTRIES = 4096
"""Looked at in one step. Who makes more files than that delays others' new ones, until they are removed."""

_NAME = re.compile(rf"\w{{1,64}}-[0-9]{{8}}{re.escape(SUFFIX)}", re.ASCII)
_MODE = 0o1770
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)


class Segments:
    """The segments in ``directory``, which it creates; ``inbox`` is told what was refused, ``clock`` is ours.

    Raises:
        InputError: the directory cannot be made, or is another user's.
    """

    def __init__(self, directory: Path, inbox: Inbox, clock: Callable[[], SenderClock]) -> None:
        self._directory = directory
        self._inbox = inbox
        self._clock = clock
        self._segments: dict[str, Segment] = {}
        self._of_user: Counter[int] = Counter()
        self._ignored: set[str] = set()
        _make(directory)

    def __iter__(self) -> Iterator[Segment]:
        """Those there are now, whatever is dropped meanwhile."""
        return iter(list(self._segments.values()))

    def look(self) -> None:
        """See what is there."""
        try:
            with os.scandir(self._directory) as entries:
                for _, entry in zip(range(MAX_ENTRIES), entries, strict=False):
                    if entry.name not in self._segments and entry.name not in self._ignored:
                        self._open(self._directory / entry.name)
        except OSError as error:
            waits = error.errno in _NO_DESCRIPTORS
            fate = "what is in it waits; raise LimitNOFILE=" if waits else "spans may be lost"
            self._inbox.fail(f"the spool {self._directory} cannot be read ({error.strerror}); {fate}")
            with suppress(InputError):
                _make(self._directory)
        for segment in self:
            if segment.look() > MAX_SEGMENT_BYTES:
                self.refuse(segment, "spool_size")

    def refuse(self, segment: Segment, reason: str) -> None:
        """Remove a file that is not taken any further, and count why."""
        self._inbox.reject(reason)
        self.drop(segment)

    def drop(self, segment: Segment) -> None:
        """Remove a file, and forget it."""
        segment.remove()
        self._of_user[segment.uid] -= 1
        del self._segments[segment.path.name]

    def close(self) -> None:
        """Let go of the files."""
        for segment in self:
            segment.close()
        self._segments.clear()

    def _open(self, path: Path) -> None:
        if len(self._segments) >= MAX_SEGMENTS:
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in _NO_DESCRIPTORS:
                self._discard(path)
            return
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not _NAME.fullmatch(path.name):
            os.close(descriptor)
            self._discard(path)
            return
        segment = Segment(path, descriptor, found.st_uid, self._clock)
        self._segments[path.name] = segment
        self._of_user[segment.uid] += 1
        if self._of_user[segment.uid] > MAX_SEGMENTS_OF_USER:
            self.refuse(segment, "spool_quota")

    def _discard(self, path: Path) -> None:
        """Remove what is no segment; what cannot be removed, such as somebody's directory, is not looked at again."""
        self._inbox.reject("spool_file")
        try:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        except OSError as error:
            if len(self._ignored) >= MAX_ENTRIES:
                self._ignored.clear()
            self._ignored.add(path.name)
            advice = f"something in {self._directory} is not a file of spans and cannot be removed ({error.strerror})"
            self._inbox.fail(f"{advice}; remove it, and see whose it is")


def _make(directory: Path) -> None:
    try:
        with suppress(FileExistsError):
            directory.mkdir(_MODE)
        found = directory.stat(follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            advice = f"{directory} is where spans are kept until they are stored, and it is not ours; move it away"
            raise InputError(OPTION, directory.with_suffix(".sock"), advice)
        directory.chmod(_MODE)
    except OSError as error:
        advice = f"{directory} cannot be made beside it ({error.strerror}); give a path in a directory you may write to"
        raise InputError(OPTION, directory.with_suffix(".sock"), advice) from error
