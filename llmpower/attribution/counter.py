"""The energy counter, interpolated between the moments at which it moved.

A counter that is updated every 100 ms says nothing about the time of an update except that it lies between the last
read that still showed the old value and the first that showed the new one. Such an *edge* is an interval, from the
old read's ``before`` to the new read's ``after``; its midpoint stands for it and its width becomes uncertainty.

What happened between two edges is known in total only. Where a cut (a span's boundary) falls between them, the total
is divided among the pieces by :mod:`~llmpower.attribution.division`, from what the device drew in the ticks around.

A counter that goes back has been reset (the driver was reloaded, the card was replaced): a new epoch begins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from math import hypot, sqrt
from statistics import fmean

import numpy as np

from llmpower.attribution.division import divide
from llmpower.attribution.experience import APART, Levels, Steadiness
from llmpower.attribution.series import IDLE, Nanoseconds, Reading, Regime, Values
from llmpower.attribution.tick import Around, Level, Piece

IDLE_MEMORY = 8
"""How many of the latest wholly idle ticks tell the idle level."""

LEVELS = 3
"""How many whole ticks on either side tell the level of what goes on there."""

VAGUE = 0.075
"""Relative deviation from which a level says little."""

BUSY = Regime("busy")
"""Work that nobody told us more of."""


class CounterSeries:
    """Edges of one device's energy counter.

    Args:
        max_age_s: how old a freshly read value can be at most, where that is known: RAPL refreshes every millisecond,
            so a value seen to change lies close before its read, however long ago the read before was.
    """

    def __init__(self, max_age_s: float | None = None) -> None:
        self._max_age_ns = None if max_age_s is None else round(max_age_s * 1e9)
        self._last: tuple[int, float] | None = None  # before_ns and value of the latest read
        self._epoch = 0
        self._idle_w: list[float] = []
        self._levels = Levels()
        self._steadiness = {True: Steadiness(), False: Steadiness()}  # of idle time, and of work
        # One entry an edge.
        self._middle_ns: list[int] = []
        self._width_ns: list[int] = []
        self._energy_j: list[float] = []
        self._epochs: list[int] = []

    @property
    def known_since_ns(self) -> int | None:
        """The earliest edge kept."""
        return self._middle_ns[0] if self._middle_ns else None

    @property
    def known_until_ns(self) -> int | None:
        """The latest edge."""
        return self._middle_ns[-1] if self._middle_ns else None

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest wholly idle ticks."""
        return fmean(self._idle_w) if self._idle_w else None

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Find the edges among new reads; ``value`` in joules, shapes (n,)."""
        if len(value) == 0:
            return
        if self._last is not None:
            before_ns = np.concatenate(([self._last[0]], before_ns))
            after_ns = np.concatenate(([0], after_ns))
            value = np.concatenate(([self._last[1]], value))
        self._last = (int(before_ns[-1]), float(value[-1]))

        step = np.diff(value)
        new = np.flatnonzero(step != 0) + 1
        low_ns = before_ns[new - 1]
        if self._max_age_ns is not None:
            low_ns = np.maximum(low_ns, before_ns[new] - self._max_age_ns)
        high_ns = after_ns[new]
        epochs = self._epoch + np.cumsum(step[new - 1] < 0)
        # The value after a reset was there for an unknown time: it opens the epoch but is no edge.
        edges = step[new - 1] > 0
        self._middle_ns += ((low_ns + high_ns) // 2)[edges].tolist()
        self._width_ns += (high_ns - low_ns)[edges].tolist()
        self._energy_j += value[new][edges].tolist()
        self._epochs += epochs[edges].tolist()
        if len(epochs):
            self._epoch = int(epochs[-1])

    def break_epoch(self) -> None:
        """The next edge has no connection to the latest one."""
        self._epoch += 1
        self._last = None

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest edge at or before ``time_ns``."""
        after = bisect_right(self._middle_ns, time_ns)
        return self._middle_ns[after - 1] if after else None

    def readings(self, cuts_ns: Sequence[int], regimes: Sequence[Regime]) -> list[Reading | None]:
        """Energy up to each cut: at an edge the counter's own value, between edges the tick's total divided."""
        found: list[Reading | None] = []
        position = 0
        while position < len(cuts_ns):
            tick = bisect_right(self._middle_ns, cuts_ns[position]) - 1
            last = position
            while last + 1 < len(cuts_ns) and bisect_right(self._middle_ns, cuts_ns[last + 1]) - 1 == tick:
                last += 1
            found += self._within(tick, cuts_ns, regimes, position, last + 1)
            position = last + 1
        self._learn(cuts_ns, regimes)
        return found

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Edges inside the interval."""
        return bisect_right(self._middle_ns, end_ns) - bisect_left(self._middle_ns, start_ns)

    def forget(self, before_ns: int) -> None:
        """Drop edges older than ``before_ns``, all but three of them: the tick it lies in and the two before."""
        count = bisect_left(self._middle_ns, before_ns) - 3
        if count > 0:
            for entries in (self._middle_ns, self._width_ns, self._energy_j, self._epochs):
                del entries[:count]

    def _within(
        self, tick: int, cuts_ns: Sequence[int], regimes: Sequence[Regime], first: int, end: int
    ) -> list[Reading | None]:
        """Readings of ``cuts_ns[first:end]``, which all lie in the tick that begins at edge ``tick``."""
        if tick < 0:
            return [None] * (end - first)
        start_ns, start_j, epoch = self._middle_ns[tick], self._energy_j[tick], self._epochs[tick]
        found: list[Reading | None] = []
        while first < end and cuts_ns[first] == start_ns:
            found.append(Reading(start_j, self._edge_var_j2(tick), 0.0, epoch))
            first += 1
        if not self._is_tick(tick):
            return [*found, *([None] * (end - first))]
        if first < end:
            total_j = self._energy_j[tick + 1] - start_j
            around = Around(
                self._power_w(tick - 1) if self._is_tick(tick - 1) else None,
                self._power_w(tick + 1) if self._is_tick(tick + 1) else None,
                self._steadiness[False].flicker,
                self._steadiness[False].smoothness,
                self._steadiness[False].elsewhere,
            )
            pieces = self._pieces(tick, cuts_ns, regimes, first, end)
            division = divide(pieces, total_j, around)
            self._steadiness[False].judge(division)
            energies_j = [0.0, *(each.energy_j for each in division.used)]
            powers_w = [(energies_j[i + 1] - energies_j[i]) / piece.duration_s for i, piece in enumerate(pieces)]
            for number, each in enumerate(division.used[:-1]):
                cut_ns, before_w, after_w = cuts_ns[first + number], powers_w[number], powers_w[number + 1]
                beyond_j2 = self._beyond_j2(tick, cut_ns, (around.before_w, after_w))
                beyond_j2 += self._beyond_j2(tick + 1, cut_ns, (around.after_w, before_w))
                energy_j = start_j + each.energy_j
                found.append(Reading(energy_j, beyond_j2, 0.0, epoch, start_ns, each.before_j2, each.within_j2))
        return found

    def _beyond_j2(self, edge: int, cut_ns: int, powers_w: tuple[float | None, float]) -> float:
        """Variance of the energy up to a cut that may lie on the other side of an edge than it seems.

        The edge is anywhere within its width w, so beyond the cut, r from its middle, with E[(u − r)²; u > r] =
        (w/2 − r)³/3w; and there power differs from what it was taken for by the step from one side to the other.
        """
        width_s = self._width_ns[edge] / 1e9
        over_s = width_s / 2 - abs(cut_ns - self._middle_ns[edge]) / 1e9
        if over_s <= 0 or powers_w[0] is None:
            return 0.0
        return (powers_w[0] - powers_w[1]) ** 2 * over_s**3 / (3 * width_s)

    def _pieces(
        self, tick: int, cuts_ns: Sequence[int], regimes: Sequence[Regime], first: int, end: int
    ) -> list[Piece]:
        """The tick cut at ``cuts_ns[first:end]``, each piece with what is known of its power beforehand."""
        bounds_ns = [self._middle_ns[tick], *cuts_ns[first:end], self._middle_ns[tick + 1]]
        mixed = len(set(regimes[max(first - 1, 0) : end])) > 1
        pieces = []
        for number in range(len(bounds_ns) - 1):
            cut = first + number  # the piece ends at this cut and began at the one before
            regime = regimes[cut - 1] if 0 < cut <= len(regimes) else BUSY
            beside_w: list[float] = []
            width_ns = 0
            if number == 0:
                since_ns = cuts_ns[cut - 1] if cut > 0 else None
                beside_w = self._powers_w(range(tick - 1, tick - 1 - LEVELS, -1), since_ns)
                width_ns = self._width_ns[tick]
            elif number == len(bounds_ns) - 2:
                until_ns = cuts_ns[cut] if cut < len(cuts_ns) else None
                beside_w = self._powers_w(range(tick + 1, tick + 1 + LEVELS), until_ns)
                width_ns = self._width_ns[tick + 1]
            if regime == IDLE and len(beside_w) < LEVELS:
                beside_w += self._idle_w
            duration_s = (bounds_ns[number + 1] - bounds_ns[number]) / 1e9
            pieces.append(Piece(duration_s, regime, self._level(beside_w, tick, regime, mixed), width_ns / 1e9))
        return pieces

    def _level(self, beside_w: list[float], tick: int, regime: Regime, mixed: bool) -> Level | None:
        """What whole ticks beside a piece drew; where they tell little, what its regime draws by experience.

        In a tick of a single regime neither experience nor a vague level says what the tick's own total does not say
        better.
        """
        beside = self._steadiness[regime == IDLE].level(beside_w, self._power_w(tick))
        if not mixed:
            return beside if beside and beside.std_w < VAGUE * beside.power_w else None
        usual = self._levels.get(regime)
        if beside is None or usual is None:
            return usual or beside
        apart = abs(beside.power_w - usual.power_w) > APART * hypot(usual.std_w, usual.flicker_w, beside.flicker_w)
        return beside if apart or beside.std_w <= hypot(usual.std_w, usual.flicker_w) else usual

    def _powers_w(self, ticks: range, limit_ns: int | None) -> list[float]:
        """Powers of the ticks next in line, as far as they lie wholly this side of ``limit_ns``."""
        powers_w = []
        for tick in ticks:
            if not self._is_tick(tick):
                break
            far_ns = self._middle_ns[tick + (ticks.step > 0)]
            if limit_ns is not None and (far_ns - limit_ns) * ticks.step > 0:
                break
            powers_w.append(self._power_w(tick))
        return powers_w

    def _learn(self, cuts_ns: Sequence[int], regimes: Sequence[Regime]) -> None:
        """Take what ticks between the first cut and the last have shown."""
        if not regimes:
            return
        piece = 0
        previous: tuple[int, Regime, float] | None = None  # the tick before, if one thing ran in it
        for tick in range(bisect_left(self._middle_ns, cuts_ns[0]), bisect_right(self._middle_ns, cuts_ns[-1]) - 1):
            if not self._is_tick(tick):
                continue
            start_ns, end_ns, power_w = self._middle_ns[tick], self._middle_ns[tick + 1], self._power_w(tick)
            while cuts_ns[piece + 1] <= start_ns:
                piece += 1
            shares: defaultdict[Regime, float] = defaultdict(float)
            last = piece
            while last < len(regimes) and cuts_ns[last] < end_ns:
                overlap_ns = min(end_ns, cuts_ns[last + 1]) - max(start_ns, cuts_ns[last])
                shares[regimes[last]] += overlap_ns / (end_ns - start_ns)
                last += 1
            first_s, second_s = self._width_ns[tick] / 1e9, self._width_ns[tick + 1] / 1e9
            tick_s = (end_ns - start_ns) / 1e9
            timing_w = power_w * sqrt((first_s**2 + second_s**2) / 12) / tick_s
            self._levels.learn(shares, power_w, timing_w, self._steadiness[False].smoothness)
            if len(shares) > 1:
                continue
            (regime,) = shares
            if regime == IDLE:
                self._idle_w.append(power_w)
                del self._idle_w[:-IDLE_MEMORY]
            if previous is not None and previous[:2] == (tick - 1, regime):
                # The edge between two ticks makes one longer and the other shorter, so it counts twice, squared.
                zeroth_s = self._width_ns[tick - 1] / 1e9
                timing_var = (zeroth_s**2 + (2 * first_s) ** 2 + second_s**2) / 12 / tick_s**2
                self._steadiness[regime == IDLE].learn(previous[2], power_w, timing_var)
            previous = (tick, regime, power_w)

    def _is_tick(self, tick: int) -> bool:
        """Whether edges ``tick`` and ``tick + 1`` are there and belong together."""
        return 0 <= tick < len(self._middle_ns) - 1 and self._epochs[tick] == self._epochs[tick + 1]

    def _power_w(self, tick: int) -> float:
        """Mean power of the tick that begins at this edge."""
        return (self._energy_j[tick + 1] - self._energy_j[tick]) / (
            (self._middle_ns[tick + 1] - self._middle_ns[tick]) / 1e9
        )

    def _edge_var_j2(self, edge: int) -> float:
        """(P·w)²/12: the edge lies anywhere within its width w, beside a tick of power P."""
        beside = next((tick for tick in (edge, edge - 1) if self._is_tick(tick)), None)
        return 0.0 if beside is None else (self._power_w(beside) * self._width_ns[edge] / 1e9) ** 2 / 12
