"""How the power of one kind of work changes over time, from consecutive readings.

Their squared differences (ΔP)² say how much of the variance S² of readings is flicker, faster than they can follow, and
over which time θ the rest decorrelates, E[(ΔP)²] = 2·F² + 2·(S² − F²)·(1 − ρ(θ)). Which is which shows in their
distribution: power that flickers does so always, power that steps is quiet in between, and the median of the squares is
then far below what it is of a Gaussian with their mean. Time in which power steps passes faster, time in which it does
not more slowly.
"""

from __future__ import annotations

from collections import deque
from statistics import fmean, median

import numpy as np

from llmpower.attribution.readings.sensor import THETAS_S, Sensor, through

FIRST_S = 0.5
"""θ as long as nothing is known of it."""

FLICKER_S = 0.025
"""Over what time flicker forgets itself: faster than sensors can follow."""

ENOUGH = 16
"""Differences from which it is known whether power flickers or steps."""

GAUSSIAN = 0.455
"""Median of the square of a standard normal variable."""


class Roughness:
    """Squared differences of successive readings of one kind of work, the latest 64 of them."""

    def __init__(self) -> None:
        self._squares_w2: deque[float] = deque(maxlen=64)
        self._mean_w2 = 0.0

    def learn(self, square_w2: float) -> None:
        """Take one more."""
        self._squares_w2.append(square_w2)
        self._mean_w2 = fmean(self._squares_w2)

    def course(self, sensor: Sensor, period_s: float, read_w2: float) -> tuple[float, float, float]:
        """θ in seconds; and the variances of power itself, slow and fast, of which readings show ``read_w2``."""
        alike, kept = through(sensor, round(period_s, 3))
        fast_w2 = min(self._flickers() * self._mean_w2 / 2, read_w2)
        slow_w2 = read_w2 - fast_w2
        theta_s = FIRST_S
        if self._squares_w2:
            found = 1 - (self._mean_w2 - 2 * fast_w2) / (2 * max(slow_w2, 1e-12))
            theta_s = float(np.exp(np.interp(found, alike, np.log(THETAS_S))))
        slow_kept, fast_kept = np.interp((theta_s, FLICKER_S), THETAS_S, kept)
        return theta_s, slow_w2 / float(slow_kept), fast_w2 / float(fast_kept)

    def pace(self, square_w2: float) -> float:
        """How fast time passes between two readings, relative to how it usually does."""
        flickers = self._flickers()
        return flickers + (1 - flickers) * square_w2 / self._mean_w2 if flickers < 1 else 1.0

    def _flickers(self) -> float:
        """The share of (ΔP)² that is flicker."""
        if len(self._squares_w2) < ENOUGH or not self._mean_w2:
            return 1.0
        return min(median(self._squares_w2) / (GAUSSIAN * self._mean_w2), 1.0)
