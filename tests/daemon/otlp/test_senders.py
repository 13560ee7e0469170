"""Whose a connection is, and whether they may send."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from llmpower.daemon.otlp.senders import Senders, peer_uid


def test_the_kernel_says_whose_a_connection_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        connection, _ = server.accept()
        with connection:
            assert peer_uid(connection) == os.getuid()
            peer.close()
            # What is left of the other end is shown as root's, and is nobody's.
            assert peer_uid(connection) is None


def test_a_connection_over_ipv6_has_an_owner_too() -> None:
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with server, socket.create_connection(server.getsockname()[:2]):
        connection, _ = server.accept()
        with connection:
            assert peer_uid(connection) == os.getuid()


def test_an_ipv4_connection_of_an_ipv6_socket_has_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as peer:
        try:
            peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            peer.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
        except OSError:
            pytest.skip("this machine has no IPv6")
        connection, _ = server.accept()
        with connection:
            assert peer_uid(connection) == os.getuid()


def test_an_ipv4_connection_to_an_ipv6_socket_is_of_this_machine(tmp_path: Path) -> None:
    try:
        server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except (OSError, ValueError):
        pytest.skip("this machine has no IPv6")
    with server, socket.create_connection(("127.0.0.1", server.getsockname()[1])):
        connection, _ = server.accept()
        with connection:
            assert peer_uid(connection) == os.getuid()
            assert Senders(tmp_path / "s.sock", anyone=True).look_at(connection) == (os.getuid(), None)


def test_who_may_send_is_who_may_open_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    path.touch(0o660)
    uid: int | None = None
    senders = Senders(path, uid_of=lambda _: uid)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for uid, allowed in ((None, False), (0, True), (os.geteuid(), True), (4_000_000, False)):
            sender = senders.look_at(server)
            assert (sender.uid, sender.refusal is None) == (uid, allowed)
        assert Senders(path, anyone=True, uid_of=lambda _: 4_000_000).look_at(server) == (4_000_000, None)
        path.unlink()
        uid = 4_000_000
        assert "stopping" in (senders.look_at(server).refusal or "")
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert senders.look_at(server) == (None, None), "who opens another address opens it to all who reach it"
