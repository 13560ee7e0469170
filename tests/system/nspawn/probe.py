"""Runs in the guest, inside the unit's sandbox: tries what a service that was taken over would try.

Usage: probe.py RESULT

Writes a JSON object that says of each attempt ``ok`` or the name of the error.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path


def outcome(attempt: Callable[[], object]) -> str:
    """``ok``, or what the kernel said."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "ok"


def main(result: str) -> None:
    """See the module."""
    attempts: dict[str, Callable[[], object]] = {
        "write /usr": lambda: Path("/usr/planted").touch(),
        "write /etc": lambda: Path("/etc/planted").touch(),
        "write the store's directory": lambda: Path("/var/lib/llmpower/planted").mkdir(),
        "read /etc/shadow": lambda: Path("/etc/shadow").read_bytes(),
        "look into /home": lambda: next(Path("/home").iterdir()),
        "open the NVIDIA driver's device": lambda: os.open("/opt/devices/nvidia0", os.O_RDWR),
        "open the machine's memory": lambda: os.open("/opt/devices/mem", os.O_RDONLY),
        "open a raw socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "connect to another machine": lambda: socket.create_connection(("10.9.0.2", 9), timeout=2),
        "connect to itself": lambda: socket.create_connection(("127.0.0.1", 10450), timeout=10),
        "become root": lambda: os.setuid(0),
        "make a user namespace": _unshare,
        "change priority": lambda: os.nice(-1),
    }
    results = {name: outcome(attempt) for name, attempt in attempts.items()}
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    results |= {name: status[name].strip() for name in ("CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}
    Path(result).write_text(json.dumps(results), "utf-8")


def _unshare() -> None:
    # Python has os.unshare from 3.12 on; the number is CLONE_NEWUSER.
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")


if __name__ == "__main__":
    main(sys.argv[1])
