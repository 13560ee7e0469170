"""Who is at the other end of a TCP connection of this machine, and whether it may send spans.

Loopback is open to every user, the daemon's socket is not. So that spans by HTTP need the same permission as spans by
the socket, the kernel is asked whose the connection's other end is: its table of TCP connections says so, as
``SO_PEERCRED`` does for Unix sockets. Listening on another address than loopback opens it to whoever reaches that.

https://docs.kernel.org/networking/proc_net_tcp.html
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from llmpower.serving import is_loopback

_PROC_NET = Path("/proc/net")
_MAPPED = "::ffff:"  # before an address of IPv4 that a socket of IPv6 has


class Sender(NamedTuple):
    """Who is at the other end: ``uid``, ``None`` where the kernel does not say; ``refusal``, ``None`` if he may send.

    The refusal says why he may not, with what fixes it.
    """

    uid: int | None
    refusal: str | None


class Senders:
    """Says who may send: those who may open the daemon's socket.

    Args:
        socket_path: the daemon's, whose owner and group are asked for at each connection.
        anyone: every user of this machine may send.
        uid_of: whose a connection's other end is, see :func:`peer_uid`.
    """

    def __init__(
        self,
        socket_path: Path,
        *,
        anyone: bool = False,
        uid_of: Callable[[socket.socket], int | None] | None = None,
    ) -> None:
        self._socket_path = socket_path
        self._anyone = anyone
        self._uid_of = uid_of or peer_uid

    def look_at(self, connection: socket.socket) -> Sender:
        """Who is at the other end of a connection."""
        if not is_loopback(connection.getsockname()[0]):
            return Sender(None, None)
        uid = self._uid_of(connection)
        return Sender(uid, None if self._anyone else self._refusal(uid))

    def _refusal(self, uid: int | None) -> str | None:
        if uid is None:
            return "the kernel does not say whose this connection is; keep it open until the answer is there"
        if uid in (0, os.geteuid()):
            return None
        try:
            group = self._socket_path.stat().st_gid
            # A user's own daemon has its socket where nobody else can reach it.
            closed = not self._socket_path.parent.stat().st_mode & 0o011
        except OSError:
            return "the daemon is stopping; send again later"
        if not closed and _is_member(uid, group):
            return None
        return f"user {_user_name(uid)} may not send spans to this daemon; {_advice(group, closed)}"


def peer_uid(connection: socket.socket, proc_net: Path = _PROC_NET) -> int | None:
    """The user at the other end of a connection within this machine; ``None`` where the kernel does not say.

    It does not once the other end was closed: what is left of it then belongs to nobody, and is shown as root's.
    """
    theirs, ours = connection.getpeername(), connection.getsockname()
    for name, wanted in _rows(theirs, ours):
        try:
            table = (proc_net / name).read_text("ascii")
        except OSError:
            continue
        # There may be thousands of rows, of which this is one: sl local_address rem_address st …
        at = table.find(wanted)
        if at >= 0:
            # … tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
            _, _, _, _, _, _, uid, _, inode, *_ = table[at : table.find("\n", at)].split()
            return int(uid) if inode != "0" else None
    return None


def _rows(theirs: tuple[str, int], ours: tuple[str, int]) -> Iterator[tuple[str, str]]:
    """Files of the table, and what stands in the row of the other end; either end of IPv4 may have an IPv6 socket."""
    ends = [(address[0].removeprefix(_MAPPED), address[1]) for address in (theirs, ours)]
    if all("." in host for host, _ in ends):
        yield "tcp", _row(socket.AF_INET, ends)
        ends = [(f"{_MAPPED}{host}", port) for host, port in ends]
    yield "tcp6", _row(socket.AF_INET6, ends)


def _row(family: int, ends: Sequence[tuple[str, int]]) -> str:
    return f" {' '.join(_shown(family, end) for end in ends)} "


def _shown(family: int, address: tuple[str, int]) -> str:
    """An address as the table shows it: words of 32 bits in the machine's order, then the port."""
    packed = socket.inet_pton(family, address[0].partition("%")[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return f"{''.join(f'{word:08X}' for word in words)}:{address[1]:04X}"


def _is_member(uid: int, gid: int) -> bool:
    try:
        user = pwd.getpwuid(uid)
        return user.pw_gid == gid or user.pw_name in grp.getgrgid(gid).gr_mem
    except KeyError:
        return False


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _advice(gid: int, closed: bool) -> str:
    if closed:
        return "it is another user's own"
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"add it to the group {group}, or set otlp.any-user"
