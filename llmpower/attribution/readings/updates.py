"""When a power sensor was updated, found among reads of what it shows.

A sensor shows a reading until its next update, so a change shows when that was: between the read before and the
read that saw it. A reading that stays the same may have been updated unseen; it then counts as confirmed a period after
the update before it, as long as it is still shown. Or there was none: of an H100's readings under work one in a hundred
stayed for two periods. So a confirmation that what ran belies is taken back.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import deque
from math import sqrt
from statistics import median

from llmpower.attribution.series import Nanoseconds, Values

UPDATE_S = 0.1
"""How often a sensor is taken to be updated until its own updates say otherwise (20 to 101 ms)."""

MAX_UPDATE_S = 0.3
"""Changes further apart than this are no consecutive updates: the reading stayed the same in between."""

GAP_S = 1.0
"""Reads further apart than this leave a hole that nothing bridges: a new epoch begins."""


class Updates:
    """Updates of one device's power sensor, confirmed ones included: when each was ``shown_ns``, and what it showed."""

    def __init__(self) -> None:
        # Ten minutes of a card take 150 kB in arrays, and six times as much in lists.
        self.shown_ns = array("q")
        self.power_w = array("d")
        self.epochs = array("q")
        self.std_s = array("d")
        """Of each moment: it is anywhere between the read before and the one that saw it."""
        self.confirmed = array("b")
        """Which of them confirm the reading before."""
        self._columns = (self.shown_ns, self.power_w, self.epochs, self.std_s, self.confirmed)
        self.most_w = 0.0
        """The most that was ever shown."""
        self._changes_ns = array("q")
        self._periods_s: deque[float] = deque([UPDATE_S], maxlen=31)
        self._epoch = 0
        self._broken = False
        self._read: tuple[int, float] | None = None  # when and what was read last

    @property
    def period_s(self) -> float:
        """How often the sensor is updated."""
        return median(self._periods_s)

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Take new reads in; ``value`` in watts, shapes (n,)."""
        for time_ns, power_w in zip(((before_ns + after_ns) // 2).tolist(), value.tolist(), strict=True):
            self._take(time_ns, power_w)

    def break_epoch(self) -> None:
        """The next read has no connection to the latest one."""
        self._broken = True

    def between(self, start_ns: int, end_ns: int) -> slice:
        """Those that were shown in an interval, both ends included."""
        return slice(bisect_left(self.shown_ns, start_ns), bisect_right(self.shown_ns, end_ns))

    def changes(self, start_ns: int, end_ns: int) -> int:
        """How many of those in an interval changed the reading."""
        return bisect_right(self._changes_ns, end_ns) - bisect_left(self._changes_ns, start_ns)

    def stayed_once(self, number: int) -> bool:
        """Whether this one confirms the reading before, and neither that one nor the next one does so."""
        return self.confirmed[number - 1 : number + 2].tolist() == [False, True, False]

    def drop(self, number: int) -> None:
        """Take one of them back."""
        for column in self._columns:
            del column[number]

    def forget(self, before_ns: int) -> None:
        """Drop what is older, but for the two latest of them."""
        count = bisect_left(self.shown_ns, before_ns) - 2
        if count > 0:
            for column in self._columns:
                del column[:count]
        del self._changes_ns[: bisect_left(self._changes_ns, before_ns)]

    def _take(self, time_ns: int, power_w: float) -> None:
        """Find the updates that one read reveals: none, a confirmation of the reading before, a new reading, both."""
        if self._read is None or self._broken or time_ns - self._read[0] > GAP_S * 1e9:
            self._epoch += bool(self.shown_ns)
            self._broken = False
            self._add(time_ns, power_w, self.period_s)
        else:
            last_ns, last_w = self._read
            period_ns = round(self.period_s * 1e9)
            if power_w == last_w:
                self._confirm(time_ns - 2 * period_ns, period_ns, last_w)
            else:
                update_ns, between_s = (last_ns + time_ns) // 2, (time_ns - last_ns) / 1e9
                self._confirm(update_ns - 3 * period_ns, period_ns, last_w)
                if update_ns - self.shown_ns[-1] > 1.5 * period_ns:
                    self._add(update_ns - period_ns, last_w, between_s)
                self._add(update_ns, power_w, between_s)
                if self._changes_ns and update_ns - self._changes_ns[-1] < MAX_UPDATE_S * 1e9:
                    self._periods_s.append((update_ns - self._changes_ns[-1]) / 1e9)
                self._changes_ns.append(update_ns)
        self._read = (time_ns, power_w)

    def _confirm(self, until_ns: int, period_ns: int, power_w: float) -> None:
        """Count the updates since the latest one up to a moment, however many passed between two reads."""
        while self.shown_ns[-1] <= until_ns:
            self._add(self.shown_ns[-1] + period_ns, power_w, self.period_s)

    def _add(self, shown_ns: int, power_w: float, between_s: float) -> None:
        """Note an update, which came somewhere in a stretch of time around the moment."""
        self.most_w = max(self.most_w, power_w)
        self.confirmed.append(bool(self.power_w) and (power_w, self._epoch) == (self.power_w[-1], self.epochs[-1]))
        self.shown_ns.append(shown_ns)
        self.power_w.append(power_w)
        self.epochs.append(self._epoch)
        self.std_s.append(between_s / sqrt(12))
