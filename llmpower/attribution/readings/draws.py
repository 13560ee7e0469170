"""What work of each kind draws, and how that changes over time, as seen through one sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.readings.reconstruction import Known
from llmpower.attribution.readings.roughness import FIRST_S, Roughness
from llmpower.attribution.readings.sensor import Sensor
from llmpower.attribution.series import BUSY, IDLE, Regime
from llmpower.attribution.ticks.experience import MAX_REGIMES, Levels

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

UNSEEN, UNSEEN_STD, UNSTEADY = 0.75, 0.5, 0.25
"""What work of an unseen kind draws, how uncertain and how unsteady, as parts of the most the device has shown."""

FULL = 6.0
"""The most that a device draws, in terms of what it draws idle, until it has shown any work. By their data sheets it is
4.5 on an L4, 7.5 on a V100 and 18 on an RTX 4090; an H100 that draws 117 W idle has shown 950."""

WHOLE = 0.99
"""Share of a reading from which it shows one kind of work alone."""

PACES = (0.03, 30.0)
"""By how much time may pass more slowly or faster than usual."""

SMOOTHNESS = 0.5
"""How flicker averages out over part of a reading, from white noise (0) to none (1)."""

OFF_S = 0.005
"""By how much a reading is off in time, beside what is uncertain about its update, while it is learnt from."""


class Draws:
    """What work draws, learnt from readings of one sensor.

    In all methods ``bounds_s``, shape (n + 1,), are those of stretches of time, ``kinds``, shape (n,), what ran in
    each, by number in ``regimes``, and ``shown_s``, shape (k,), when readings were shown.
    """

    def __init__(self, sensor: Sensor) -> None:
        self.sensor = sensor
        self._levels = Levels(loose=np.inf)
        self._worked = False
        self._roughness: dict[Regime, Roughness] = {}

    def known(
        self,
        bounds_s: Floats,
        kinds: Integers,
        regimes: Sequence[Regime],
        most_w: float,
        shown_s: Floats,
        read_w: Floats,
        period_s: float,
    ) -> Known:
        """What is known of the power of each stretch beside the readings ``read_w``, which come every ``period_s``.

        ``most_w`` is the most that the device has shown.
        """
        idle = None if self._worked else self._levels.get(IDLE)
        if idle is not None:
            most_w = max(most_w, FULL * idle.power_w)
        rows = np.array([self._known(regime, most_w, period_s) for regime in regimes])
        known = Known(*rows[kinds].T)
        return known._replace(lasts_s=known.lasts_s / self._paces(bounds_s, kinds, regimes, shown_s, read_w))

    def learn(
        self,
        bounds_s: Floats,
        kinds: Integers,
        regimes: Sequence[Regime],
        shown_s: Floats,
        shown_std_s: Floats,
        read_w: Floats,
        learned: int,
    ) -> None:
        """Take readings; the first ``learned`` of them were taken before, and the next one is compared with them.

        ``shown_std_s`` is how uncertain their moments are.
        """
        last: tuple[int, float] | None = None
        rows = by_regime(self.sensor.shares(shown_s, bounds_s), kinds, len(regimes))
        levels = [self._levels.get(regime) for regime in regimes]
        mean_w = np.array([level.power_w if level else 0.0 for level in levels])
        timing_w = np.abs(self.sensor.rates(shown_s, bounds_s) @ mean_w[kinds]) * np.hypot(shown_std_s, OFF_S)
        for number, (row, power_w) in enumerate(zip(rows, read_w.tolist(), strict=True)):
            most = int(row.argmax())
            if number >= learned:
                there = np.flatnonzero(row > (1 - WHOLE) / 2)
                shares = {regimes[each]: float(row[each] / row[there].sum()) for each in there.tolist()}
                self._levels.learn(shares, power_w, float(timing_w[number]), SMOOTHNESS)
                self._worked |= regimes[most] not in (IDLE, BUSY)
                if last is not None and last[0] == most and row[most] >= WHOLE:
                    self._rough(regimes[most]).learn((power_w - last[1]) ** 2)
            last = (most, power_w) if row[most] >= WHOLE else None

    def _known(self, regime: Regime, most_w: float, period_s: float) -> tuple[float, float, float, float, float]:
        """μ, V, S², θ and F² of a regime."""
        level = self._levels.get(regime)
        # Of kinds that have only been seen together, one after another, each is less certain than the one before.
        if level is None or level.std_w > UNSEEN_STD * most_w:
            return UNSEEN * most_w, (UNSEEN_STD * most_w) ** 2, (UNSTEADY * most_w) ** 2, FIRST_S, 0.0
        rough = self._roughness.get(regime) or Roughness()
        flicker_w2 = min(level.flicker_w, UNSEEN_STD * most_w) ** 2
        lasts_s, slow_w2, fast_w2 = rough.course(self.sensor, period_s, flicker_w2)
        return level.power_w, level.std_w**2, slow_w2, lasts_s, fast_w2

    def _rough(self, regime: Regime) -> Roughness:
        found = self._roughness.pop(regime) if regime in self._roughness else Roughness()
        self._roughness[regime] = found
        if len(self._roughness) > MAX_REGIMES:
            del self._roughness[next(iter(self._roughness))]
        return found

    def _paces(
        self, bounds_s: Floats, kinds: Integers, regimes: Sequence[Regime], shown_s: Floats, read_w: Floats
    ) -> Floats:
        """How fast time passes in each stretch, by the readings that first show it."""
        parts = by_regime(self.sensor.shares(shown_s, bounds_s), kinds, len(regimes))
        most, whole = parts.argmax(axis=1).tolist(), (parts.max(axis=1) >= WHOLE).tolist()
        paces = np.ones(len(shown_s) + 2)
        for number in range(1, len(shown_s)):
            same = whole[number] and whole[number - 1] and most[number] == most[number - 1]
            rough = self._roughness.get(regimes[most[number]]) if same else None
            if rough:
                paces[number] = rough.pace(float(read_w[number] - read_w[number - 1]) ** 2)
        first = np.searchsorted(shown_s, (bounds_s[1:] + bounds_s[:-1]) / 2)
        # A step shows in part at the first update behind it, and wholly at the next one.
        return np.clip(np.maximum(paces[first], paces[first + 1]), *PACES)


def by_regime(shares: Floats, kinds: Integers, regimes: int) -> Floats:
    """What each regime has of each reading, from what each stretch has: (k, n) to (k, regimes)."""
    found: Floats = shares @ (kinds[:, None] == np.arange(regimes))
    return found
