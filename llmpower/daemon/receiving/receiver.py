"""The daemon's end of the spans' socket: many peers of many users, each bounded, none trusted.

Who a peer is, the kernel says (``SO_PEERCRED``), and its spans are that user's. A packet that is not a message is
counted by reason and changes nothing else. A peer's packets are read a few at a time and a user's up to an allowance a
step: a user who has used it up is read again at the next step, so a flood waits in its own socket buffers while the
others are served.

When a peer goes, whatever it had begun goes with it, as soon as the spool shows that it had not ended: a program that
dies in the middle of a call must not hold its joules open for ever.
"""

from __future__ import annotations

import selectors
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.inbox import Inbox, refuse
from llmpower.daemon.receiving.listening import listen
from llmpower.daemon.receiving.shifting import shift_ns, shifted
from llmpower.spans.clocks import read_clock
from llmpower.spans.packets import MAX_PACKET_BYTES, WireError
from llmpower.spans.replies import encode_measurement, encode_status
from llmpower.spans.wire import Begin, Cancel, MeasurementRequest, SenderClock, StatusRequest, decode
from llmpower.types import Measurement, Span

MAX_PEERS = 512
MAX_PEERS_OF_USER = 128
MAX_OPEN_SPANS = 4096
"""Of one peer. A server that batches thousands of requests still counts as one peer."""

PACKETS_A_STEP = 5000
"""Shared by the users who used up theirs in the step before."""

PACKETS_A_STEP_OF_USER = 2500
"""10,000 a second, which take some 40 ms of each step."""

ACCEPTS_A_STEP = 256
_PACKETS_A_TURN = 64
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Receiver:
    """Listens at ``path`` and tells ``inbox``; its sockets are served by ``selector``, whose data are callbacks.

    ``status`` gives the answer to a status request, as JSON without NaN; ``answers`` tells what came of a span, and
    ``clock`` is ours. The socket is for its owner and group (mode
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
        answers: Answers,
        clock: Callable[[], SenderClock] = read_clock,
    ) -> None:
        self._path = path
        self._selector = selector
        self._inbox = inbox
        self._status = status
        self._answers = answers
        self._clock = clock
        self._peers: set[_Peer] = set()
        self._users: dict[int, _User] = {}
        self._accepts = 0
        self.knocks = 0
        """Connections so far. A program that has long been silent makes one when it writes to the spool."""
        self._owners: dict[tuple[str, int | None], _Peer] = {}
        self._leaving: list[_Peer] = []
        self._gone: list[_Peer] = []
        self._listener = listen(path)
        self._inode = path.stat().st_ino
        self._accepting = False
        self.resume()

    def resume(self) -> None:
        """Begin a step: everybody has a new allowance, and who is gone since the last is up for :meth:`release`."""
        if not self._accepting:
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
            self._accepting = True
        self._gone, self._leaving = self._gone + self._leaving, []
        self._accepts = 0
        self._users = {uid: user for uid, user in self._users.items() if user.peers}
        busy = sum(user.allowance <= 0 for user in self._users.values())
        for user in self._users.values():
            user.allowance = min(PACKETS_A_STEP // max(busy, 1), PACKETS_A_STEP_OF_USER)
            paused, user.paused = user.paused, []
            for peer in paused:
                self._register(peer)

    def is_behind(self, uid: int) -> bool:
        """Whether more of this user's packets wait than were allowed in this step."""
        return uid in self._users and bool(self._users[uid].paused)

    def ended(self, span: Span) -> None:
        """A span has ended by another way than this socket."""
        if (peer := self._owners.pop((span.span_id, span.uid), None)) is not None:
            peer.open.discard(span.span_id)

    def release(self, is_read: Callable[[int], bool]) -> None:
        """Cancel what peers had open that went before this step, if all is read that their user has left."""
        for peer in self._gone:
            if is_read(peer.user.uid):
                for span_id in peer.open:
                    self._owners.pop((span_id, peer.user.uid), None)
                    self._inbox.cancel(span_id, peer.user.uid)
        self._gone = [peer for peer in self._gone if not is_read(peer.user.uid)]

    def close(self) -> None:
        """Let go of every peer, their open spans cancelled, and remove the socket's file; may be repeated."""
        if self._listener.fileno() < 0:
            return
        for peer in list(self._peers):
            self._drop(peer)
        self.resume()
        self.release(lambda _: True)
        self._selector.unregister(self._listener)
        self._listener.close()
        # A daemon started meanwhile may have put its own there.
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()

    def _accept(self) -> None:
        self._accepts += 1
        self.knocks += 1
        if self._accepts > ACCEPTS_A_STEP:
            self._rest()
            return
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError:
            # Out of descriptors: the peer stays in the queue, which would wake us without end.
            self._inbox.reject("no_descriptors")
            self._rest()
            return
        connection.setblocking(False)
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        user = self._users.setdefault(uid, _User(uid))
        if len(self._peers) >= MAX_PEERS or user.peers >= MAX_PEERS_OF_USER:
            self._inbox.reject("too_many_peers")
            connection.close()
            return
        peer = _Peer(connection, user)
        user.peers += 1
        self._peers.add(peer)
        self._register(peer)

    def _rest(self) -> None:
        """Accept nobody for the rest of the step."""
        self._selector.unregister(self._listener)
        self._accepting = False

    def _register(self, peer: _Peer) -> None:
        self._selector.register(peer.connection, selectors.EVENT_READ, lambda: self._serve(peer))

    def _serve(self, peer: _Peer) -> None:
        for _ in range(_PACKETS_A_TURN):
            if peer.user.allowance <= 0:
                self._selector.unregister(peer.connection)
                peer.user.paused.append(peer)
                return
            try:
                packet = peer.connection.recv(MAX_PACKET_BYTES + 1)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            peer.user.allowance -= 1
            # The end of the connection and an empty packet look the same; no message is empty.
            if not packet or not self._take(peer, packet):
                self._drop(peer)
            if peer not in self._peers:
                return

    def _take(self, peer: _Peer, packet: bytes) -> bool:
        """Act on one packet; false when the peer is to be dropped."""
        uid = peer.user.uid
        try:
            message = shifted(decode(packet, uid), peer.shift_ns)
        except WireError as error:
            refuse(self._inbox, uid, error)
            return True
        match message:
            case Begin(span_id, start_ns):
                if len(peer.open) >= MAX_OPEN_SPANS:
                    self._inbox.reject("too_many_open")
                elif self._inbox.begin(span_id, start_ns, uid):
                    peer.open.add(span_id)
                    self._owners[span_id, uid] = peer
            case Span():
                self.ended(message)
                self._inbox.finish(message)
            case Cancel(span_id):
                # Only its own: a peer must not be able to cancel another's.
                if span_id in peer.open:
                    peer.open.discard(span_id)
                    self._owners.pop((span_id, uid), None)
                    self._inbox.cancel(span_id, uid)
            case StatusRequest():
                return self._answer(peer, lambda: encode_status(self._status()))
            case MeasurementRequest(span_id, wait_ms):
                self._answers.ask(span_id, uid, wait_ms / 1e3, lambda found: self._tell(peer, found))
            case SenderClock():
                return self._set_clock(peer, message)
        return True

    def _set_clock(self, peer: _Peer, clock: SenderClock) -> bool:
        """Take a peer's times by its clock from here on; false when that cannot be done."""
        try:
            peer.shift_ns = shift_ns(clock, self._clock())
        except WireError as error:
            refuse(self._inbox, peer.user.uid, error)
            return False
        return True

    def _tell(self, peer: _Peer, measurement: Measurement | None) -> None:
        """Say what came of a span to whoever asked, if still there."""
        if peer in self._peers and not self._answer(peer, lambda: encode_measurement(measurement)):
            self._drop(peer)

    def _answer(self, peer: _Peer, encoded: Callable[[], bytes]) -> bool:
        try:
            peer.connection.send(encoded(), socket.MSG_NOSIGNAL)
        except OSError:
            # Gone, or asking without reading the answers.
            return False
        except WireError as error:
            # It would be ours to fix, and is no reason to stop measuring.
            self._inbox.fail(f"a request cannot be answered: {error.detail}")
            return False
        return True

    def _drop(self, peer: _Peer) -> None:
        if peer not in self._peers:
            return
        user = peer.user
        self._peers.discard(peer)
        if peer in user.paused:
            user.paused.remove(peer)
        else:
            self._selector.unregister(peer.connection)
        peer.connection.close()
        user.peers -= 1
        if peer.open:
            self._leaving.append(peer)


class _User:
    """Whose peers share an allowance."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.peers = 0
        self.allowance = PACKETS_A_STEP_OF_USER
        self.paused: list[_Peer] = []


class _Peer:
    def __init__(self, connection: socket.socket, user: _User) -> None:
        self.connection = connection
        self.user = user
        self.open: set[str] = set()
        self.shift_ns = 0
