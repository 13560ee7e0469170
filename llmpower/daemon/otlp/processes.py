"""Processes of this machine, as ``/proc`` shows them to the daemon: which one is meant by a number, and whose it is.

A process in a container knows itself by another number than the machine does, and two processes may call themselves
alike: the first one of every container is 1, as is the machine's own. ``NSpid`` in ``/proc/PID/status`` has both
numbers. What this daemon may not see (``hidepid=``, ``ProtectProc=``) is not there for it.

https://docs.kernel.org/filesystems/proc.html and pid_namespaces(7)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_INIT, _KTHREADD = 1, 2
_INITIAL_PID_NAMESPACE = 0xEFFFFFFC
"""The inode of the machine's own, a constant of the kernel (PROC_PID_INIT_INO)."""

_MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Process:
    """One process.

    ``pid``, ``parent`` and ``uid`` are the machine's numbers, ``own_pid`` is what it calls itself; ``started_ns`` is of
    CLOCK_BOOTTIME, to a hundredth of a second.
    """

    pid: int
    own_pid: int
    parent: int
    uid: int
    started_ns: int


def read_process(pid: int, proc: Path = PROC) -> Process | None:
    """The process with this number; ``None`` where there is none, or none that is shown."""
    try:
        status = (proc / str(pid) / "status").read_text("utf-8", "replace")
        # The name, which may hold anything, stands in brackets: of what follows, starttime is the 20th.
        started = int((proc / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return Process(
            pid=pid,
            own_pid=int(fields.get("NSpid", str(pid)).split()[-1]),
            parent=int(fields["PPid"]),
            uid=int(fields["Uid"].split()[0]),
            started_ns=started * 1_000_000_000 // os.sysconf("SC_CLK_TCK"),
        )
    except (OSError, ValueError, LookupError):
        return None


def processes_called(own_pid: int, uid: int, proc: Path = PROC) -> list[Process]:
    """All that call themselves by this number and belong to this user.

    The machine's first process and the threads of its kernel are left out: they serve nobody.
    """
    return [
        process
        for pid in _pids(proc)
        if (process := read_process(pid, proc)) is not None
        and (process.own_pid, process.uid) == (own_pid, uid)
        and process.pid != _INIT
        and _KTHREADD not in (process.pid, process.parent)
    ]


def is_within(pid: int, ancestor: int, proc: Path = PROC) -> bool:
    """Whether a process is another one, or was started by it, or by one that it has started, and so on."""
    for _ in range(_MAX_DEPTH):
        if pid == ancestor:
            return True
        process = read_process(pid, proc)
        if process is None or process.parent == 0:
            return False
        pid = process.parent
    return False


def counts_as_the_machine(proc: Path = PROC) -> bool:
    """Whether this process sees the machine's own numbers, and not those of a container that it runs in."""
    try:
        return (proc / "self/ns/pid").stat().st_ino == _INITIAL_PID_NAMESPACE
    except OSError:
        return False


def _pids(proc: Path) -> Iterator[int]:
    try:
        for entry in os.scandir(proc):
            if entry.name.isascii() and entry.name.isdigit():
                yield int(entry.name)
    except OSError:
        return
