"""Before and after the trials: what the devices draw with nothing to do, and whether they have warmed up.

A card that has just begun to work is cold: it leaks less, its clocks are higher, and the first minutes of trials cost
less than the same ones an hour later. So the campaign works unmeasured until power stays the same, and temperature too
where a card tells it, and looks at idle power on both sides: if the second differs much from the first, the conditions
have changed in between, or somebody else was there.

Power alone may look steady long before the card is: what leaks more is a few percent of it, and hides in the work's own
ups and downs. Temperature moves by tens of degrees and in one direction, but in whole ones, so it takes a longer look:
a card that approaches its end by e^(−t/τ) and moved by one degree in 15 s is, with a τ of 20 s to a minute, one to four
degrees from it.

Power here is the mean of the daemon's own readings, a few a second, of all GPUs together. No trial's joules come from
it; they come from the counters.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

STEADY = 0.02
"""Relative difference of power between one window and the next below which the devices have settled."""

STEADY_C = 1.0
"""Drift of a card's temperature over the last ``DRIFT_S``, highest less lowest, up to which it has settled."""

DRIFT_S = 15.0

WINDOW_S = 3.0
CALM_S = 1.5
"""What idle power waits for: readings may be a second's average, and a daemon that rests looks as often."""

PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Settled:
    """How warming up went: seconds it took, watts in the last window, and whether all had become steady.

    ``temperature_c`` is that of the warmest card at the end, ``drift_c`` the most that one has moved in the last
    ``DRIFT_S``; ``None`` where no card tells its own, or not yet for so long.
    """

    seconds: float
    power_w: float | None
    is_steady: bool
    temperature_c: float | None = None
    drift_c: float | None = None


class Meter:
    """Mean power while something is done. ``temperatures_c`` is how warm each card was at its end, by UUID.

    Args:
        status: asks the daemon.
        period_s: between two readings.
    """

    temperatures_c: Mapping[str, float]

    def __init__(self, status: Callable[[], Mapping[str, Any]], period_s: float = PERIOD_S) -> None:
        self._status = status
        self._period_s = period_s
        self.temperatures_c = {}

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
                    status = self._status()
                    readings_w.append(_power_w(status))
                    self.temperatures_c = _temperatures_c(status)
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
    """Mean power of all GPUs over this many seconds of doing nothing; ``None`` for none."""
    if seconds <= 0:
        return None
    time.sleep(CALM_S)
    return meter.power_w(lambda: time.sleep(seconds))


def warm(
    meter: Meter, work: Callable[[], object], most_s: float, window_s: float = WINDOW_S, drift_s: float = DRIFT_S
) -> Iterator[Settled]:
    """Repeat ``work`` until two windows draw the same and no card grows warmer, or for ``most_s``; one record a window.

    What is not known is not waited for; where neither is, it works for as long as it may.
    """
    started_s = time.monotonic()
    before_w: float | None = None
    warmths = _Warmths(drift_s)

    def window() -> None:
        until_s = time.monotonic() + window_s
        while time.monotonic() < until_s:
            work()

    while time.monotonic() - started_s < most_s:
        power_w = meter.power_w(window)
        seconds = time.monotonic() - started_s
        warmths.saw(seconds, meter.temperatures_c)
        steady = []
        if power_w is not None:
            steady.append(before_w is not None and abs(power_w / before_w - 1) <= STEADY)
        if warmths.hottest_c is not None:
            steady.append(warmths.drift_c is not None and warmths.drift_c <= STEADY_C)
        is_steady = bool(steady) and all(steady)
        yield Settled(seconds, power_w, is_steady, warmths.hottest_c, warmths.drift_c)
        if is_steady:
            return
        before_w = power_w


class _Warmths:
    """How warm cards have been, for as long as drift is looked for.

    Args:
        drift_s: how long that is.
    """

    def __init__(self, drift_s: float) -> None:
        self._drift_s = drift_s
        self._seen: deque[tuple[float, Mapping[str, float]]] = deque()

    def saw(self, seconds: float, temperatures_c: Mapping[str, float]) -> None:
        """Temperatures of a moment by UUID."""
        self._seen.append((seconds, temperatures_c))
        # The oldest that is kept is the last that is old enough.
        while len(self._seen) > 1 and seconds - self._seen[1][0] >= self._drift_s:
            self._seen.popleft()

    @property
    def hottest_c(self) -> float | None:
        """The warmest card now; ``None`` where none tells."""
        return max(self._seen[-1][1].values(), default=None)

    @property
    def drift_c(self) -> float | None:
        """The most that a card has moved; ``None`` where none has told its temperature for long enough."""
        if self._seen[-1][0] - self._seen[0][0] < self._drift_s:
            return None
        moved_c = []
        for uuid in self._seen[-1][1]:
            told_c = [temperatures_c.get(uuid) for _, temperatures_c in self._seen]
            known_c = [each for each in told_c if each is not None]
            if len(known_c) < len(told_c):
                return None
            moved_c.append(max(known_c) - min(known_c))
        return max(moved_c, default=None)


def _power_w(status: Mapping[str, Any]) -> float | None:
    found = [device["power_w"] for device in status.get("devices", ()) if device["kind"] == "gpu"]
    return None if not found or None in found else float(sum(found))


def _temperatures_c(status: Mapping[str, Any]) -> dict[str, float]:
    """Of the GPUs that tell theirs; a daemon that was not restarted after an upgrade knows none."""
    found = ((device.get("uuid"), device.get("temperature_c")) for device in status.get("devices", ()))
    return {uuid: temperature_c for uuid, temperature_c in found if temperature_c is not None}
