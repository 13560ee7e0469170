"""Real disks that a test may fill, freeze and take away: mounts of its own, for which it must be root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_FIFREEZE, _FITHAW = 0xC0045877, 0xC0045878


def _run(*command: object) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"there is no {command[0]} (Debian: apt-get install mount e2fsprogs)")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        pytest.skip(f"cannot {' '.join(map(str, command))}: {done.stderr.strip()}")


@contextlib.contextmanager
def mounted(directory: Path, *arguments: object) -> Iterator[Path]:
    """A file system at ``directory`` while the block lasts."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk to fill")
    directory.mkdir()
    _run("mount", *arguments, directory)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, timeout=60)


def remount(directory: Path, options: str) -> None:
    """Change how it is mounted, such as ``ro``."""
    _run("mount", "-o", f"remount,{options}", directory)


def fill(directory: Path) -> Path:
    """Leave no room at all; the file that takes it."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return ballast


@contextlib.contextmanager
def freezable(directory: Path, image: Path) -> Iterator[Path]:
    """A file system of 16 MB that :func:`frozen` can stop."""
    with image.open("wb") as file:
        file.truncate(16 << 20)
    _run("mkfs.ext4", "-q", image)
    with mounted(directory, "-o", "loop", image):
        yield directory


@contextlib.contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """Whoever writes there waits until the block ends, as on a disk that hangs."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.ioctl(descriptor, _FIFREEZE, 0)
        except OSError as error:
            pytest.skip(f"cannot freeze a file system: {error}")
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, _FITHAW, 0)
    finally:
        os.close(descriptor)


class Clocks:
    """A wall clock and a clock since boot that stand still until they are moved."""

    def __init__(self, utc_s: float = 1_767_225_600.0, uptime_s: float = 1000.0) -> None:
        self.utc_s = utc_s
        self.uptime_s = uptime_s

    def pass_time(self, seconds: float) -> None:
        """Both go on."""
        self.utc_s += seconds
        self.uptime_s += seconds
