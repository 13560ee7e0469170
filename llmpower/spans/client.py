"""The program's side: tells the daemon about spans, and never makes the program wait or fail for it.

Serving comes first. Messages go into the spool (:mod:`~llmpower.spans.spool`): when :meth:`SpanClient.finish` returns,
the span is acknowledged, and will be in the store even if the daemon is killed the next moment, or is away for now.
Where there is no spool, or no room in it, messages go over the socket, without blocking and without that promise; one
that the daemon cannot take now is dropped and counted, because a request that waits for its meter no longer costs what
it costs without. What is missing is said once, with the way to fix it, through the ``llmpower`` logger (which prints
on stderr in a program that set up no logging).

:meth:`SpanClient.measurement` is the exception: somebody wants to know what a span cost, so it waits.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections import deque
from functools import cache
from pathlib import Path
from typing import Protocol

from llmpower.exceptions import InputError
from llmpower.spans.clocks import read_clock
from llmpower.spans.daemon_socket import advice_on, check_socket_path, default_socket_path, request_measurement
from llmpower.spans.packets import WireError
from llmpower.spans.spool import SpoolWriter, spool_directory
from llmpower.spans.wire import Begin, Cancel, Message, encode
from llmpower.types import Measurement, Span

QUIET_S = 0.5
"""After so long without a message a program lets the daemon, which may be resting, know that there is one."""

MAX_WITHDRAWALS = 1024
"""Spans whose end could not be told, remembered so that they do not stay open at a daemon that is behind."""

_logger = logging.getLogger("llmpower")


class SpanSink(Protocol):
    """Where spans go: :class:`SpanClient`, or whatever else wants to see them."""

    def begin(self, span_id: str, start_ns: int) -> None:
        """A span has started."""

    def finish(self, span: Span) -> None:
        """It has ended well."""

    def cancel(self, span_id: str) -> None:
        """It has failed."""


class SpanClient:
    """A lazy connection to the daemon, shared by all threads of a process and rebuilt in a forked child.

    ``socket_path`` ``None`` means :func:`default_socket_path`, looked up at each attempt to connect, so that a
    daemon started later is found. Attempts are at least ``retry_after_s`` apart.
    """

    def __init__(self, socket_path: Path | None = None, *, retry_after_s: float = 1.0) -> None:
        self.socket_path = socket_path
        self.retry_after_s = retry_after_s
        self.sent = 0
        """Packets that the kernel has taken for the daemon."""
        self.spooled = 0
        """Of these, spans in the spool: the daemon stores them whatever becomes of it or of this program."""
        self.dropped = 0
        """Packets lost: no daemon, a daemon that does not keep up, or a message outside the wire format's bounds."""
        self._warned: set[str] = set()
        self._connection: socket.socket | None = None
        self._spool: SpoolWriter | None = None
        self._forget()
        _clients.add(self)

    def begin(self, span_id: str, start_ns: int) -> None:
        """Tell that a span started, so that the daemon holds its time open."""
        packet = self._encode(Begin(span_id, start_ns))
        if not self._keep(packet):
            self._send(packet)

    def finish(self, span: Span) -> None:
        """Hand over a finished span; one that cannot be told is withdrawn, so that nothing stays open."""
        packet = self._encode(span)
        if not self._keep(packet, spans=1) and not self._send(packet):
            self.cancel(span.span_id)

    def cancel(self, span_id: str) -> None:
        """Withdraw a span that failed; what cannot be said now is said before the next message."""
        packet = self._encode(Cancel(span_id))
        if packet is not None and not self._keep(packet) and not self._send(packet):
            with self._lock:
                # Without a connection there is nobody who believes it open: a daemon forgets a peer that is gone.
                if self._connection is not None:
                    self._withdrawals.append(packet)

    def measurement(self, span: Span, timeout_s: float) -> Measurement | None:
        """What the daemon has measured of a span of this user's, once it has; ``None`` where it does not answer in
        time.

        It is asked on a connection of its own, and waits at most ``timeout_s`` seconds.
        """
        try:
            return request_measurement(self.socket_path or default_socket_path(), span, timeout_s)
        except InputError as error:
            self._warn("unanswered", f"the joules of a span are not known, {error}")
            return None

    def close(self) -> None:
        """Close connection and spool; the next message opens new ones."""
        with self._lock:
            self._disconnect()
            if self._spool is not None:
                self._spool.close()

    def _forget(self) -> None:
        """Start without connection or segment and with a free lock: at first, and in a forked child.

        The child's copy of the lock may be held by a thread that only the parent has, packets on its copy of the
        connection would come from two processes under one peer, and its copy of a segment would outlive its parent's.
        """
        # The collector may run under it, and close a generator that holds a span open, which then is withdrawn.
        self._lock = threading.RLock()
        self._withdrawals: deque[bytes] = deque(maxlen=MAX_WITHDRAWALS)
        self._next_attempt_s = self._next_spool_s = self._kept_s = 0.0
        self._disconnect()
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _encode(self, message: Message) -> bytes | None:
        try:
            return encode(message)
        except WireError as error:
            with self._lock:
                self.dropped += 1
            self._warn("invalid", f"a span is not recorded, {error}")
            return None

    def _keep(self, packet: bytes | None, *, spans: int = 0) -> bool:
        """Whether it, this many finished spans, is in the spool. After a failure it is tried again after a while."""
        if packet is None:
            return False
        with self._lock:
            if self._next_spool_s and time.monotonic() < self._next_spool_s:
                return False
            if self._spool is None or self._next_spool_s:
                directory = spool_directory(self.socket_path or default_socket_path())
                if self._spool is None or self._spool.directory != directory:
                    self._spool = SpoolWriter(directory)
            segments = self._spool.segments
            kept = self._spool.append(packet)
            now_s = time.monotonic()
            self._next_spool_s = 0.0 if kept else now_s + self.retry_after_s
            if kept:
                self.sent += 1
                self.spooled += spans
            if kept and (self._spool.segments > segments or now_s - self._kept_s > QUIET_S):
                self._knock()
            self._kept_s = now_s
            return kept

    def _knock(self) -> None:
        """Have the daemon look at the spool; where nobody is there to do so, say it."""
        if self._connection is None and self._connect():
            self._disconnect()
            # Somebody is there, and the very next message may find no room in the spool.
            self._next_attempt_s = 0.0

    def _send(self, packet: bytes | None) -> bool:
        """Whether the kernel took it; withdrawals that it would not take earlier go first."""
        if packet is None:
            return False
        with self._lock:
            while self._withdrawals and self._deliver(self._withdrawals[0]):
                # A daemon that was restarted has none of these spans open, and all are forgotten already.
                if self._withdrawals:
                    self._withdrawals.popleft()
            delivered = self._deliver(packet)
            self.sent += delivered
            self.dropped += not delivered
            return delivered

    def _deliver(self, packet: bytes) -> bool:
        """Try on the connection there is, and once more on a fresh one if the daemon was restarted meanwhile."""
        for _ in range(2):
            if self._connection is None and not (self._connect() and self._greet()):
                return False
            assert self._connection is not None
            try:
                self._connection.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self._warn("full", "the daemon does not keep up and spans are dropped; look at 'llmpower status'")
                return False
            except OSError:
                self._disconnect()
            else:
                return True
        return False

    def _connect(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._next_attempt_s:
            return False
        self._next_attempt_s = now_s + self.retry_after_s
        path = self.socket_path or default_socket_path()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            check_socket_path(path)
            connection.setblocking(False)
            connection.connect(os.fspath(path))
        except InputError as error:
            self._warn("unreachable", f"spans are not recorded, {error}")
        except OSError as error:
            directory = spool_directory(path)
            kept = os.access(directory, os.W_OK | os.X_OK)
            fate = f"spans wait in {directory} and will have no joules" if kept else "spans are not recorded"
            self._warn("unreachable", f"{fate}, {path}: {advice_on(error, path)}")
        else:
            self._connection = connection
            return True
        connection.close()
        return False

    def _greet(self) -> bool:
        """Say by which clock the spans are timed that will follow."""
        assert self._connection is not None
        try:
            self._connection.send(encode(read_clock()), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            self._disconnect()
            return False
        return True

    def _disconnect(self) -> None:
        self._withdrawals.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _logger.warning("llmpower: %s", text)


@cache
def default_client() -> SpanClient:
    """The process's own client, to wherever the default daemon is."""
    return SpanClient()


_clients: weakref.WeakSet[SpanClient] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._forget()


os.register_at_fork(after_in_child=_after_fork_in_child)
