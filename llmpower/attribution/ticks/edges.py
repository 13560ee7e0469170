"""The moments at which an energy counter moved, and the ticks between them.

A counter that is updated every 100 ms says nothing about the time of an update except that it lies between the last
read that still showed the old value and the first that showed the new one. Such an *edge* is an interval, from the old
read's ``before`` to the new read's ``after``; its midpoint stands for it and its width becomes uncertainty. Where reads
are slow, and so few, a line through the edges that were seen closely says more than each of them
(:mod:`~llmpower.attribution.ticks.grid`).

A counter that goes back has been reset (the driver was reloaded, the card was replaced): a new epoch begins.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from math import inf, sqrt
from statistics import median

import numpy as np

from llmpower.attribution.series import Nanoseconds, Told, Values, borders
from llmpower.attribution.ticks.grid import Grid
from llmpower.attribution.ticks.tick import Shown
from llmpower.types import SLOW_READ_NS

WIDTHS = 33
"""How many of the latest edges say how wide they usually are."""

WIDE = 4.0
"""An edge this many times as wide as edges usually are came when the sampler was held up."""

WIDE_SHARE = 0.1
"""Of a tick: an edge that is less wide is better than none, however sharp the others are."""

REMEMBERED = 16
"""Latest reads, about, whose mean says how long a read takes."""


class Edges:
    """Edges of one device's counter, in order; a *tick* is known by the number of the edge that it begins at.

    Args:
        max_age_s: how old a freshly read value can be at most, where that is known: RAPL refreshes every millisecond,
            so a value seen to change lies close before its read, however long ago the read before was.
        latch_s: how long after a read began its value can have come, where that is known to be less than the read.
    """

    def __init__(self, max_age_s: float | None = None, latch_s: float | None = None) -> None:
        self._latch_ns = None if latch_s is None else round(latch_s * 1e9)
        self._max_age_ns = None if max_age_s is None else round(max_age_s * 1e9)
        self._last: tuple[int, float] | None = None  # before_ns and value of the latest read
        self._epoch = 0
        self._widths_ns: deque[int] = deque(maxlen=WIDTHS)
        self._passed_over = False
        self._grid = Grid()
        self._call_ns = 0.0  # what a read takes
        self._unseen_ns: dict[int, int] = {}  # from which edge to which nobody has read it
        self.stall_ns = inf
        """How long a tick lasts at most while the counter is read."""
        # One entry an edge. Ten minutes of eight cards take 4 MB less in arrays than in lists.
        self.middle_ns = array("q")
        self.width_ns = array("q")
        self.energy_j = array("d")
        self.epochs = array("q")

    @property
    def are_slow(self) -> bool:
        """Whether reads take so long that few are made."""
        return self._call_ns > SLOW_READ_NS

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Find the edges among new reads; ``value`` in joules, shapes (n,)."""
        if len(value) == 0:
            return
        call_ns = float((after_ns - before_ns).mean())
        self._call_ns = call_ns + (self._call_ns - call_ns) * (1 - 1 / REMEMBERED) ** len(value)
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
        columns = (low_ns[edges], before_ns[new][edges], high_ns[edges], value[new][edges], epochs[edges])
        for edge in zip(*(column.tolist() for column in columns), strict=True):
            self._add(*edge)
        if len(epochs):
            self._epoch = int(epochs[-1])

    def _add(self, low_ns: int, before_ns: int, high_ns: int, energy_j: float, epoch: int) -> None:
        """Keep an edge, unless a moment so uncertain would tell less than the edges beside it tell without it."""
        if not self._is_connected(epoch):
            self._grid.forget()
        # Few reads, and edges as wide as they: only then is a line worth its doubts.
        if self.are_slow:
            if self._latch_ns is not None:
                high_ns = min(high_ns, before_ns + self._latch_ns)
            placed = self._grid.place(low_ns, before_ns, high_ns)
            self._grid.learn(low_ns, high_ns)
            low_ns, high_ns = placed or (low_ns, high_ns)
            if not placed and (period_ns := self._grid.latest_period_ns):
                low_ns = max(low_ns, before_ns - round(period_ns))  # whichever it was, it was the latest
        middle_ns, width_ns = (low_ns + high_ns) // 2, high_ns - low_ns
        usual_ns = median(self._widths_ns) if self._widths_ns else width_ns
        self._widths_ns.append(width_ns)
        # Where no period bounds them, two in a row are wide because reads are far apart: none beside them is better.
        wide = width_ns > WIDE * usual_ns and (bool(self._grid.latest_period_ns) or not self._passed_over)
        self._passed_over = False
        if wide and self._is_connected(epoch) and width_ns > WIDE_SHARE * (middle_ns - self.middle_ns[-1]):
            self._passed_over = True
            return
        if self._is_connected(epoch) and middle_ns - self.middle_ns[-1] > self.stall_ns:
            self._unseen_ns[self.middle_ns[-1]] = middle_ns
        self.middle_ns.append(middle_ns)
        self.width_ns.append(width_ns)
        self.energy_j.append(energy_j)
        self.epochs.append(epoch)

    def _is_connected(self, epoch: int) -> bool:
        """Whether the latest edge belongs to this epoch."""
        return bool(self.epochs) and self.epochs[-1] == epoch

    def break_epoch(self) -> None:
        """The next edge has no connection to the latest one."""
        self._epoch += 1
        self._last = None

    def latest(self, time_ns: int) -> int:
        """The number of the latest edge at or before ``time_ns``; -1 if there is none."""
        return bisect_right(self.middle_ns, time_ns) - 1

    def between(self, start_ns: int, end_ns: int) -> range:
        """The edges inside the interval."""
        return range(bisect_left(self.middle_ns, start_ns), bisect_right(self.middle_ns, end_ns))

    def borders(self, start_ns: int, end_ns: int) -> list[int]:
        """The first and the last edge of each epoch and on either side of unseen time, of those inside the interval."""
        beside_ns = [each for pair in self._unseen_ns.items() for each in pair if start_ns <= each <= end_ns]
        return [*borders(self.middle_ns, self.epochs, start_ns, end_ns), *beside_ns]

    def told(self, start_ns: int, end_ns: int) -> Told:
        """Moments and energies of the edges inside the interval."""
        inside = self.between(start_ns, end_ns)
        part = slice(inside.start, inside.stop)
        return Told(
            np.array(self.middle_ns[part], np.int64),
            np.array(self.energy_j[part], np.float64),
            np.array(self.epochs[part], np.int64),
        )

    def forget(self, before_ns: int) -> None:
        """Drop edges older than ``before_ns``, all but three of them: the tick it lies in and the two before."""
        count = bisect_left(self.middle_ns, before_ns) - 3
        if count > 0:
            for entries in (self.middle_ns, self.width_ns, self.energy_j, self.epochs):
                del entries[:count]
            self._unseen_ns = {begin: end for begin, end in self._unseen_ns.items() if begin >= self.middle_ns[0]}

    def is_tick(self, tick: int) -> bool:
        """Whether edges ``tick`` and ``tick + 1`` are there and belong together."""
        return 0 <= tick < len(self.middle_ns) - 1 and self.epochs[tick] == self.epochs[tick + 1]

    def is_unseen(self, tick: int) -> bool:
        """Whether the tick that begins at this edge lasted for so long that nobody can have read the counter in it."""
        return self.middle_ns[tick] in self._unseen_ns

    def power_w(self, tick: int) -> float:
        """Mean power of the tick that begins at this edge."""
        return (self.energy_j[tick + 1] - self.energy_j[tick]) / (
            (self.middle_ns[tick + 1] - self.middle_ns[tick]) / 1e9
        )

    def shown(self, tick: int) -> Shown:
        """The same with how far it is uncertain because the tick's edges are."""
        power_w = self.power_w(tick)
        first_ns, second_ns = self.width_ns[tick], self.width_ns[tick + 1]
        duration_ns = self.middle_ns[tick + 1] - self.middle_ns[tick]
        return Shown(power_w, power_w * sqrt((first_ns**2 + second_ns**2) / 12) / duration_ns, duration_ns / 1e9)

    def var_j2(self, edge: int) -> float:
        """(P·w)²/12: the edge lies anywhere within its width w, beside a tick of power P."""
        beside = next((tick for tick in (edge, edge - 1) if self.is_tick(tick)), None)
        return 0.0 if beside is None else (self.power_w(beside) * self.width_ns[edge] / 1e9) ** 2 / 12

    def reach_ns(self, edge: int) -> tuple[float, float]:
        """The first and the last moment at which the edge may lie."""
        middle_ns, half_ns = self.middle_ns[edge], self.width_ns[edge] / 2
        return middle_ns - half_ns, middle_ns + half_ns

    def beyond_j2(self, edge: int, cut_ns: int, powers_w: tuple[float | None, float]) -> float:
        """Variance of the energy up to a cut that may lie on the other side of an edge than it seems.

        The edge is anywhere within its width w, so beyond the cut, r from its middle, with E[(u − r)²; u > r] =
        (w/2 − r)³/3w; and there power differs from what it was taken for by the step from one side to the other.
        """
        width_s = self.width_ns[edge] / 1e9
        over_s = width_s / 2 - abs(cut_ns - self.middle_ns[edge]) / 1e9
        if over_s <= 0 or powers_w[0] is None:
            return 0.0
        return (powers_w[0] - powers_w[1]) ** 2 * over_s**3 / (3 * width_s)

    def near(self, ticks: range, limit_ns: int | None) -> list[Shown]:
        """The ticks next in line, as far as they lie wholly this side of ``limit_ns``."""
        near = []
        for tick in ticks:
            if not self.is_tick(tick):
                break
            far_ns = self.middle_ns[tick + (ticks.step > 0)]
            if limit_ns is not None and (far_ns - limit_ns) * ticks.step > 0:
                break
            near.append(self.shown(tick))
        return near
