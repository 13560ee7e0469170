"""How an energy counter distorts time: its lag, its jitter, and which moment of a call it shows."""

from __future__ import annotations

from typing import NamedTuple

from llmpower.types import Device


class Habits(NamedTuple):
    """How late a counter shows a step of power, and how far it deviates from that, as a standard deviation.

    ``latch_s`` is how long after a call began the value that it returns can have come; ``None`` where it can have come
    until the call's end.
    """

    lag_s: float
    timing_s: float
    latch_s: float | None


EXACT = Habits(0.0, 0.0, None)
"""The simulated card's, and RAPL's as far as anybody knows."""

H100 = Habits(0.0065, 0.002, 0.001)
"""Measured on an H100 80GB HBM3, driver 580.159.04 (docs/h100.md), and assumed for other NVIDIA cards until somebody
measures one: equal bursts of 5 ms counted 0.9 or 1.4 times, by where in the counter's 100 ms they lay, and joules of
bursts from 5 to 80 ms deviated least, and came to the right sum, when steps were looked for 6 to 8 ms later. Its
updates lie on a line to within 0.1 ms if a call returns the value of the moment at which it began, and 3 ms off it if
not."""


def habits_of(device: Device) -> Habits:
    """Those of a device's counter."""
    return H100 if device.kind == "gpu" and not device.simulated else EXACT
