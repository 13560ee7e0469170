"""Before and after the trials: what the devices draw with nothing to do, and whether they have warmed up.

A card that has just begun to work is cold: it leaks less, its clocks are higher, and the first minutes of trials cost
less than the same ones an hour later. So the campaign works unmeasured until power stays the same, and looks at idle
power on both sides: if the second differs much from the first, the conditions have changed in between, or somebody
else was there.

Power here is the mean of the daemon's own readings, a few a second, of all GPUs together. No trial's joules come from
it; they come from the counters.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STEADY = 0.02
"""Relative difference of power between one window and the next below which the devices have settled."""

WINDOW_S = 3.0
CALM_S = 1.5
"""What idle power waits for: readings may be a second's average, and a daemon that rests looks as often."""

PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Settled:
    """How warming up went: seconds it took, watts in the last window, and whether they had become steady."""

    seconds: float
    power_w: float | None
    is_steady: bool


class Meter:
    """Mean power while something is done.

    Args:
        status: asks the daemon.
        period_s: between two readings.
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]], period_s: float = PERIOD_S) -> None:
        self._status = status
        self._period_s = period_s

    def power_w(self, during: Callable[[], object]) -> float | None:
        """Run ``during``; ``None`` where a GPU's power is not known, or there is none.

        Raises:
            InputError: the daemon does not answer.
        """
        readings_w: list[float | None] = []
        failed: list[Exception] = []
        done = threading.Event()

        def read() -> None:
            try:
                while not done.is_set():
                    readings_w.append(_power_w(self._status()))
                    done.wait(self._period_s)
            except Exception as error:  # it is whoever waits for us that it concerns
                failed.append(error)

        thread = threading.Thread(target=read, name="llmpower-power", daemon=True)
        thread.start()
        try:
            during()
        finally:
            done.set()
            thread.join()
        if failed:
            raise failed[0]
        known_w = [power_w for power_w in readings_w if power_w is not None]
        return statistics.fmean(known_w) if known_w and len(known_w) == len(readings_w) else None


def idle_power_w(meter: Meter, seconds: float) -> float | None:
    """Mean power of all GPUs over so many seconds of doing nothing; ``None`` for none."""
    if seconds <= 0:
        return None
    time.sleep(CALM_S)
    return meter.power_w(lambda: time.sleep(seconds))


def warm(meter: Meter, work: Callable[[], object], most_s: float, window_s: float = WINDOW_S) -> Iterator[Settled]:
    """Repeat ``work`` until two windows draw the same, or for ``most_s`` seconds; one record a window.

    Where power is not known, it works for as long as it may.
    """
    started_s = time.monotonic()
    before_w: float | None = None

    def window() -> None:
        until_s = time.monotonic() + window_s
        while time.monotonic() < until_s:
            work()

    while time.monotonic() - started_s < most_s:
        power_w = meter.power_w(window)
        is_steady = power_w is not None and before_w is not None and abs(power_w / before_w - 1) <= STEADY
        yield Settled(time.monotonic() - started_s, power_w, is_steady)
        if is_steady:
            return
        before_w = power_w


def _power_w(status: Mapping[str, Any]) -> float | None:
    found = [device["power_w"] for device in status.get("devices", ()) if device["kind"] == "gpu"]
    return None if not found or None in found else float(sum(found))
