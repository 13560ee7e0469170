"""One opinion of which sensor a device has, and how exactly it keeps to its times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.readings.draws import UNSEEN_STD, Draws, by_regime
from llmpower.attribution.readings.reconstruction import Reconstruction, reconstruct
from llmpower.attribution.series import Regime
from llmpower.attribution.ticks.steadiness import MOST_SURPRISE, USUAL_SURPRISE

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CHANGED = 3.0
"""Mean square of its surprises from which work is taken to draw something else than it used to."""

MOST_DEVIATIONS = 4.0
"""A surprise counts as this many deviations at most: one reading shall not decide which sensor this is."""

_LEARN = 1 / 40


class View:
    """That a device's sensor is the one through which ``draws`` were learnt, and is off by ``jitter_s`` in time.

    ``log_likelihood`` is what it was in the beginning and that of the readings it was judged by. ``caution`` is by how
    much squares of surprises exceed what was predicted, on average.
    """

    def __init__(self, draws: Draws, jitter_s: float, log_likelihood: float = 0.0) -> None:
        self.draws, self.sensor = draws, draws.sensor
        self._jitter_s = jitter_s
        self.log_likelihood = log_likelihood
        self.caution = 1.0

    def look(
        self,
        bounds_s: Floats,
        kinds: Integers,
        regimes: Sequence[Regime],
        most_w: float,
        shown_s: Floats,
        shown_std_s: Floats,
        read_w: Floats,
        period_s: float,
    ) -> Reconstruction:
        """The power of each stretch.

        Args:
            bounds_s: of the stretches, shape (n + 1,).
            kinds: what ran in each, by number in ``regimes``, shape (n,).
            regimes: what may run.
            most_w: the most that the device has shown.
            shown_s: when readings were shown, shape (k,).
            shown_std_s: how uncertain that is by when the sensor was read.
            read_w: the readings.
            period_s: how often there is one.
        """
        known = self.draws.known(bounds_s, kinds, regimes, most_w, shown_s, read_w, period_s)
        seen = reconstruct(self.sensor, bounds_s, kinds, known, shown_s, shown_std_s, self._jitter_s, read_w)
        # Work that draws something else than it used to is believed what it shows.
        parts = by_regime(seen.shares, kinds, len(regimes))
        excess = seen.surprises**2 @ parts / np.maximum(parts.sum(axis=0), 1e-3)
        if (excess > CHANGED).any():
            wider_w2 = np.minimum(known.slow_w2 * excess[kinds], (UNSEEN_STD * most_w) ** 2)
            slow_w2 = np.where(excess[kinds] > CHANGED, np.maximum(known.slow_w2, wider_w2), known.slow_w2)
            known = known._replace(slow_w2=slow_w2)
            seen = reconstruct(self.sensor, bounds_s, kinds, known, shown_s, shown_std_s, self._jitter_s, read_w)
        return seen

    def score(self, seen: Reconstruction, new: NDArray[np.bool_]) -> float:
        """How likely this view is after new readings, as a logarithm: whatever these say counts."""
        return self.log_likelihood - float((seen.surprises[new] ** 2 / 2 + seen.log_std[new]).sum())

    def judge(self, seen: Reconstruction, new: NDArray[np.bool_]) -> None:
        """Take how well new readings were predicted, each of them within bounds."""
        squares = np.minimum(seen.surprises[new] ** 2, MOST_DEVIATIONS**2)
        self.log_likelihood -= float((squares / 2 + seen.log_std[new]).sum())
        for square in np.minimum(squares, MOST_SURPRISE).tolist():
            self.caution += _LEARN * (square / USUAL_SURPRISE - self.caution)
