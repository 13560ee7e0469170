"""This process's clock, as it is described to whoever reads its spans.

Spans are timed by CLOCK_MONOTONIC, which starts over with each boot, and which a time namespace
(``time_namespaces(7)``) shifts for the processes in it. So the clock is named beside the times: which boot, how far it
is from UTC, and by how much the kernel says that the namespace shifts it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from llmpower.spans.wire import SenderClock

_ATTEMPTS = 3


class Offset(NamedTuple):
    """UTC less CLOCK_MONOTONIC, and by how much it may be off."""

    ns: int
    error_ns: int


@cache
def boot_id() -> str:
    """Names this boot of the machine, for clocks that begin with it; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def read_utc_offset_ns(
    monotonic_ns: Callable[[], int] = time.monotonic_ns, wall_ns: Callable[[], int] = time.time_ns
) -> int:
    """UTC less CLOCK_MONOTONIC, see :func:`read_utc_offset`."""
    return read_utc_offset(monotonic_ns, wall_ns).ns


def read_utc_offset(
    monotonic_ns: Callable[[], int] = time.monotonic_ns, wall_ns: Callable[[], int] = time.time_ns
) -> Offset:
    """UTC less CLOCK_MONOTONIC, by the closest of a few readings: between two calls the process may have to wait.

    The wall clock was read at some moment between two readings of the other, and is taken to have been so in their
    middle: half of the time between them is what that can be off.
    """
    readings = []
    for _ in range(_ATTEMPTS):
        before_ns = monotonic_ns()
        now_ns = wall_ns()
        after_ns = monotonic_ns()
        readings.append((after_ns - before_ns, now_ns - (before_ns + after_ns) // 2))
    width_ns, offset_ns = min(readings)
    return Offset(offset_ns, (width_ns + 1) // 2)


def read_namespace_offset_ns(process: Path = Path("/proc/self")) -> int | None:
    """By how much this process's time namespace shifts CLOCK_MONOTONIC; 0 in the machine's own, ``None`` if not told.

    ``timens_offsets`` is of the namespace that children are born into, which is another than the process's own where
    it has called ``unshare(2)`` itself.
    """
    try:
        if (process / "ns/time").readlink() != (process / "ns/time_for_children").readlink():
            return None
        for line in (process / "timens_offsets").read_text("ascii").splitlines():
            name, seconds, nanoseconds = line.split()
            if name == "monotonic":
                return int(seconds) * 1_000_000_000 + int(nanoseconds)
    except FileNotFoundError:
        # A kernel that knows no time namespaces has but one, and a container without /proc says nothing.
        return 0 if (process / "stat").exists() and not (process / "ns/time").is_symlink() else None
    except (OSError, ValueError):
        pass
    return None


def read_clock() -> SenderClock:
    """The clock of this process, now."""
    return SenderClock(boot_id(), read_utc_offset_ns(), read_namespace_offset_ns())
