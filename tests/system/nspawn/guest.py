"""A Debian that boots its own systemd beside this one: systemd-nspawn over a cached base image.

The base image is debootstrap's and is never written to: a guest is an overlay on it, so a second guest costs a mount.
Nothing of the guest is known to this machine's systemd (``--register=no``), and its network is its own loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

SUITE = "bookworm"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "curl", "udev", "iproute2")
BOOT_S = 120.0


def base_image(cache: Path) -> Path:
    """The base image's folder, made by debootstrap where the cache has none of these packages yet."""
    image = cache / f"{SUITE}-{'-'.join(sorted(PACKAGES))}"
    if not image.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        making = image.with_suffix(f".{os.getpid()}")
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(making)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        making.rename(image)
    return image


class Guest:
    """A booted system; ``directory`` holds what it writes.

    Example:
        with booted(image, tmp_path) as guest:
            guest.run("systemctl", "start", "llmpower")
    """

    def __init__(self, image: Path, directory: Path) -> None:
        self.root = directory / "root"
        self.console = directory / "console.log"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0
        upper, work = directory / "upper", directory / "work"
        for folder in (self.root, upper, work):
            folder.mkdir()
        layers = f"lowerdir={image},upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)], check=True)

    def boot(self) -> None:
        """Start it and wait until its systemd has nothing left to start."""
        command = ["systemd-nspawn", "--quiet", "--boot", f"--directory={self.root}", "--machine=llmpower-test"]
        command += ["--register=no", "--keep-unit", "--private-network", "--console=pipe", "--link-journal=no"]
        # Address filters and device rules are BPF programs, on the one hierarchy of control groups that has them.
        command += ["--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", "--system-call-filter=bpf"]
        environ = os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with self.console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                command, env=environ, stdin=subprocess.DEVNULL, stdout=console, stderr=console
            )
        self._leader = int(wait_for(self._children, "no leader", BOOT_S))
        wait_for(lambda: self.state() in ("running", "degraded"), "it did not boot", BOOT_S)

    def power_off(self) -> None:
        """Shut it down in order; also the first half of a reboot, for what nspawn calls one is the same two steps."""
        if self._nspawn is None:
            return
        self.run("systemctl", "poweroff", check=False)
        try:
            self._nspawn.wait(60)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None

    def unmount(self) -> None:
        """Let go of its files."""
        subprocess.run(["umount", str(self.root)], check=True)

    def state(self) -> str:
        """What its systemd says of the whole system, such as ``running``."""
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()

    def command(self, *words: str) -> list[str]:
        """The command that runs ``words`` in the guest, for subprocess."""
        return ["nsenter", "--target", str(self._leader), "--all", "--", "env", "-i", f"PATH={_PATH}", *words]

    def run(self, *words: str, check: bool = True, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root and wait; a failure shows what the command said."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, timeout=timeout_s)
        assert not check or done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def unit(self, name: str, prop: str) -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={prop}", name).stdout.strip()

    def journal(self, unit: str) -> str:
        """What a unit has said since the first boot."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}").stdout

    def copy_in(self, file: Path, to: str) -> None:
        """Copy a file of this machine into it."""
        shutil.copy(file, self.root / to.lstrip("/"))

    def _children(self) -> str:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, self.console.read_text("utf-8", "replace")
        tasks = Path(f"/proc/{self._nspawn.pid}/task").glob("*/children")
        return " ".join(task.read_text("ascii") for task in tasks).strip()


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def booted(image: Path, directory: Path, files: Sequence[tuple[Path, str]] = ()) -> Iterator[Guest]:
    """A guest with some files of this machine in it, booted, and gone afterwards."""
    guest = Guest(image, directory)
    try:
        for file, to in files:
            guest.copy_in(file, to)
        guest.boot()
        yield guest
    finally:
        guest.power_off()
        guest.unmount()


def wait_for(ask: Callable[[], Any], in_vain: str, timeout_s: float = 60.0) -> Any:
    """The first answer that is true."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline_s, in_vain
        time.sleep(0.1)
    return answer
