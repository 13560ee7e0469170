"""The energy counter, interpolated between the moments at which it moved.

A counter that is updated every 100 ms says nothing about the time of an update except that it lies between the last
read that still showed the old value and the first that showed the new one. Such an *edge* is an interval, from the
old read's ``before`` to the new read's ``after``; its midpoint stands for it and its width becomes uncertainty.

Between two edges at m₀ and m₁ = m₀ + Δ with energies E₀ and E₁, and f = (t − m₀)/Δ:

    E(t)   = E₀ + f·(E₁ − E₀)
    var(t) = ((1 − f)·P·w₀)²/12 + (f·P·w₁)²/12 + (D·Δ·f·(1 − f))²

P is the mean power between the edges, w the widths of the edges (uniform, hence the 12), and D the largest difference
of mean power among this interval and its two neighbours. The last term is the error of the straight line if the
power steps by D at t itself, which is what happens where a span begins or ends: D·Δ·f·(1 − f).

A counter that goes back has been reset (the driver was reloaded, the card was replaced): a new epoch begins.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from llmpower.attribution.series import Nanoseconds, Reading, Values


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
        # One entry an edge.
        self._middle_ns: list[int] = []
        self._width_ns: list[int] = []
        self._energy_j: list[float] = []
        self._epochs: list[int] = []

    @property
    def known_until_ns(self) -> int | None:
        """The latest edge."""
        return self._middle_ns[-1] if self._middle_ns else None

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

    def energy_at(self, time_ns: int) -> Reading | None:
        """Energy up to ``time_ns`` by the formula above; ``None`` outside the edges and across epochs."""
        after = bisect_right(self._middle_ns, time_ns)
        if after == len(self._middle_ns) and after > 1 and time_ns == self._middle_ns[-1]:
            after -= 1  # the latest edge itself: the end of the interval before it
        before = after - 1
        if before < 0 or after == len(self._middle_ns) or self._epochs[before] != self._epochs[after]:
            return None
        delta_ns = self._middle_ns[after] - self._middle_ns[before]
        f = (time_ns - self._middle_ns[before]) / delta_ns
        e0, e1 = self._energy_j[before], self._energy_j[after]
        delta_s = delta_ns / 1e9
        p = (e1 - e0) / delta_s
        d = self._power_spread_w(before)
        w0, w1 = self._width_ns[before] / 1e9, self._width_ns[after] / 1e9
        var_j2 = ((1 - f) * p * w0) ** 2 / 12 + (f * p * w1) ** 2 / 12 + (d * delta_s * f * (1 - f)) ** 2
        return Reading(e0 + f * (e1 - e0), var_j2, 0.0, self._epochs[before])

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Edges inside the interval."""
        return bisect_right(self._middle_ns, end_ns) - bisect_left(self._middle_ns, start_ns)

    def forget(self, before_ns: int) -> None:
        """Drop edges older than ``before_ns``, all but two of them: the interval it lies in and its neighbour."""
        count = bisect_left(self._middle_ns, before_ns) - 2
        if count > 0:
            for entries in (self._middle_ns, self._width_ns, self._energy_j, self._epochs):
                del entries[:count]

    def _power_spread_w(self, before: int) -> float:
        """Largest difference of mean power among the interval that begins at edge ``before`` and its neighbours."""
        powers_w = []
        for k in (before - 1, before, before + 1):
            if k >= 0 and k + 1 < len(self._middle_ns) and self._epochs[k] == self._epochs[k + 1]:
                duration_s = (self._middle_ns[k + 1] - self._middle_ns[k]) / 1e9
                powers_w.append((self._energy_j[k + 1] - self._energy_j[k]) / duration_s)
        return max(powers_w) - min(powers_w)
