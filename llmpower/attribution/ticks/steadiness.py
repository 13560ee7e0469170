"""How steady a device's power is, by its own ticks.

Nothing of this is a constant of nature. A server that decodes all day is steady to a percent; another's power is a
square wave. The stated uncertainty of a request can only be honest if it is learnt from the device that served it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import hypot, sqrt
from operator import or_
from statistics import NormalDist, median

from llmpower.attribution.ticks.division import Division
from llmpower.attribution.ticks.tick import Level, Shown

MEMORY = 128
"""How many differences between ticks are remembered: the flicker is then known to some 7 %."""

EVERY = 4
"""New differences that an estimate waits for, which costs more than taking one."""

PRIOR = 16
"""How many differences the flicker believed at first counts for."""

QUIET = 0.25
"""Share of the differences that is flicker whatever else there is."""

STEP = 3.5
"""A difference beyond this many of its standard deviations is a step."""

CAUTION = 0.5
"""Standard errors that are added to the flicker found: a deviation that is stated too large misleads less."""

FLICKER = (0.002, 0.01, 0.1)
"""Least, first and most flicker believed: relative standard deviation of a tick's mean power."""

REFERENCE_S = 0.1
"""Length of the tick that flicker is stated for where it depends on it: the usual one."""

STEP_CHANCE = (0.01, 0.4)
"""Least and most chance of a step inside a tick."""

ELSEWHERE = (0.02, 0.3, 0.98)
"""Least, first and most share of steps that happen elsewhere than at cuts."""

APART = 6.0
"""Powers further apart than this many standard deviations of flicker are not of one level."""

TIMED_APART = 2.0
"""The same for what of a power is uncertain because its edges are: such a tick shall not speak for another level."""

ALONE_STD = 0.3
"""Relative deviation of a tick's mean power from what went on at its end, when the power stepped inside."""

MOST_SURPRISE, USUAL_SURPRISE = 4.0, 0.9205
"""Of the square of a standardised residual what counts at most, and the mean of that if it is Gaussian: with Φ for the
normal distribution 2Φ(2) − 1 − 4φ(2) + 4·2(1 − Φ(2))."""

_SMOOTHEN = 0.01
_LEARN = 0.2


class Steadiness:
    """Flicker and steps, from differences between ticks close together in which the same work ran throughout.

    A difference d_i of two such ticks, relative to their power, has the variance 2φ² + t_i, φ the flicker of one and
    t_i what is only the uncertain timing of their edges. So φ² = Σ w_i·(d_i² − t_i) / 2Σ w_i with w_i = (2φ² + t_i)⁻².
    Steps spoil the differences around them and would spoil the sum altogether, so it is taken over those that look
    like none. Which these are is found from quantiles, of the lowest quarter of all differences first: that is flicker
    as long as not three quarters of them are steps.

    Args:
        white: flicker averages out as white noise does, so that of a tick twice as long is less by √2; else that of all
            ticks is taken to be the same.
    """

    def __init__(self, *, white: bool = False) -> None:
        self._white = white
        self._differences: deque[tuple[float, float]] = deque(maxlen=MEMORY)  # |d_i| and t_i
        self._new = 0  # of them, since the latest estimate
        self._flicker = FLICKER[1]
        self._step_chance = STEP_CHANCE[0]
        self.smoothness = 0.5
        """How flicker averages out, from 0 (white noise) to 1 (constant over a tick)."""
        self.elsewhere = ELSEWHERE[1]
        """Share of changes of power during the same work that do not happen at a cut."""

    @property
    def flicker(self) -> float:
        """Relative standard deviation of a tick's mean power; of one of 0.1 s where it averages out as white noise."""
        self._estimate()
        return self._flicker

    @property
    def step_chance(self) -> float:
        """Share of ticks with a step inside."""
        self._estimate()
        return self._step_chance

    def learn(self, first: Shown, second: Shown, timing_w2: float) -> None:
        """Take two ticks with the same work in and between them; of their difference, the variance that is timing."""
        mean_w = (first.power_w + second.power_w) / 2
        if mean_w <= 0:
            return
        per_w = self._scale((first.duration_s + second.duration_s) / 2) / mean_w
        self._differences.append((abs(second.power_w - first.power_w) * per_w, timing_w2 * per_w**2))
        self._new += 1

    def _scale(self, duration_s: float) -> float:
        """From the flicker of a tick of this length to that of one of 0.1 s."""
        return sqrt(duration_s / REFERENCE_S) if self._white else 1.0

    def _flicker_w(self, power_w: float, tick: Shown) -> float:
        """How far the mean of a tick as long as this one deviates from a power."""
        return self.flicker * power_w / self._scale(tick.duration_s)

    def _estimate(self) -> None:
        """Bring flicker and step chance up to date, if enough has come; an idle device is never asked for them."""
        if self._new < EVERY:
            return
        self._new = 0
        timing_var = median(t for _, t in self._differences)
        flicker2, quiet = self._flicker**2, list(self._differences)
        # First of all differences, as if few were steps; then of those that look like none.
        for quantile in (QUIET, 0.5, 0.5):
            ordered = sorted(d / sqrt(2 * flicker2 + t) for d, t in quiet)
            scale = ordered[int(quantile * len(ordered))] / NormalDist().inv_cdf(0.5 + quantile / 2)
            flicker2 = max(scale**2 * (2 * flicker2 + timing_var) - timing_var, 2 * FLICKER[0] ** 2) / 2
            quiet = [each for each in self._differences if each[0] ** 2 <= STEP**2 * (2 * flicker2 + each[1])] or quiet
        weights = [1 / (2 * flicker2 + t) ** 2 for _, t in quiet]
        prior = PRIOR / (2 * flicker2 + timing_var) ** 2
        shown = sum(weight * (d * d - t) for weight, (d, t) in zip(weights, quiet, strict=True))
        flicker2 = max(shown + prior * 2 * FLICKER[1] ** 2, 0.0) / (sum(weights) + prior) / 2
        flicker = sqrt(flicker2) * (1 + CAUTION / sqrt(2 * (len(quiet) + PRIOR)))
        self._flicker = min(max(flicker, FLICKER[0]), FLICKER[2])
        steps = (len(self._differences) - len(quiet)) / 2
        self._step_chance = min(max(steps / len(self._differences), STEP_CHANCE[0]), STEP_CHANCE[1])

    def level(self, beside: Sequence[Shown], tick: Shown) -> Level | None:
        """What whole ticks in a row, the nearest first, say about the near part of a tick beside them."""
        if not beside:
            return None
        nearest = beside[0]
        flicker_w = self._flicker_w(nearest.power_w, tick)
        alike = [nearest, *self._alike(nearest, beside[1:])]
        if len(alike) > 1:
            variances_w2 = (self._flicker_w(nearest.power_w, each) ** 2 + each.timing_w**2 for each in alike)
            weights = [1 / max(variance_w2, 1e-12) for variance_w2 in variances_w2]
            mean_w = sum(weight * each.power_w for weight, each in zip(weights, alike, strict=True)) / sum(weights)
            return Level(mean_w, 1 / sqrt(sum(weights)), flicker_w)
        if len(beside) > 2 and self._between(beside[2], beside[1], nearest):
            # The tick before it holds the step up or down to it.
            return Level(nearest.power_w, hypot(flicker_w, nearest.timing_w), flicker_w)
        if len(beside) > 1:
            # The power stepped within that tick, so its mean is not a level: ours may still be what our own tick says.
            stepped_w = max(abs(nearest.power_w - beside[1].power_w), abs(nearest.power_w - tick.power_w))
            return Level(nearest.power_w, hypot(stepped_w, nearest.timing_w), flicker_w)
        # One alone may hold a step of any height, for all we know; and if it is not like ours, one of the two does.
        alone_w2 = self.step_chance * (ALONE_STD * nearest.power_w) ** 2
        if not self._alike(nearest, [tick]):
            alone_w2 = (nearest.power_w - tick.power_w) ** 2
        return Level(nearest.power_w, sqrt(flicker_w**2 + nearest.timing_w**2 + alone_w2), flicker_w)

    def flat(self, before: Sequence[Shown], tick: Shown, after: Sequence[Shown]) -> Level | None:
        """The level of a tick that holds no step, but for one that is taken back at once; ``None`` where it may.

        A neighbour that drew the same says so, and one that drew something else does not say otherwise if it holds the
        step itself: then it is not of one level with what was beyond it.

        Args:
            before: the ticks before, the nearest first; the nearest two count.
            tick: in question.
            after: the ticks after it.
        """
        agreeing = [bool(self._alike(tick, beside[:1])) for beside in (before, after)]
        stepped = [len(beside) > 1 and self._between(beside[1], beside[0], tick) for beside in (before, after)]
        if not any(agreeing) or not all(map(or_, agreeing, stepped)):
            return None
        return Level(tick.power_w, 0.0, self._flicker_w(tick.power_w, tick))

    def _between(self, first: Shown, middle: Shown, last: Shown) -> bool:
        """Whether the middle one of three ticks holds the step from the first one's level to the last one's."""
        low_w, high_w = sorted((first.power_w, last.power_w))
        return low_w < middle.power_w < high_w and not self._alike(middle, [first]) and not self._alike(middle, [last])

    def _alike(self, tick: Shown, others: Sequence[Shown]) -> list[Shown]:
        """Those of the others, up to the first that is not, which are of one level with this tick."""
        alike: list[Shown] = []
        for each in others:
            apart_w = hypot(
                APART * self._flicker_w(tick.power_w, tick), TIMED_APART * hypot(tick.timing_w, each.timing_w)
            )
            if abs(each.power_w - tick.power_w) > max(apart_w, 1e-9):
                break
            alike.append(each)
        return alike

    def judge(self, division: Division) -> None:
        """Take how a tick was divided: whether what was predicted of it came true."""
        if division.surprise is not None:
            # One tick that was predicted badly, of which there are more than Gaussian ones, shall not say much.
            step = _SMOOTHEN * (USUAL_SURPRISE - min(division.surprise, MOST_SURPRISE))
            self.smoothness = min(max(self.smoothness + step, 0.0), 1.0)
        if division.elsewhere is not None:
            least, _, most = ELSEWHERE
            self.elsewhere += _LEARN * (division.elsewhere - self.elsewhere)
            self.elsewhere = min(max(self.elsewhere, least), most)
