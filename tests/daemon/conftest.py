"""Puts this folder's helper modules on the path, since tests are collected without packages; fixtures made of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon_process import Daemon
from engine_bench import Bench
from receiver_station import Station as SocketStation
from spool_station import Station


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, and leaves none behind."""
    started: list[Daemon] = []

    def start(*options: str, **environ: str) -> Daemon:
        started.append(Daemon(tmp_path, *options, **environ))
        return started[-1]

    yield start
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    return start()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s.spool")
    yield station
    for writer in station.writers:
        writer.close()
    station.spool.close()


@pytest.fixture
def socket_station(tmp_path: Path) -> Iterator[SocketStation]:
    station = SocketStation(tmp_path / "s.sock")
    yield station
    station.close()
