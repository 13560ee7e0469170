"""A program in a container of its own, made of the kernel's namespaces, is measured like any other.

PID, mount, user, network and time namespaces come from ``unshare(1)``; where the kernel lets nobody make them these
tests skip and say so. A container with a root file system, whose users are mapped to others, is in ``tests/system``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from daemon_process import Daemon

from llmpower.store import iter_rows

pytestmark = pytest.mark.usefixtures("namespaces")

NAMESPACES = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--net", "--mount-proc")

PROGRAM = Path(__file__).with_name("contained.py")


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Whether this kernel lets this user make them."""
    command = [*NAMESPACES, "--time", "--monotonic=1", "true"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("unshare(1) of util-linux is not installed")
    if done.returncode:
        pytest.skip(f"this kernel lets this user make no namespaces: {done.stderr.strip()}")


def contained(socket: Path, *options: str, script: str = 'exec "$@"') -> dict[str, Any]:
    """What the program says of itself; ``script`` runs in the container first, with the program's command line."""
    command = [*NAMESPACES, *options, "sh", "-ec", script, "sh", sys.executable, str(PROGRAM), str(socket)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def stored(daemon: Daemon, span_id: str) -> dict[str, Any]:
    """The span's row."""
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    columns = ("span_id", "started_at", "runtime_s", "gpu_energy_j", "quality", "uid", "hostname")
    (row,) = (dict(zip(columns, row, strict=True)) for row in iter_rows(daemon.store, columns=columns))
    assert row["span_id"] == span_id
    return row


def assert_measured(daemon: Daemon, found: dict[str, Any], began_s: float) -> None:
    """As a program outside would be, at 200 W."""
    row = stored(daemon, found["span_id"])
    assert row["quality"] == "interpolated"
    assert row["gpu_energy_j"] == pytest.approx(200 * row["runtime_s"], rel=0.1)
    # To the program itself too.
    assert found["energy_j"] == row["gpu_energy_j"]
    assert row["uid"] == os.getuid()
    assert row["hostname"] == found["hostname"]
    started_s = datetime.fromisoformat(row["started_at"]).timestamp()
    assert began_s < started_s < time.time()
    assert not daemon.status()["spans"]["rejected"]


@pytest.fixture
def daemon(start: Any) -> Daemon:
    found: Daemon = start(LLMPOWER_SIM_LOAD="constant:200")
    return found


@pytest.mark.parametrize("offset_s", [None, 86_400, -5], ids=["same clock", "a day ahead", "5 s behind"])
@pytest.mark.parametrize("way", ["spool", "socket"])
def test_a_contained_program_is_measured_by_either_way(
    daemon: Daemon, tmp_path: Path, offset_s: int | None, way: str
) -> None:
    socket = daemon.socket
    if way == "socket":
        # There is no spool beside this name.
        socket = tmp_path / "elsewhere.sock"
        socket.symlink_to(daemon.socket)
    clock = () if offset_s is None else ("--time", f"--monotonic={offset_s}", f"--boottime={offset_s}")
    began_s = time.time()
    found = contained(socket, *clock)
    assert found["monotonic_s"] - time.monotonic() == pytest.approx(offset_s or 0, abs=4)
    assert found["pid"] < 10, "its own view: with its hostname it names the process to whoever looks into the container"
    assert found["interfaces"] == ["lo"]
    assert found["spooled"] == (way == "spool")
    assert_measured(daemon, found, began_s)


def test_a_directory_that_is_mounted_elsewhere_is_the_same(daemon: Daemon, tmp_path: Path) -> None:
    runtime = tmp_path / "mounted"
    runtime.mkdir()
    began_s = time.time()
    found = contained(runtime / "s.sock", script=f'mount --bind "{daemon.socket.parent}" "{runtime}"; exec "$@"')
    assert found["spooled"] == 1
    assert_measured(daemon, found, began_s)


def test_a_container_without_proc_is_placed_by_the_time_of_day(daemon: Daemon) -> None:
    began_s = time.time()
    hidden = 'mount -t tmpfs none /proc; exec "$@"'
    found = contained(daemon.socket, "--time", "--monotonic=5000", script=hidden)
    assert_measured(daemon, found, began_s)
