from __future__ import annotations

import os
import selectors
import socket
import stat
from pathlib import Path

import pytest
from receiver_station import Book, Station, status

from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.receiver import Receiver
from llmpower.exceptions import InputError


def test_the_socket_is_for_owner_and_group(socket_station: Station) -> None:
    assert stat.S_IMODE(socket_station.path.stat().st_mode) == 0o660


def test_a_live_daemon_is_not_displaced(socket_station: Station) -> None:
    with pytest.raises(InputError, match="another daemon answers there"):
        Receiver(socket_station.path, selectors.DefaultSelector(), Book(), status, Answers())
    socket_station.connect().close()


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(os.fspath(path))
        dead.listen()
    assert path.exists()
    socket_station = Station(path)
    socket_station.connect().close()
    socket_station.close()
    assert not path.exists()


def test_closing_leaves_a_successors_socket_alone(tmp_path: Path) -> None:
    first = Station(tmp_path / "s.sock")
    first.path.unlink()
    second = Station(first.path)
    first.close()
    second.connect().close()
    second.close()


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(InputError, match="file of another kind"):
        Receiver(path, selectors.DefaultSelector(), Book(), status, Answers())
    assert path.read_text() == "data"


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    selector = selectors.DefaultSelector()
    with pytest.raises(InputError, match="at most 107 bytes"):
        Receiver(tmp_path / ("x" * 108), selector, Book(), status, Answers())
    with pytest.raises(InputError, match=r"no socket can be made there \(No such file or directory\)"):
        Receiver(tmp_path / "none" / "s", selector, Book(), status, Answers())
