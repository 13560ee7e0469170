"""What a process costs, from /proc: processor time and resident memory, children and threads included."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Processor time so far, of the process and the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) * _TICK_S


def resident_bytes(pid: int) -> int:
    """Memory it holds now."""
    for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True)
class Cost:
    """Over some time: share of one processor, and memory at its end and at most."""

    cpu_share: float
    rss_bytes: int
    rss_max_bytes: int


class Watch:
    """Measures from construction until :meth:`stop`; :meth:`look` now and then, for the most memory."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu_s, self._start_s = cpu_s(pid), time.monotonic()
        self.rss_bytes = [resident_bytes(pid)]

    def look(self) -> None:
        """Take note of the memory now."""
        self.rss_bytes.append(resident_bytes(self._pid))

    def stop(self) -> Cost:
        """What it was."""
        self.look()
        share = (cpu_s(self._pid) - self._cpu_s) / (time.monotonic() - self._start_s)
        return Cost(share, self.rss_bytes[-1], max(self.rss_bytes))
