"""What the machine allows: a bare timer thread beside ours, and the processor time that a host takes for others."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from threads.samplers import RATE_HZ

BARE_US = 100_000


def start_bare(seconds: float) -> subprocess.Popen[str] | None:
    """A thread in C that waits for the same deadlines and does nothing; ``None`` without rt-tests."""
    if shutil.which("cyclictest") is None:
        return None
    command = ["cyclictest", "--threads=1", "--policy=other", f"--interval={1e6 / RATE_HZ:.0f}"]
    command += [f"--histogram={BARE_US}", "--quiet", f"--duration={seconds:.0f}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def end_bare(bare: subprocess.Popen[str] | None) -> dict[str, float | None]:
    """What it held, by its histogram of microseconds; what was later still it counts on a line of its own."""
    if bare is None:
        return {"bare_held_share": None, "bare_lateness_p99_s": None}
    lines = bare.communicate()[0].splitlines()
    counts = np.zeros(BARE_US + 1, np.int64)
    for line in lines:
        if line and not line.startswith("#"):
            late_us, count = line.split()
            counts[int(late_us)] = int(count)
    (counts[-1],) = (int(line.split(":")[1]) for line in lines if line.startswith("# Histogram Overflows"))
    below = np.cumsum(counts) / counts.sum()
    held_us = round(1e6 / RATE_HZ)
    return {"bare_held_share": float(below[held_us]), "bare_lateness_p99_s": float(np.argmax(below >= 0.99)) / 1e6}


def stolen_s() -> float:
    """Processor time since boot that the host gave to others, see proc_stat(5)."""
    return int(Path("/proc/stat").read_text("ascii").split()[8]) / os.sysconf("SC_CLK_TCK")
