"""The daemon's end of the spans' socket: many peers, each bounded, none trusted.

A peer's packets are read a few at a time, so one that floods waits in its own socket buffer while the others are
served. A packet that is no message is counted by reason and changes nothing else. When a peer goes, whatever it had
begun goes with it: a program that dies in the middle of a call must not hold its joules open for ever.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from llmpower.exceptions import InputError
from llmpower.spans.client import check_socket_path
from llmpower.spans.wire import MAX_PACKET_BYTES, Begin, Cancel, StatusRequest, WireError, decode, encode_status
from llmpower.types import Span

OPTION = "--socket"
MAX_PEERS = 256
MAX_OPEN_SPANS = 4096
"""Of one peer. A server that batches thousands of requests still counts as one peer."""

_PACKETS_A_TURN = 64


class Inbox(Protocol):
    """Who gets what the peers say."""

    def begin(self, span_id: str, start_ns: int) -> bool:
        """A span has started; false when it was not opened."""

    def finish(self, span: Span) -> None:
        """It has ended."""

    def cancel(self, span_id: str) -> None:
        """It failed, or whoever ran it is gone."""

    def reject(self, reason: str) -> None:
        """Something was refused, for a reason from a small fixed set."""


class Receiver:
    """Listens at ``path`` and tells ``inbox``; its sockets are served by ``selector``, whose data are callbacks.

    ``status`` gives the answer to a status request, as JSON without NaN. The socket is for its owner and group (mode
    0660). The file of a daemon that died is replaced.

    Raises:
        InputError: another daemon answers there, something else lies there, or nothing can be created there.
    """

    def __init__(
        self,
        path: Path,
        selector: selectors.BaseSelector,
        inbox: Inbox,
        status: Callable[[], Mapping[str, object]],
    ) -> None:
        check_socket_path(path)
        self._path = path
        self._selector = selector
        self._inbox = inbox
        self._status = status
        self._peers: set[_Peer] = set()
        self._listener = _listen(path)
        self._inode = path.stat().st_ino
        self._accepting = False
        self.resume()

    def resume(self) -> None:
        """Accept again after the process had run out of descriptors; call it now and then."""
        if not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accepting = True

    def close(self) -> None:
        """Let go of every peer, their open spans cancelled, and remove the socket's file; may be repeated."""
        if self._listener.fileno() < 0:
            return
        for peer in list(self._peers):
            self._drop(peer)
        if self._accepting:
            self._selector.unregister(self._listener)
            self._accepting = False
        self._listener.close()
        # A daemon started meanwhile may have put its own there.
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors: the peer stays in the queue, which would wake us without end.
            self._inbox.reject("no_descriptors")
            self._selector.unregister(self._listener)
            self._accepting = False
            return
        if len(self._peers) >= MAX_PEERS:
            self._inbox.reject("too_many_peers")
            connection.close()
            return
        connection.setblocking(False)
        peer = _Peer(connection)
        self._peers.add(peer)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(peer))

    def _serve(self, peer: _Peer) -> None:
        for _ in range(_PACKETS_A_TURN):
            try:
                packet = peer.connection.recv(MAX_PACKET_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            # The end of the connection and an empty packet look the same; no message is empty.
            if not packet or not self._take(peer, packet):
                self._drop(peer)
                return

    def _take(self, peer: _Peer, packet: bytes) -> bool:
        """Act on one packet; false when the peer is to be dropped."""
        try:
            message = decode(packet)
        except WireError as error:
            self._inbox.reject(error.reason)
            return True
        match message:
            case Begin(span_id, start_ns):
                if len(peer.open) >= MAX_OPEN_SPANS:
                    self._inbox.reject("too_many_open")
                elif self._inbox.begin(span_id, start_ns):
                    peer.open.add(span_id)
            case Span():
                peer.open.discard(message.span_id)
                self._inbox.finish(message)
            case Cancel(span_id):
                # Only its own: a peer must not be able to cancel another's.
                if span_id in peer.open:
                    peer.open.discard(span_id)
                    self._inbox.cancel(span_id)
            case StatusRequest():
                return self._answer(peer)
        return True

    def _answer(self, peer: _Peer) -> bool:
        try:
            peer.connection.send(encode_status(self._status()), socket.MSG_NOSIGNAL)
        except OSError:
            # Gone, or asking without reading the answers.
            return False
        return True

    def _drop(self, peer: _Peer) -> None:
        self._peers.discard(peer)
        self._selector.unregister(peer.connection)
        peer.connection.close()
        for span_id in peer.open:
            self._inbox.cancel(span_id)


class _Peer:
    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.open: set[str] = set()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        listener.bind(os.fspath(path))
        # Before listen(2), so that nobody connects whom the mode would keep out.
        path.chmod(0o660)
        listener.listen(64)
    except OSError as error:
        listener.close()
        advice = f"no socket can be made there ({error.strerror}); give a path in a directory that you may write to"
        raise InputError(OPTION, path, advice) from error
    except InputError:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is no more.

    Raises:
        InputError: a daemon lives there, or it is no socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InputError(OPTION, path, "this is a file of another kind; move it away, or give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
    if not refused:
        raise InputError(OPTION, path, "another daemon answers there; stop it, or give another path")
    path.unlink()
