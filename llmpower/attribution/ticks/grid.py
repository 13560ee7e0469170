"""The grid on which an energy counter moves, so that any read of it gives the energy at a known moment.

An H100's counter moved every 100.0014 ms, each time within 0.1 ms of a straight line, while one read of it took 2.4 to
17 ms (driver 580.159): within an acceptable share of time an edge is seen closely only now and then. Each of the latest
edges is known to lie between l_k and h_k, jitter included, so that of the line a + p·k

    max over i < j of (l_j − h_i)/(j − i)  ≤  p  ≤  min over i < j of (h_j − l_i)/(j − i)
    max over k of (l_k − p·k)  ≤  a  ≤  min over k of (h_k − p·k)

of which the middles are taken, a at the latest edge from what the least and the greatest p leave of it; half of the
distances are how far it may be off. A read between two moments of the
line, too far from both to be mistaken, shows the energy at the earlier one, however long before it the read before was
made.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from statistics import median
from typing import NamedTuple

import numpy as np

MEMORY = 32
"""How many of the latest edges define the line."""

FEWEST = 8
"""Edges in a row that define the period at first."""

NARROW = 0.3
"""Of the period: edges narrower than this define the line, and a moment less certain than this has no number."""

BESIDE = 0.05
"""Of the period: edges that pass a line by more than this lie on none."""

JITTER_S = 0.002
"""How far from the line a counter may move: among edges that are wider its jitter does not show."""

SURE = 3.0
"""Standard deviations that a read must be away from the moments before and after it."""

LEAST_DRIFT = 1e-5
"""Of the period: it is not believed to be known better, since clocks drift."""


class _Line(NamedTuple):
    """Moments are numbered from that of the latest edge, 0, which is known to within ``room_ns``."""

    start_ns: float
    period_ns: float
    room_ns: float
    period_off_ns: float

    def moment_ns(self, number: int) -> float:
        """When the counter moves for the time so numbered."""
        return self.start_ns + self.period_ns * number

    def number(self, time_ns: float) -> int:
        """Of the latest moment at or before this time."""
        return int((time_ns - self.start_ns) // self.period_ns)

    def std_ns(self, number: int) -> float:
        """Of that moment: lines that pass the edges lie within the room, and diverge beyond the latest."""
        return (self.room_ns + self.period_off_ns * max(number, 0)) / sqrt(3)


class Grid:
    """The line that one counter's latest edges lie on, if they do."""

    def __init__(self) -> None:
        self._edges: deque[tuple[int, int, int]] = deque(maxlen=MEMORY)  # lowest and highest moment, and its number
        self._period_ns = self._period_off_ns = 0.0
        self._line: _Line | None = None
        self._fitted = True
        self.latest_period_ns = 0.0
        """Of the latest line there was, also when it no longer holds; 0 before the first."""

    @property
    def period_ns(self) -> float | None:
        """From one moment to the next; ``None`` while there is no line."""
        line = self._latest()
        return line.period_ns if line else None

    def forget(self) -> None:
        """The counter starts over, maybe at other moments."""
        self._edges.clear()
        self._period_ns, self._line, self._fitted = 0.0, None, True

    def learn(self, low_ns: int, high_ns: int) -> None:
        """Take an edge that was seen to lie between these moments."""
        if self._period_ns and high_ns - low_ns > NARROW * self._period_ns:
            return
        middle_ns = (low_ns + high_ns) / 2
        number = 0
        if line := self._latest():
            passed = round((middle_ns - line.start_ns) / line.period_ns)
            if line.std_ns(passed) > NARROW * line.period_ns:
                self._edges.clear()  # how often the counter has moved since is no longer sure
            elif passed < 1:
                return  # it moved off its grid: two edges at one moment say nothing of the line
            else:
                number = self._edges[-1][2] + passed
        self._edges.append((low_ns, high_ns, number))
        self._fitted = False

    def place(self, low_ns: int, before_ns: int, high_ns: int) -> tuple[int, int] | None:
        """When the counter got the value that a read between ``before_ns`` and ``high_ns`` showed.

        Args:
            low_ns: when the read before it, which showed less, began.
            before_ns: when this read began.
            high_ns: when it ended.

        Returns:
            The first and the last moment that it may be; ``None`` where no line is known, or where the reads are too
            close to its moments to say which it was.
        """
        line = self._latest()
        if line is None:
            return None
        number = line.number(before_ns)
        sure_ns = SURE * line.std_ns(number)
        if high_ns - low_ns < line.period_ns / 2:
            # Seen closely: it is the moment nearest to the middle, and lies where both say.
            moment_ns = line.moment_ns(round(((low_ns + high_ns) / 2 - line.start_ns) / line.period_ns))
        else:
            moment_ns = line.moment_ns(number)
            if moment_ns > before_ns - sure_ns or line.moment_ns(number + 1) < high_ns + sure_ns:
                return None
        reach_ns = line.std_ns(number) * sqrt(3)  # of an even distribution
        first_ns, last_ns = max(low_ns, moment_ns - reach_ns), min(high_ns, moment_ns + reach_ns)
        return (round(first_ns), round(last_ns)) if first_ns < last_ns else None

    def _latest(self) -> _Line | None:
        if not self._fitted:
            self._fitted = True
            self._line = self._fit()
        return self._line

    def _fit(self) -> _Line | None:
        low_ns, high_ns, numbers = np.array(self._edges, np.float64).T
        origin_ns = float(low_ns[-1])
        low_ns, high_ns = low_ns - origin_ns - JITTER_S * 1e9, high_ns - origin_ns + JITTER_S * 1e9
        least_ns, most_ns = self._period_ns - self._period_off_ns, self._period_ns + self._period_off_ns
        if not self._period_ns:
            if len(numbers) < FEWEST:
                return None
            distances_ns = np.diff(low_ns + high_ns) / 2
            typical_ns = median(distances_ns.tolist())  # NumPy's own would load masked arrays
            numbers = np.concatenate(([0], np.cumsum(np.maximum(np.round(distances_ns / typical_ns), 1))))
            for index, number in enumerate(numbers.tolist()):
                self._edges[index] = (*self._edges[index][:2], int(number))
            least_ns, most_ns = 0.0, np.inf
        # A line that passes both of two edges is no steeper and no flatter than those through their far ends.
        first, second = np.triu_indices(len(numbers), 1)
        apart = numbers[second] - numbers[first]
        least_ns = max(least_ns, ((low_ns[second] - high_ns[first]) / apart).max(initial=0.0))
        most_ns = min(most_ns, ((high_ns[second] - low_ns[first]) / apart).min(initial=np.inf))
        period_ns = float(least_ns + most_ns) / 2
        before = numbers[-1] - numbers
        if (low_ns + period_ns * before).max() - (high_ns + period_ns * before).min() > BESIDE * period_ns:
            self.forget()
            return None
        # The flattest line is the earliest at the latest edge, the steepest the latest.
        first_ns, last_ns = float((low_ns + least_ns * before).max()), float((high_ns + most_ns * before).min())
        self._period_ns = self.latest_period_ns = period_ns
        self._period_off_ns = max(abs(float(most_ns - least_ns)) / 2, LEAST_DRIFT * period_ns)
        return _Line(origin_ns + (first_ns + last_ns) / 2, period_ns, abs(last_ns - first_ns) / 2, self._period_off_ns)
