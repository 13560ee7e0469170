"""What each kind of work draws, by the device's own ticks; how steady it is stands in steadiness.py."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from math import sqrt

from llmpower.attribution.series import Regime
from llmpower.attribution.ticks.tick import Level

MAX_REGIMES = 64
"""Kinds of work remembered; the one not seen for longest goes."""

LOOSE = 0.15
"""Relative deviation beyond which a regime's level is none: such work has no power of its own."""

UNSURE = 0.3
"""Relative deviation of a level after the first tick that showed it."""

LEAST_SPREAD = 0.005
"""Least relative deviation of pieces of one regime that is believed."""

_ADAPT = 0.1
_FORGET = 0.02


class Levels:
    """What each regime draws, by regression over ticks: T/Δ = Σ f_r·P_r, f_r the share of the tick spent in regime r.

    A Kalman filter whose states are the P_r, taken as independent; each regime's own spread S_r adapts to the
    residuals that its share accounts for. So a prompt of 5 ms, which no tick ever shows alone, gets a level from the
    many ticks that hold one.

    Args:
        loose: relative deviation beyond which a regime's level is none.
    """

    def __init__(self, loose: float = LOOSE) -> None:
        self._loose = loose
        self._known: OrderedDict[Regime, _Known] = OrderedDict()

    def get(self, regime: Regime) -> Level | None:
        """The power of a regime and how far single pieces of it deviate, if it has been seen."""
        known = self._known.get(regime)
        if known is None:
            return None
        if known.var_w2 + known.spread_w2 > (self._loose * known.power_w) ** 2:
            return None
        return Level(known.power_w, sqrt(known.var_w2), sqrt(known.spread_w2))

    def learn(self, shares: Mapping[Regime, float], mean_w: float, timing_w: float, h: float) -> None:
        """Take one tick.

        Args:
            shares: of the tick that each regime had, summing to 1.
            mean_w: its mean power.
            timing_w: what of that is uncertain because its edges are.
            h: how flicker averages out, as in :mod:`~llmpower.attribution.ticks.division`.
        """
        new = [regime for regime in shares if regime not in self._known]
        if new:
            self._meet(new, shares, mean_w)
            return
        states = [(self._known[regime], share) for regime, share in shares.items()]
        residual_w = mean_w - sum(share * known.power_w for known, share in states)
        var_w2 = sum(share**2 * known.var_w2 + share ** (1 + h) * known.spread_w2 for known, share in states)
        var_w2 += timing_w**2 + 1e-12
        surprise = min(residual_w**2 / var_w2, 16.0) - 1
        for known, share in states:
            part = share ** (1 + h) * known.spread_w2 / var_w2
            gain = share * known.var_w2 / var_w2
            known.power_w = max(known.power_w + gain * residual_w, 0.0)
            known.var_w2 = known.var_w2 * (1 - share * gain) + _FORGET * share * known.spread_w2
            known.spread_w2 *= 1 + _ADAPT * part * surprise
            known.spread_w2 = max(known.spread_w2, (LEAST_SPREAD * known.power_w) ** 2)
        for regime in shares:
            self._known.move_to_end(regime)

    def _meet(self, new: list[Regime], shares: Mapping[Regime, float], mean_w: float) -> None:
        """Of regimes never seen before a single one gets what the others leave, and is the less sure the shorter."""
        if len(new) > 1:
            return
        share = shares[new[0]]
        others = [(self._known[regime], part) for regime, part in shares.items() if regime in self._known]
        power_w = max((mean_w - sum(part * known.power_w for known, part in others)) / share, 0.0)
        others_w2 = sum(part**2 * (known.var_w2 + known.spread_w2) for known, part in others)
        self._known[new[0]] = _Known(power_w, (UNSURE * power_w) ** 2 + others_w2 / share**2)
        if len(self._known) > MAX_REGIMES:
            self._known.popitem(last=False)


class _Known:
    __slots__ = ("power_w", "spread_w2", "var_w2")

    def __init__(self, power_w: float, var_w2: float) -> None:
        self.power_w = power_w
        self.var_w2 = var_w2
        self.spread_w2 = var_w2
