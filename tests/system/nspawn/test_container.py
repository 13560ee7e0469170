"""A program in a systemd-nspawn container with its own root, users and network, measured by a daemon outside it."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from daemon_process import Daemon
from guest import Guest

import llmpower
from llmpower.store import iter_rows

FIRST_UID = 1_000_000
"""What root in the container is outside."""

PACKAGES = [Path(module.__file__).parent for module in (llmpower, msgspec) if module.__file__]
PROGRAM = Path(__file__).parents[2] / "daemon" / "contained.py"


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Its directory lies in memory, as the service's does, and anyone may pass through to what they are let into."""
    with tempfile.TemporaryDirectory(prefix="llmpower-", dir="/dev/shm") as directory:
        Path(directory).chmod(0o711)
        daemon = Daemon(Path(directory), LLMPOWER_SIM_LOAD="constant:200")
        yield daemon
        assert daemon.end() == 0


@pytest.fixture
def root(image: Path, tmp_path: Path) -> Iterator[Path]:
    """A root file system with our client in it, for the Python that the image has."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if not (image / "usr/bin" / version).exists():
        pytest.skip(f"the image has no {version}, for which the packages here are built")
    guest = Guest(image, tmp_path)
    for package in PACKAGES:
        shutil.copytree(package, guest.root / "opt" / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROGRAM, guest.root / "opt")
    yield guest.root
    guest.unmount()


def let_in(path: Path, uid: int, may: int) -> None:
    """Do what ``setfacl -m u:UID:MAY`` does, which need not be installed."""
    user, group, other = path.stat().st_mode >> 6 & 7, path.stat().st_mode >> 3 & 7, path.stat().st_mode & 7
    nobody = 0xFFFFFFFF
    entries = [(1, user, nobody), (2, may, uid), (4, group, nobody), (16, group | may, nobody), (32, other, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", acl)


def contained(root: Path, daemon: Daemon, *, mount: str = "", user: str = "0:0", **options: str) -> dict[str, Any]:
    """What the program says of itself, as ``user`` of a container with the daemon's directory at /run/llmpower."""
    runtime = daemon.socket.parent
    clock = ["unshare", "--time", f"--monotonic={options['clock_s']}", "--fork"] if "clock_s" in options else []
    command = [*clock, "systemd-nspawn", "--quiet", f"--directory={root}", "--as-pid2", "--console=pipe"]
    command += ["--register=no", "--keep-unit", "--private-network", "--hostname=contained"]
    command += [f"--private-users={FIRST_UID}:65536", "--private-users-ownership=off"]
    command += [
        f"--bind={runtime}:/run/llmpower{mount}",
        "--setenv=PYTHONPATH=/opt",
        "--setenv=PYTHONDONTWRITEBYTECODE=1",
    ]
    uid, gid = user.split(":")
    command += ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    command += ["python3", "/opt/contained.py", "/run/llmpower/s.sock"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"said": done.stderr}


def assert_measured(daemon: Daemon, found: dict[str, Any], uid: int, began_s: float) -> None:
    """As a program outside would be, at 200 W, and under the uid that it has outside."""
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    columns = ("span_id", "started_at", "runtime_s", "gpu_energy_j", "quality", "uid", "hostname")
    (row,) = (dict(zip(columns, row, strict=True)) for row in iter_rows(daemon.store, columns=columns))
    assert (row["span_id"], row["uid"], row["hostname"]) == (found["span_id"], uid, "contained")
    assert row["quality"] == "interpolated"
    assert row["gpu_energy_j"] == pytest.approx(200 * row["runtime_s"], rel=0.1)
    assert began_s < datetime.fromisoformat(row["started_at"]).timestamp() < time.time()
    assert not daemon.status()["spans"]["rejected"]
    assert (found["interfaces"], found["hostname"], found["spooled"]) == (["lo"], "contained", 1)
    assert found["pid"] < 10
    assert "llmpower" not in found["said"]


@pytest.mark.parametrize("options", [{}, {"clock_s": "86400"}], ids=["same clock", "a day ahead"])
@pytest.mark.parametrize("uid", [0, 1000], ids=["root", "user"])
def test_users_that_are_mapped_and_let_in_by_name_are_measured_under_their_outer_uid(
    root: Path, daemon: Daemon, uid: int, options: dict[str, str]
) -> None:
    let_in(daemon.socket, FIRST_UID + uid, 6)
    let_in(daemon.socket.with_suffix(".spool"), FIRST_UID + uid, 7)
    began_s = time.time()
    found = contained(root, daemon, user=f"{uid}:{uid}", **options)
    assert found["uid"] == uid
    assert found["monotonic_s"] - time.monotonic() == pytest.approx(float(options.get("clock_s", 0)), abs=60)
    assert found["energy_j"] == pytest.approx(80, rel=0.5)
    assert_measured(daemon, found, FIRST_UID + uid, began_s)


def test_an_idmapped_mount_lets_the_group_in_and_shows_the_uid_inside(root: Path, daemon: Daemon) -> None:
    group = 4321
    for path in (daemon.socket, daemon.socket.with_suffix(".spool")):
        os.chown(path, -1, group)
    began_s = time.time()
    found = contained(root, daemon, mount=":idmap", user=f"1000:{group}")
    assert found["energy_j"] is None, "the socket shows another uid than the spool, and a span is told to its own"
    assert_measured(daemon, found, 1000, began_s)


def test_who_is_not_let_in_hears_why(root: Path, daemon: Daemon) -> None:
    found = contained(root, daemon, user="1000:1000")
    assert (found["energy_j"], found["spooled"]) == (None, 0)
    assert "this user may not open the daemon's socket" in found["said"]
