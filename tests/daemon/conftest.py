"""Puts this folder's helper modules on the path, since tests are collected without packages; fixtures made of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daemon_process import Daemon
from disks import Clocks
from engine_bench import Bench
from keepers import Open
from receiver_station import Station as SocketStation
from spool_station import Station

from llmpower.daemon.storing.keeper import Keeper
from llmpower.daemon.storing.retention import Retention


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


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def keep(tmp_path: Path, clocks: Clocks) -> Iterator[Open]:
    """Opens keepers, by default of spans.db, and closes them at the end."""
    opened: list[Keeper] = []

    def keep(path: Path = tmp_path / "spans.db", retention: Retention = Retention()) -> Keeper:  # noqa: B008 # frozen
        keeper = Keeper(path, retention, utc_s=lambda: clocks.utc_s, uptime_s=lambda: clocks.uptime_s)
        opened.append(keeper)
        return keeper

    yield keep
    for keeper in opened:
        keeper.close()
