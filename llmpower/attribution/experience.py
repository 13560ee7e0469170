"""What a device's own ticks have taught: how steady its power is, and what each kind of work draws.

Nothing of this is a constant of nature. A server that decodes all day is steady to a percent; another's power is a
square wave. The stated uncertainty of a request can only be honest if it is learnt from the device that served it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import NormalDist, fmean, median

from llmpower.attribution.division import Division
from llmpower.attribution.series import Regime
from llmpower.attribution.tick import Level

MEMORY = 96
"""How many differences between neighbouring ticks are remembered: their quartile is then known to some 15 %."""

EVERY = 4
"""Differences taken between two estimates, which cost more than taking one."""

PRIOR = 16
"""How many differences the flicker believed at first counts for."""

STEP = 4.0
"""A difference beyond this many of its standard deviations is a step."""

FLICKER = (0.002, 0.01, 0.1)
"""Least, first and most flicker believed: relative standard deviation of a tick's mean power."""

STEP_CHANCE = (0.01, 0.4)
"""Least and most chance of a step inside a tick."""

ELSEWHERE = (0.02, 0.3, 0.98)
"""Least, first and most share of steps that happen elsewhere than at cuts."""

APART = 6.0
"""Powers further apart than this many standard deviations of flicker are not of one level."""

ALONE_STD = 0.3
"""Relative deviation of a tick's mean power from what went on at its end, when the power stepped inside."""

MAX_REGIMES = 64
"""Kinds of work remembered; the one not seen for longest goes."""

LOOSE = 0.15
"""Relative deviation beyond which a regime's level is none: such work has no power of its own."""

UNSURE = 0.3
"""Relative deviation of a level after the first tick that showed it."""

LEAST_SPREAD = 0.005
"""Least relative deviation of pieces of one regime that is believed."""

_ADAPT = 0.1
_SMOOTHEN = 0.01
_LEARN = 0.2
_FORGET = 0.02


class Steadiness:
    """Flicker and steps, from differences between neighbouring ticks in which the same work ran throughout.

    Steps spoil the two differences beside them and would spoil a mean square altogether. The lowest quarter of the
    differences is flicker as long as not three quarters of them are steps: its quantile gives the deviation. What of a
    difference is only the unsure timing of the edges does not count.
    """

    def __init__(self) -> None:
        self._differences: deque[float] = deque(maxlen=MEMORY)
        self._timing: deque[float] = deque(maxlen=MEMORY)
        self._taken = 0
        self.flicker = FLICKER[1]
        """Relative standard deviation of a tick's mean power."""
        self.step_chance = STEP_CHANCE[0]
        """Share of ticks with a step inside."""
        self.smoothness = 0.5
        """How flicker averages out, from 0 (white noise) to 1 (constant over a tick)."""
        self.elsewhere = ELSEWHERE[1]
        """Share of changes of power amid the same work that do not happen at a cut."""

    def learn(self, first_w: float, second_w: float, timing_var: float) -> None:
        """Take two neighbouring ticks' mean powers, and the relative variance of their difference that is timing."""
        mean_w = (first_w + second_w) / 2
        if mean_w <= 0:
            return
        self._differences.append(abs(second_w - first_w) / mean_w)
        self._timing.append(timing_var)
        self._taken += 1
        if self._taken % EVERY == 0:
            self._estimate()

    def _estimate(self) -> None:
        ordered = sorted(self._differences)
        timing = median(self._timing)
        quiet = ordered
        for quantile in (0.25, 0.5, 0.5):
            # First of all differences, as if few were steps; then of those that look like none.
            spread = quiet[int(quantile * len(quiet))] / NormalDist().inv_cdf(0.5 + quantile / 2)
            shown = max(spread**2 - timing, 0.0) / 2
            count = len(quiet) + PRIOR
            flicker = sqrt((len(quiet) * shown + PRIOR * FLICKER[1] ** 2) / count)
            # One standard error more: a deviation that is stated too large misleads less.
            self.flicker = flicker * (1 + 1 / sqrt(count))
            self.flicker = min(max(self.flicker, FLICKER[0]), FLICKER[2])
            step = STEP * sqrt(2 * self.flicker**2 + timing)
            quiet = [each for each in ordered if each <= step] or ordered
        steps = (len(ordered) - len(quiet)) / 2
        self.step_chance = min(max(steps / len(ordered), STEP_CHANCE[0]), STEP_CHANCE[1])

    def level(self, powers_w: Sequence[float], tick_w: float) -> Level | None:
        """The level that whole ticks in a row, the nearest first, tell of what goes on beside them.

        ``tick_w`` is the mean power of the tick that is to be divided.
        """
        if not powers_w:
            return None
        nearest_w = powers_w[0]
        flicker_w = self.flicker * nearest_w
        apart_w = max(APART * flicker_w, 1e-9)
        alike_w = [nearest_w]
        for power_w in powers_w[1:]:
            if abs(power_w - nearest_w) > apart_w:
                break
            alike_w.append(power_w)
        if len(alike_w) > 1:
            return Level(fmean(alike_w), flicker_w / sqrt(len(alike_w)), flicker_w)
        if len(powers_w) > 1:
            # The power stepped within that tick, so its mean is no level: ours may still be what our own tick says.
            return Level(nearest_w, max(abs(nearest_w - powers_w[1]), abs(nearest_w - tick_w)), flicker_w)
        # One alone may hold a step of any height, for all we know.
        return Level(nearest_w, sqrt(flicker_w**2 + self.step_chance * (ALONE_STD * nearest_w) ** 2), flicker_w)

    def judge(self, division: Division) -> None:
        """Take how a tick was divided: whether what was foretold of it came true."""
        if division.surprise is not None:
            step = _SMOOTHEN * (1 - min(division.surprise, 16.0))
            self.smoothness = min(max(self.smoothness + step, 0.0), 1.0)
        if division.elsewhere is not None:
            least, _, most = ELSEWHERE
            self.elsewhere += _LEARN * (division.elsewhere - self.elsewhere)
            self.elsewhere = min(max(self.elsewhere, least), most)


class Levels:
    """What each regime draws, by regression over ticks: T/Δ = Σ f_r·P_r, f_r the share of the tick spent in regime r.

    A Kalman filter whose states are the P_r, taken as independent; each regime's own spread S_r adapts to the
    residuals that its share accounts for. So a prompt of 5 ms, which no tick ever shows alone, gets a level from the
    many ticks that hold one.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Regime, _Known] = OrderedDict()

    def get(self, regime: Regime) -> Level | None:
        """The power of a regime and how far single pieces of it deviate, if it has been seen."""
        known = self._known.get(regime)
        if known is None:
            return None
        if known.var_w2 + known.spread_w2 > (LOOSE * known.power_w) ** 2:
            return None
        return Level(known.power_w, sqrt(known.var_w2), sqrt(known.spread_w2))

    def learn(self, shares: Mapping[Regime, float], mean_w: float, timing_w: float, h: float) -> None:
        """Take one tick.

        Args:
            shares: of the tick that each regime had, summing to 1.
            mean_w: its mean power.
            timing_w: what of that is unsure because its edges are.
            h: how flicker averages out, as in :mod:`~llmpower.attribution.division`.
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
