"""Energy by integrating power, for devices that have no counter.

The trapezoid over all reads, at the middle of each call. Two things are unsure. What the power did between two
updates of the sensor gathers along the way: each change by ΔW adds (ΔW·T)²/12, T the time since the change before
(at most :data:`UPDATE_S`). And the reading lags behind the power, by up to one update: at a moment where the readings
within one update differ by D, the energy is unsure by D·UPDATE_S.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from llmpower.attribution.series import Nanoseconds, Reading, Regime, Values

UPDATE_S = 0.1
"""How often power sensors of current cards are updated, about (arXiv 2312.02741: 20 to 101 ms)."""

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
        self._changed_ns = 0  # of the latest change of the reading
        # One entry a read.
        self._time_ns: list[int] = []
        self._power_w: list[float] = []
        self._energy_j: list[float] = []
        self._path_var_j2: list[float] = []
        self._epochs: list[int] = []

    @property
    def known_since_ns(self) -> int | None:
        """The earliest read kept."""
        return self._time_ns[0] if self._time_ns else None

    @property
    def known_until_ns(self) -> int | None:
        """The latest read."""
        return self._time_ns[-1] if self._time_ns else None

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest idle time of at least :data:`IDLE_S`."""
        return self._idle_w

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Integrate over new reads; ``value`` in watts, shapes (n,)."""
        for time_ns, power_w in zip(((before_ns + after_ns) // 2).tolist(), value.tolist(), strict=True):
            self._append(time_ns, power_w)

    def _append(self, time_ns: int, power_w: float) -> None:
        energy_j = path_var_j2 = 0.0
        if self._time_ns:
            step_s = (time_ns - self._time_ns[-1]) / 1e9
            change_w = power_w - self._power_w[-1]
            energy_j = self._energy_j[-1] + step_s * (power_w + self._power_w[-1]) / 2
            path_var_j2 = self._path_var_j2[-1]
            if change_w:
                since_s = min((time_ns - self._changed_ns) / 1e9, UPDATE_S)
                path_var_j2 += (change_w * since_s) ** 2 / 12
                self._changed_ns = time_ns
            if step_s > GAP_S or self._broken:
                self._epoch += 1
        self._broken = False
        self._time_ns.append(time_ns)
        self._power_w.append(power_w)
        self._energy_j.append(energy_j)
        self._path_var_j2.append(path_var_j2)
        self._epochs.append(self._epoch)

    def break_epoch(self) -> None:
        """The next read has no connection to the latest one."""
        self._broken = True

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest read at or before ``time_ns``."""
        after = bisect_right(self._time_ns, time_ns)
        return self._time_ns[after - 1] if after else None

    def readings(self, cuts_ns: Sequence[int], regimes: Sequence[Regime]) -> list[Reading | None]:
        """The integral up to each cut; ``None`` outside the reads and inside a hole."""
        found = [self._reading(cut_ns) for cut_ns in cuts_ns]
        for number, regime in enumerate(regimes):
            start, end = found[number], found[number + 1]
            duration_s = (cuts_ns[number + 1] - cuts_ns[number]) / 1e9
            if regime == "idle" and start and end and start.epoch == end.epoch and duration_s >= IDLE_S:
                self._idle_w = (end.energy_j - start.energy_j) / duration_s
        return found

    def _reading(self, time_ns: int) -> Reading | None:
        after = bisect_left(self._time_ns, time_ns)
        if after == len(self._time_ns) or (after == 0 and self._time_ns[0] != time_ns):
            return None
        before = max(after - 1, 0)
        if self._epochs[before] != self._epochs[after]:
            return None
        f = 0.0
        if after > before:
            f = (time_ns - self._time_ns[before]) / (self._time_ns[after] - self._time_ns[before])
        energy_j = self._energy_j[before] + f * (self._energy_j[after] - self._energy_j[before])
        path_var_j2 = self._path_var_j2[before] + f * (self._path_var_j2[after] - self._path_var_j2[before])
        boundary_var_j2 = (self._spread_w(time_ns) * UPDATE_S) ** 2
        return Reading(energy_j, boundary_var_j2, path_var_j2, self._epochs[before])

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Changes of the reading inside the interval; a power that does not move shows none."""
        inside = self._power_w[bisect_left(self._time_ns, start_ns) : bisect_right(self._time_ns, end_ns)]
        return int(np.count_nonzero(np.diff(inside)))

    def forget(self, before_ns: int) -> None:
        """Drop reads older than ``before_ns``, all but the latest two of them."""
        count = bisect_left(self._time_ns, before_ns) - 2
        if count > 0:
            for entries in (self._time_ns, self._power_w, self._energy_j, self._path_var_j2, self._epochs):
                del entries[:count]

    def _spread_w(self, time_ns: int) -> float:
        """Largest difference among the readings within one update of ``time_ns``."""
        reach_ns = round(UPDATE_S * 1e9)
        low = bisect_left(self._time_ns, time_ns - reach_ns)
        nearby = self._power_w[low : bisect_right(self._time_ns, time_ns + reach_ns)]
        return max(nearby) - min(nearby) if nearby else 0.0
