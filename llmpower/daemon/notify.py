"""What systemd is told: ready, what we are doing, still alive, stopping.

The protocol is one datagram of ``KEY=value`` lines to the socket named in ``NOTIFY_SOCKET``; without that variable
nothing is sent. See sd_notify(3).
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Mapping

logger = logging.getLogger("llmpower.daemon")


class Notifier:
    """Sends the state of this process to whoever started it, where that one asked for it."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL byte of an abstract address.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environ)
        """Within which time the watchdog wants a sign of life; 0 when there is none."""

    def ready(self, status: str) -> None:
        """Start-up is over and ``status`` says where we are."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """The loop turned; ``status`` is what ``systemctl status`` shows."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """The end has begun, and is meant."""
        self._send("STOPPING=1")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        # A path in it need not be UTF-8.
        datagram = text.encode(errors="backslashreplace")
        # A service manager that cannot listen, or no descriptor left to tell it by, must not end the measuring: its own
        # watchdog will judge.
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection,
        ):
            connection.setblocking(False)
            connection.sendto(datagram, self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """As sd_watchdog_enabled(3) has it; but what would be an error there must not keep the daemon from measuring."""
    text = environ.get("WATCHDOG_USEC", "")
    if not text or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    if not re.fullmatch("[0-9]{1,19}", text) or not int(text):
        logger.warning("WATCHDOG_USEC = %s is not a number of microseconds: taken as no watchdog", text)
        return 0.0
    return int(text) / 1e6
