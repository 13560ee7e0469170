"""Energy by integrating power, for devices that have no counter.

A power sensor is updated every T, shows the mean of a window W before the update, and follows the power with a lag τ.
Its reading at an update u therefore speaks of the moment u − LAG, LAG = W/2 + τ, and is held from then on; integrating
the held value instead would put every joule T/2 too late once more. So the series has a point at each update, shifted
back by LAG, and the trapezoid runs over these points. A reading that stays the same may have been updated unseen: it
counts as confirmed one period before the moment it was read, or before it changed.

Where the work changes between two points, power steps there and not somewhere in between: a trapezoid would give a
third of a step's energy to the idle time on either side of a span. So two points are put in at each change, of what
ended and of what began. A point close to a change shows some of both, and is set to what its kind of work has shown
further away; of work that lies between two points nothing was seen at all, and it gets the same.

What is unsure: between two points that differ by ΔW without a change the step may lie anywhere, (ΔW·T)²/12, which
gathers along the way, as does (σ·d)² for work of which nothing clear was seen for a time d. At a change what the lag
has moved across it, (ΔW·SMEAR)²; at any other moment where points nearby differ by D, the step itself,
D²·(T²/12 + SMEAR²).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from llmpower.attribution.series import IDLE, Nanoseconds, Reading, Regime, Told, Values

LAG_S = 0.04
"""W/2 + τ of current cards (arXiv 2312.02741): 35 ms on V100, 38 on A100, 43 on H100, 55 on RTX 4090."""

SMEAR_S = 0.015
"""τ/e and the spread of LAG between cards: by how much a step's energy is misplaced."""

NEARBY_S = 0.1
"""How far a step is spread at most."""

UPDATE_S = 0.1
"""How often a sensor is taken to be updated until its own updates say otherwise (20 to 101 ms)."""

MAX_UPDATE_S = 0.3
"""Changes further apart than this are no consecutive updates: the reading stayed the same in between."""

IDLE_S = 0.2
"""Idle time shorter than two updates tells nothing of the idle power: the sensor still shows what was before."""

CLEAR_NS = 60_000_000
"""Distance from a change of work from which on a point shows one kind of work alone: some 1.5·(W + τ)."""

UNSEEN, UNSEEN_STD = 0.75, 0.5
"""What work draws whose kind was never seen clearly, and how unsure, of the most that the device has shown."""

FIRST_STD = 0.2
"""The same of the first clear point of a kind, from others of it."""

MAX_REGIMES = 64
"""Kinds of work remembered; the one not seen for longest goes."""

LEARN = 1 / 16
"""Weight of the latest clear point in what a kind of work draws."""

GAP_S = 1.0
"""Reads further apart than this leave a hole that no trapezoid bridges: a new epoch begins."""


class Seen(NamedTuple):
    """A power, and how unsure it is."""

    power_w: float
    std_w: float


class _Point(NamedTuple):
    """Power at a moment, and the variance of the energy since the point before."""

    time_ns: int
    power_w: float
    own_var_j2: float


class _Levels:
    """What each kind of work has shown where it could be seen clearly."""

    def __init__(self) -> None:
        self._seen: dict[Regime, Seen] = {}
        self.most_w = 0.0

    def get(self, regime: Regime, beside_w: float) -> Seen:
        """What it draws; of a kind that was never seen clearly, anything up to the most that was seen of any."""
        most_w = max(self.most_w, beside_w)
        return self._seen.get(regime) or Seen(UNSEEN * most_w, UNSEEN_STD * most_w)

    def learn(self, regime: Regime, power_w: float) -> None:
        """Take a clear point."""
        known = self._seen.pop(regime, None) or Seen(power_w, FIRST_STD * power_w)
        mean_w = known.power_w + LEARN * (power_w - known.power_w)
        var_w2 = (1 - LEARN) * known.std_w**2 + LEARN * (power_w - mean_w) ** 2
        self._seen[regime] = Seen(mean_w, sqrt(var_w2))
        if len(self._seen) > MAX_REGIMES:
            del self._seen[next(iter(self._seen))]


class PowerSeries:
    """Power readings of one device and their running integral."""

    def __init__(self) -> None:
        self._epoch = 0
        self._broken = False
        self._idle_w: float | None = None
        self._read: tuple[int, float] | None = None  # when and what was read last
        self._changed_ns: int | None = None
        self._updates_ns: list[int] = []  # the moments that changed readings spoke of
        self._periods_s: deque[float] = deque([UPDATE_S], maxlen=31)
        # One entry a point.
        self._time_ns: list[int] = []
        self._power_w: list[float] = []
        self._energy_j: list[float] = []
        self._own_var_j2: list[float] = []  # of the way from the point before
        self._path_var_j2: list[float] = []  # its sum
        self._epochs: list[int] = []
        self._levels = _Levels()

    @property
    def known_since_ns(self) -> int | None:
        """The earliest point kept."""
        return self._time_ns[0] if self._time_ns else None

    @property
    def known_until_ns(self) -> int | None:
        """The latest point."""
        return self._time_ns[-1] if self._time_ns else None

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest idle time of at least :data:`IDLE_S`."""
        return self._idle_w

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Take new reads in; ``value`` in watts, shapes (n,)."""
        for time_ns, power_w in zip(((before_ns + after_ns) // 2).tolist(), value.tolist(), strict=True):
            self._take(time_ns, power_w)

    def break_epoch(self) -> None:
        """The next read has no connection to the latest one."""
        self._broken = True

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest point at or before ``time_ns``."""
        after = bisect_right(self._time_ns, time_ns)
        return self._time_ns[after - 1] if after else None

    def readings(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None = None
    ) -> list[Reading | None]:
        """The integral up to each cut; ``None`` outside the points and inside a hole.

        ``until_ns`` is not needed: the power itself shows what goes on behind the last cut.
        """
        del until_ns
        self._step(cuts_ns, regimes)
        found = [self._reading(cut_ns) for cut_ns in cuts_ns]
        for number, regime in enumerate(regimes):
            start, end = found[number], found[number + 1]
            duration_s = (cuts_ns[number + 1] - cuts_ns[number]) / 1e9
            if regime == IDLE and start and end and start.epoch == end.epoch and duration_s >= IDLE_S:
                self._idle_w = (end.energy_j - start.energy_j) / duration_s
        return found

    def told(self, start_ns: int, end_ns: int) -> Told:
        """The points inside the interval."""
        part = slice(bisect_left(self._time_ns, start_ns), bisect_right(self._time_ns, end_ns))
        return Told(
            np.array(self._time_ns[part], np.int64),
            np.array(self._energy_j[part], np.float64),
            np.array(self._epochs[part], np.int64),
        )

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Changes of the reading inside the interval; a power that does not move shows none, nor does a step put in."""
        return bisect_right(self._updates_ns, end_ns) - bisect_left(self._updates_ns, start_ns)

    def forget(self, before_ns: int) -> None:
        """Drop points older than ``before_ns``, all but the latest two of them."""
        count = bisect_left(self._time_ns, before_ns) - 2
        if count > 0:
            for entries in self._columns():
                del entries[:count]
        del self._updates_ns[: bisect_left(self._updates_ns, before_ns)]

    def _take(self, time_ns: int, power_w: float) -> None:
        """Make points of one read: none, a confirmation of the reading before, or that and the new reading."""
        if self._read is None or self._broken or time_ns - self._read[0] > GAP_S * 1e9:
            self._epoch += bool(self._time_ns)
            self._broken, self._changed_ns = False, None
            self._add(time_ns, power_w)
        else:
            last_ns, last_w = self._read
            period_ns = round(median(self._periods_s) * 1e9)
            if power_w == last_w:
                if time_ns - period_ns - self._shown_ns() >= period_ns:
                    self._add(time_ns - period_ns, last_w)
            else:
                update_ns = (last_ns + time_ns) // 2
                if update_ns - period_ns > self._shown_ns():
                    self._add(update_ns - period_ns, last_w)
                self._add(update_ns, power_w)
                if self._changed_ns is not None and update_ns - self._changed_ns < MAX_UPDATE_S * 1e9:
                    self._periods_s.append((update_ns - self._changed_ns) / 1e9)
                self._changed_ns = update_ns
                self._updates_ns.append(self._time_ns[-1])
        self._read = (time_ns, power_w)

    def _shown_ns(self) -> int:
        """When the latest point was shown, which is LAG after the moment that it speaks of."""
        return self._time_ns[-1] + round(LAG_S * 1e9)

    def _add(self, shown_ns: int, power_w: float) -> None:
        self._levels.most_w = max(self._levels.most_w, power_w)
        time_ns, own_var_j2 = shown_ns - round(LAG_S * 1e9), 0.0
        if self._time_ns:
            own_var_j2 = self._between_j2(_Point(self._time_ns[-1], self._power_w[-1], 0.0), time_ns, power_w)
        self._insert(len(self._time_ns), _Point(time_ns, power_w, own_var_j2), self._epoch)
        self._integrate(len(self._time_ns) - 1)

    def _columns(self) -> tuple[list[Any], ...]:
        """Time, power and own variance of the points, and what follows from them."""
        return self._time_ns, self._power_w, self._own_var_j2, self._energy_j, self._path_var_j2, self._epochs

    def _insert(self, place: int, point: _Point, epoch: int) -> None:
        for column, value in zip(self._columns(), (*point, 0.0, 0.0, epoch), strict=True):
            column.insert(place, value)

    def _integrate(self, place: int) -> None:
        """Sum up anew from this point on."""
        for point in range(max(place, 1), len(self._time_ns)):
            step_s = (self._time_ns[point] - self._time_ns[point - 1]) / 1e9
            mean_w = (self._power_w[point] + self._power_w[point - 1]) / 2
            self._energy_j[point] = self._energy_j[point - 1] + step_s * mean_w
            self._path_var_j2[point] = self._path_var_j2[point - 1] + self._own_var_j2[point]

    def _step(self, cuts_ns: Sequence[int], regimes: Sequence[Regime]) -> None:
        """Let power step where the work changes; what lies at the first and the last cut is settled and stays."""
        changes = [number for number in range(1, len(regimes)) if regimes[number] != regimes[number - 1]]
        bounds_ns = [cuts_ns[0], *(cuts_ns[number] for number in changes), cuts_ns[-1]]
        epoch = self._epoch_at(cuts_ns[0])
        if not changes or epoch is None or epoch != self._epoch_at(cuts_ns[-1]):
            return
        low, high = bisect_right(self._time_ns, cuts_ns[0]), bisect_left(self._time_ns, cuts_ns[-1])
        course = list(zip(self._time_ns[low:high], self._power_w[low:high], strict=True))
        made: list[_Point] = [_Point(cuts_ns[0], self._power_w[low - 1], 0.0)]
        for number, (start_ns, end_ns) in enumerate(pairwise(bounds_ns)):
            regime = regimes[[0, *changes][number]]
            inside = [each for each in course if start_ns < each[0] < end_ns]
            first_ns = start_ns + (CLEAR_NS if number > 0 else 0)
            last_ns = end_ns - (CLEAR_NS if number < len(changes) else 0)
            clear = [each for each in inside if first_ns <= each[0] <= last_ns]
            for _, power_w in clear:
                self._levels.learn(regime, power_w)
            beside_w = [power_w for _, power_w in clear or inside] or [made[-1].power_w]
            level = Seen(beside_w[0], 0.0) if clear else self._levels.get(regime, beside_w[0])
            if number > 0:
                made.append(_Point(start_ns, level.power_w, 0.0))
            for time_ns, power_w in clear:
                made.append(_Point(time_ns, power_w, self._between_j2(made[-1], time_ns, power_w)))
            if number < len(changes):
                last_w = clear[-1][1] if clear else level.power_w
                unsure_j2 = (level.std_w * (end_ns - start_ns) / 1e9) ** 2
                made.append(_Point(end_ns, last_w, unsure_j2))
        del made[0]
        for column in self._columns():
            del column[low:high]
        for place, point in enumerate(made, low):
            self._insert(place, point, epoch)
        end = low + len(made)
        self._own_var_j2[end] = self._between_j2(made[-1], self._time_ns[end], self._power_w[end])
        self._integrate(low)

    def _epoch_at(self, time_ns: int) -> int | None:
        """The epoch of the point at this moment; ``None`` where there is none."""
        place = bisect_left(self._time_ns, time_ns)
        found = place < len(self._time_ns) and self._time_ns[place] == time_ns
        return self._epochs[place] if found else None

    @staticmethod
    def _between_j2(point: _Point, time_ns: int, power_w: float) -> float:
        """(ΔW·T)²/12 from a point to the next."""
        return ((power_w - point.power_w) * (time_ns - point.time_ns) / 1e9) ** 2 / 12

    def _reading(self, time_ns: int) -> Reading | None:
        after = bisect_left(self._time_ns, time_ns)
        if after == len(self._time_ns) or (after == 0 and self._time_ns[0] != time_ns):
            return None
        before = max(after - 1, 0)
        if self._epochs[before] != self._epochs[after]:
            return None
        f, slope_w, step_s = 0.0, 0.0, 0.0
        if after > before:
            step_s = (self._time_ns[after] - self._time_ns[before]) / 1e9
            f = (time_ns - self._time_ns[before]) / 1e9 / step_s
            slope_w = self._power_w[after] - self._power_w[before]
        energy_j = self._energy_j[before] + f * step_s * (self._power_w[before] + f * slope_w / 2)
        path_var_j2 = self._path_var_j2[before] + f * (self._path_var_j2[after] - self._path_var_j2[before])
        return Reading(energy_j, self._boundary_j2(after, time_ns), path_var_j2, self._epochs[before])

    def _boundary_j2(self, place: int, time_ns: int) -> float:
        """Variance of the energy up to a moment, next before this point, for what lies on the wrong side of it."""
        if self._time_ns[place : place + 2] == [time_ns, time_ns]:
            return ((self._power_w[place + 1] - self._power_w[place]) * SMEAR_S) ** 2
        period_s = median(self._periods_s)
        return self._spread_w(time_ns, max(period_s, NEARBY_S)) ** 2 * (period_s**2 / 12 + SMEAR_S**2)

    def _spread_w(self, time_ns: int, reach_s: float) -> float:
        """Largest difference among the points within ``reach_s`` of a moment."""
        reach_ns = round(reach_s * 1e9)
        low = bisect_left(self._time_ns, time_ns - reach_ns)
        nearby = self._power_w[low : bisect_right(self._time_ns, time_ns + reach_ns)]
        return max(nearby) - min(nearby) if nearby else 0.0
