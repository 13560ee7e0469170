"""Energy by integrating power, for devices that have no counter.

A power sensor is updated every T, shows the mean of a window W before the update, and follows the power with a lag τ.
Its reading at an update u therefore speaks of the moment u − LAG, LAG = W/2 + τ, and is held from then on; integrating
the held value instead would put every joule T/2 too late once more. So the series has a point at each update, shifted
back by LAG, and the trapezoid runs over these points. A reading that stays the same may have been updated unseen: it
counts as confirmed one period before the moment it was read, or before it changed.

What is unsure: between two points that differ by ΔW the step may lie anywhere, (ΔW·T)²/12, which gathers along the
way; and at a moment where points nearby differ by D, that very step, D²·(T²/12 + SMEAR²): the lag spreads a step over
some 0.1 s, and what it moves across a span's boundary is lost to the span.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from statistics import median

import numpy as np

from llmpower.attribution.series import IDLE, Nanoseconds, Reading, Regime, Values

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

GAP_S = 1.0
"""Reads further apart than this leave a hole that no trapezoid bridges: a new epoch begins."""


class PowerSeries:
    """Power readings of one device and their running integral."""

    def __init__(self) -> None:
        self._epoch = 0
        self._broken = False
        self._idle_w: float | None = None
        self._read: tuple[int, float] | None = None  # when and what was read last
        self._changed_ns: int | None = None
        self._periods_s: deque[float] = deque([UPDATE_S], maxlen=31)
        # One entry a point.
        self._time_ns: list[int] = []
        self._power_w: list[float] = []
        self._energy_j: list[float] = []
        self._path_var_j2: list[float] = []
        self._epochs: list[int] = []

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
        found = [self._reading(cut_ns) for cut_ns in cuts_ns]
        for number, regime in enumerate(regimes):
            start, end = found[number], found[number + 1]
            duration_s = (cuts_ns[number + 1] - cuts_ns[number]) / 1e9
            if regime == IDLE and start and end and start.epoch == end.epoch and duration_s >= IDLE_S:
                self._idle_w = (end.energy_j - start.energy_j) / duration_s
        return found

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Changes of the reading inside the interval; a power that does not move shows none."""
        inside = self._power_w[bisect_left(self._time_ns, start_ns) : bisect_right(self._time_ns, end_ns)]
        return int(np.count_nonzero(np.diff(inside)))

    def forget(self, before_ns: int) -> None:
        """Drop points older than ``before_ns``, all but the latest two of them."""
        count = bisect_left(self._time_ns, before_ns) - 2
        if count > 0:
            for entries in (self._time_ns, self._power_w, self._energy_j, self._path_var_j2, self._epochs):
                del entries[:count]

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
        self._read = (time_ns, power_w)

    def _shown_ns(self) -> int:
        """When the latest point was shown, which is LAG after the moment that it speaks of."""
        return self._time_ns[-1] + round(LAG_S * 1e9)

    def _add(self, shown_ns: int, power_w: float) -> None:
        time_ns = shown_ns - round(LAG_S * 1e9)
        energy_j = path_var_j2 = 0.0
        if self._time_ns:
            step_s = (time_ns - self._time_ns[-1]) / 1e9
            energy_j = self._energy_j[-1] + step_s * (power_w + self._power_w[-1]) / 2
            path_var_j2 = self._path_var_j2[-1] + ((power_w - self._power_w[-1]) * step_s) ** 2 / 12
        self._time_ns.append(time_ns)
        self._power_w.append(power_w)
        self._energy_j.append(energy_j)
        self._path_var_j2.append(path_var_j2)
        self._epochs.append(self._epoch)

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
        period_s = median(self._periods_s)
        unsure_s2 = period_s**2 / 12 + SMEAR_S**2
        return Reading(
            energy_j,
            self._spread_w(time_ns, max(period_s, NEARBY_S)) ** 2 * unsure_s2,
            path_var_j2,
            self._epochs[before],
        )

    def _spread_w(self, time_ns: int, reach_s: float) -> float:
        """Largest difference among the points within ``reach_s`` of a moment."""
        reach_ns = round(reach_s * 1e9)
        low = bisect_left(self._time_ns, time_ns - reach_ns)
        nearby = self._power_w[low : bisect_right(self._time_ns, time_ns + reach_ns)]
        return max(nearby) - min(nearby) if nearby else 0.0
