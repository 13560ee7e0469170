"""The energy counter, interpolated between the moments at which it moved.

What happened between two edges (:mod:`~llmpower.attribution.ticks.edges`) is known in total only. Where a cut (a span's
boundary) falls between them, the total is divided among the pieces by :mod:`~llmpower.attribution.ticks.division`, from
what the device drew in other ticks (:mod:`~llmpower.attribution.ticks.memory`), or, where a tick is long, from what its
power sensor showed within it (:mod:`~llmpower.attribution.ticks.sensed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from msgspec.structs import replace

from llmpower.attribution.series import BUSY, IDLE, Nanoseconds, Reading, Regime, Told, Values
from llmpower.attribution.ticks.division import divide
from llmpower.attribution.ticks.edges import Edges
from llmpower.attribution.ticks.habits import EXACT, Habits
from llmpower.attribution.ticks.memory import Memory
from llmpower.attribution.ticks.sensed import Sensed, Tick
from llmpower.attribution.ticks.tick import Piece, Shown

LEVELS = 3
"""How many whole ticks on either side give the level of what goes on there."""

LONG_S = 0.15
"""Slowly read ticks that last longer have lost an update at least: the power sensor may tell how they are divided."""

MOST_CUTS_HZ = 200
"""Where work changes more often, a sensor that is updated ten times a second tells little, and costs much."""


class _Asked(NamedTuple):
    """What :meth:`CounterSeries.readings` was asked."""

    cuts_ns: Sequence[int]
    regimes: Sequence[Regime]
    until_ns: int

    def regime(self, cut: int) -> Regime:
        """What runs before a cut."""
        return self.regimes[cut - 1] if 0 < cut <= len(self.regimes) else BUSY

    def since(self, cut: int) -> int | None:
        """Since when what runs before a cut has been running; ``None`` where nothing is known of it."""
        return self.cuts_ns[cut - 1] if cut > 0 else None

    def until(self, cut: int) -> int | None:
        """Until when what runs before a cut goes on; ``None`` where nothing is known of it."""
        last = len(self.cuts_ns) - 1
        return None if cut > last else max(self.cuts_ns[cut], self.until_ns if cut == last else 0)


class CounterSeries:
    """Energy of one device by its counter.

    Args:
        max_age_s: how old a freshly read value can be at most, where that is known.
        habits: how the counter takes power to have come.
        sensed: what the device's power sensor shows, where it has one.
    """

    def __init__(self, max_age_s: float | None = None, habits: Habits = EXACT, sensed: Sensed | None = None) -> None:
        self._edges = Edges(max_age_s, habits.latch_s)
        self._lag_ns, self._timing_s = round(habits.lag_s * 1e9), habits.timing_s
        self._memory = Memory(self._edges)
        self._sensed = sensed

    @property
    def known_since_ns(self) -> int | None:
        """The earliest edge kept."""
        return self._edges.middle_ns[0] if self._edges.middle_ns else None

    @property
    def known_until_ns(self) -> int | None:
        """The latest edge."""
        return self._edges.middle_ns[-1] if self._edges.middle_ns else None

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest wholly idle ticks, and of idle time that was seen within others."""
        return self._memory.idle_w

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Find the edges among new reads; ``value`` in joules, shapes (n,)."""
        self._edges.extend(before_ns - self._lag_ns, after_ns - self._lag_ns, value)
        if self._sensed:
            self._sensed.wanted = self._edges.are_slow

    def expect(self, stall_ns: float) -> None:
        """Ticks to come last no longer than this, or nobody has read the counter meanwhile."""
        self._edges.stall_ns = stall_ns

    def break_epoch(self) -> None:
        """The next edge has no connection to the latest one."""
        self._edges.break_epoch()

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest edge at or before ``time_ns``, and where reads are slow, up to which power is known too."""
        edges = self._edges
        if self._sensed and edges.are_slow and edges.middle_ns:
            time_ns = self._sensed.floor_ns(time_ns, edges.middle_ns[-1])
        edge = edges.latest(time_ns)
        return edges.middle_ns[edge] if edge >= 0 else None

    def readings(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None = None
    ) -> list[Reading | None]:
        """Energy up to each cut: at an edge the counter's own value, between edges the tick's total divided."""
        asked = _Asked(cuts_ns, regimes, until_ns or 0)
        if self._sensed and self._edges.are_slow:
            self._look(self._sensed, asked)
        found: list[Reading | None] = []
        while len(found) < len(cuts_ns):
            tick = self._edges.latest(cuts_ns[len(found)])
            last = len(found)
            while last + 1 < len(cuts_ns) and self._edges.latest(cuts_ns[last + 1]) == tick:
                last += 1
            found += self._within(tick, asked, len(found), last + 1)
        self._memory.learn(cuts_ns, regimes)
        return found

    def borders(self, start_ns: int, end_ns: int) -> list[int]:
        """The first and the last edge of each epoch and on either side of unseen time, of those inside the interval."""
        return self._edges.borders(start_ns, end_ns)

    def told(self, start_ns: int, end_ns: int) -> Told:
        """The edges inside the interval."""
        return self._edges.told(start_ns, end_ns)

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Edges inside the interval."""
        return len(self._edges.between(start_ns, end_ns))

    def forget(self, before_ns: int) -> None:
        """Drop edges older than ``before_ns``, all but three of them: the tick it lies in and the two before."""
        self._edges.forget(before_ns)
        if self._sensed:
            self._sensed.forget(before_ns)

    def _is_long(self, tick: int) -> bool:
        """Whether a tick is to be divided by what the power sensor showed in it."""
        edges = self._edges
        is_slow = edges.are_slow and edges.is_tick(tick)
        return is_slow and edges.middle_ns[tick + 1] - edges.middle_ns[tick] > LONG_S * 1e9

    def _look(self, sensed: Sensed, asked: _Asked) -> None:
        """See what power did in the long ticks that cuts divide, as far as they lie between the first and the last."""
        middle_ns, cuts_ns = self._edges.middle_ns, asked.cuts_ns
        ends_ns: list[int] = []
        for tick, cut_ns in {self._edges.latest(cut_ns): cut_ns for cut_ns in cuts_ns}.items():
            if self._is_long(tick) and cuts_ns[0] <= middle_ns[tick] < cut_ns and middle_ns[tick + 1] <= cuts_ns[-1]:
                ends_ns += middle_ns[tick : tick + 2]
        if ends_ns and len(cuts_ns) <= MOST_CUTS_HZ * (cuts_ns[-1] - cuts_ns[0]) / 1e9:
            sensed.look(cuts_ns, asked.regimes, asked.until_ns, ends_ns)

    def _within(self, tick: int, asked: _Asked, first: int, end: int) -> list[Reading | None]:
        """Readings of the cuts ``first`` to ``end``, which all lie in the tick that begins at edge ``tick``."""
        edges = self._edges
        cuts_ns = asked.cuts_ns
        if tick < 0:
            return [None] * (end - first)
        start_ns, start_j, epoch = edges.middle_ns[tick], edges.energy_j[tick], edges.epochs[tick]
        found: list[Reading | None] = []
        while first < end and cuts_ns[first] == start_ns:
            found.append(Reading(start_j, self._edges.var_j2(tick), 0.0, epoch))
            first += 1
        if not edges.is_tick(tick):
            return [*found, *([None] * (end - first))]
        if first < end:
            total_j = edges.energy_j[tick + 1] - start_j
            around = self._memory.around(tick)
            bounds_ns = [start_ns, *cuts_ns[first:end], edges.middle_ns[tick + 1]]
            pieces = self._pieces(tick, asked, first, bounds_ns)
            look = None
            if self._sensed and self._is_long(tick):
                std_j = sqrt(edges.var_j2(tick) + edges.var_j2(tick + 1))
                whole = Tick((bounds_ns[-1] - start_ns) / 1e9, total_j, std_j, around.smoothness)
                look = self._sensed.within(whole, bounds_ns, pieces)
            if look:
                division = divide(look.pieces, total_j, around._replace(elsewhere=0.0))
                self._memory.see(look)
            elif edges.is_unseen(tick):
                # Whatever ran in it, and much may have, there is nothing to divide so much by.
                return [*found, *([None] * (end - first))]
            else:
                division = divide(pieces, total_j, around)
                self._memory.judge(division)
            energies_j = [0.0, *(each.energy_j for each in division.used)]
            powers_w = [(energies_j[i + 1] - energies_j[i]) / piece.duration_s for i, piece in enumerate(pieces)]
            begun_ns, ending_ns = edges.reach_ns(tick)[1], edges.reach_ns(tick + 1)[0]
            for number, each in enumerate(division.used[:-1]):
                cut_ns, before_w, after_w = cuts_ns[first + number], powers_w[number], powers_w[number + 1]
                beyond_j2 = ((before_w - after_w) * self._timing_s) ** 2 + (look.cuts_j2[number] if look else 0.0)
                if cut_ns < begun_ns:
                    beyond_j2 += edges.beyond_j2(tick, cut_ns, (around.before_w, after_w))
                if cut_ns > ending_ns:
                    beyond_j2 += edges.beyond_j2(tick + 1, cut_ns, (around.after_w, before_w))
                energy_j = start_j + each.energy_j
                found.append(Reading(energy_j, beyond_j2, 0.0, epoch, start_ns, each.before_j2, each.within_j2))
        return found

    def _pieces(self, tick: int, asked: _Asked, first: int, bounds_ns: Sequence[int]) -> list[Piece]:
        """The tick cut at ``bounds_ns``, from cut ``first`` on, each piece with what is known of its power."""
        edges, last = self._edges, len(bounds_ns) - 2
        mixed = len(set(asked.regimes[max(first - 1, 0) : first + last])) > 1
        flat = None if mixed else self._memory.flat(tick, asked.regime(first))
        pieces = []
        for number in range(last + 1):
            cut = first + number  # the piece ends at this cut and began at the one before
            regime = asked.regime(cut)
            duration_s = (bounds_ns[number + 1] - bounds_ns[number]) / 1e9
            if 0 < number < last and regime != IDLE:
                # No tick beside it says anything about it; of such there are a hundred to a tick at thousands of spans
                # a second.
                pieces.append(Piece(duration_s, regime, self._memory.usual(regime) if mixed else flat))
                continue
            near: list[Shown] = []
            width_ns = 0
            if number == 0:
                since_ns = asked.since(cut)
                if cut == 1:  # where the asking began is no boundary of work if the same ran before
                    since_ns = self._memory.since_ns(asked.cuts_ns[0], regime)
                near = edges.near(range(tick - 1, tick - 1 - LEVELS, -1), since_ns)
                width_ns = edges.width_ns[tick]
            elif number == last:
                near = edges.near(range(tick + 1, tick + 1 + LEVELS), asked.until(cut))
                width_ns = edges.width_ns[tick + 1]
            if regime == IDLE and len(near) < LEVELS:
                near += self._memory.idle
            pieces.append(
                Piece(duration_s, regime, self._memory.level(near, tick, regime, mixed, flat), width_ns / 1e9)
            )
        if not mixed:
            self._go_on(tick, asked.regime(first), pieces)
        return pieces

    def _go_on(self, tick: int, regime: Regime, pieces: list[Piece]) -> None:
        """Give open ends of a tick the level of the ticks beside it, into which their work reaches.

        Both or none: of one alone, what is open at the other end would take up all that does not fit.
        """
        levels = [pieces[end].level or self._memory.beside(tick + by, regime) for end, by in ((0, -1), (-1, 1))]
        if all(levels):
            pieces[0], pieces[-1] = (replace(pieces[end], level=levels[end]) for end in (0, -1))
