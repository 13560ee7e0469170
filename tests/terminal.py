"""A program on a real pseudo-terminal, and what a person would see there: pyte keeps the screen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable
from typing import Any

import pyte

PATIENCE_S = 30.0


class Terminal:
    """Runs a command on a terminal of its own."""

    def __init__(self, *command: object, columns: int = 80, rows: int = 24, **environ: str) -> None:
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        self.written = b""
        self._ours, theirs = pty.openpty()
        self.resize(columns, rows, tell=False)
        self.before = termios.tcgetattr(theirs)
        self._theirs = theirs
        plain = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES", "COLUMNS")}
        self.process = subprocess.Popen(
            [*map(str, command)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=plain | {"TERM": "screen-256color", "LC_ALL": "C.UTF-8"} | environ,
            # Its own session, so that the terminal is its own and Ctrl-C typed there reaches it.
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def lines(self) -> list[str]:
        """What stands on the screen."""
        with self._lock:
            return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def colours(self) -> set[str]:
        """All that letters are written in now."""
        with self._lock:
            return {cell.fg for row in self._screen.buffer.values() for cell in row.values() if cell.data.strip()}

    def wait_until(self, condition: Callable[[str], bool]) -> str:
        deadline_s = time.monotonic() + PATIENCE_S
        while not condition(text := self.text):
            assert time.monotonic() < deadline_s, f"in vain:\n{text}\n{self.process.poll()}"
            time.sleep(0.02)
        return text

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def resize(self, columns: int, rows: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        with self._lock:
            self._screen.resize(rows, columns)
        if tell:
            os.killpg(self.process.pid, signal.SIGWINCH)

    def wait(self) -> int:
        """How the program has ended, once all that it wrote is on the screen."""
        code = self.process.wait(PATIENCE_S)
        os.close(self._theirs)
        self._reader.join(PATIENCE_S)
        return code

    def is_as_before(self) -> bool:
        """Whether the terminal's settings are those from before; to be asked while the program has ended or not yet."""
        now: list[Any] = termios.tcgetattr(self._ours)
        return now == self.before

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self._theirs)
        self._reader.join(PATIENCE_S)
        os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:  # the other side is closed
                return
            if not chunk:
                return
            with self._lock:
                self.written += chunk
                self._stream.feed(chunk)
