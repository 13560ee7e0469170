"""What the daemon logs, in the form that its reader expects.

systemd names the journal's own stream in ``JOURNAL_STREAM``; when that is our stderr, records go to the journal's
socket as fields (systemd.journal-fields(7)): ``journalctl -u llmpower -p err`` finds the errors, and
``LLMPOWER_DEVICE=GPU-…`` what was said of one card. Where that socket is out of reach, the priority is a prefix of the
line, as sd-daemon(3) has it. Anyone else reads plain lines.

The journal's protocol is one datagram of ``KEY=value`` lines, so no library is needed. A value of several lines goes
with its length instead.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "llmpower"
DEVICE_FIELD = "LLMPOWER_DEVICE"


def set_up(
    stream: TextIO = sys.stderr, *, environ: Mapping[str, str] = os.environ, journal: Path = JOURNAL_SOCKET
) -> logging.Handler:
    """Send what is logged to the journal when ``stream`` is its, else to ``stream`` as plain lines."""
    handler = logging.StreamHandler(stream)
    if is_journal(stream, environ):
        handler.setFormatter(PrefixFormatter())
        with contextlib.suppress(OSError):  # out of reach: the prefixed lines will do
            handler = JournalHandler(journal, handler)
    else:
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    return handler


def is_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether ``stream`` is what systemd connected; a program may have been given another since."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def about(device_uuid: str) -> dict[str, dict[str, str]]:
    """``extra=about(uuid)`` marks a record as being of one device."""
    return {"journal": {DEVICE_FIELD: device_uuid}}


class JournalHandler(logging.StreamHandler[TextIO]):
    """Writes records as fields to the journal's socket; what it does not take goes to ``fallback``.

    Raises:
        OSError: the socket cannot be reached.
    """

    def __init__(self, journal: Path, fallback: logging.StreamHandler[TextIO]) -> None:
        super().__init__(fallback.stream)
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # A journal that hangs must not hang the loop.
        self._socket.setblocking(False)
        try:
            self._socket.connect(str(journal))
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            self._socket.send(b"".join(_encode(name, value) for name, value in _fields(record, self.format(record))))
        except OSError:
            self._fallback.emit(record)

    def close(self) -> None:
        """Let go of the socket."""
        self._socket.close()
        super().close()


class PrefixFormatter(logging.Formatter):
    """``<3>message``: the priority before each line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines() or [""])


def _fields(record: logging.LogRecord, message: str) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", message
    yield "PRIORITY", str(_priority(record.levelno))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    yield "CODE_FUNC", record.funcName or ""
    yield from getattr(record, "journal", {}).items()


def _encode(name: str, value: str) -> bytes:
    # A message may quote anything; half of a surrogate pair must not be what stops a log.
    content = value.encode(errors="backslashreplace")
    if b"\n" not in content:
        return b"%s=%s\n" % (name.encode(), content)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(content)), content)


def _priority(level: int) -> int:
    """Syslog's number for a level of Python's."""
    for least, priority in ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6)):
        if level >= least:
            return priority
    return 7
