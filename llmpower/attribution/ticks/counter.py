"""The energy counter, interpolated between the moments at which it moved.

What happened between two edges (:mod:`~llmpower.attribution.ticks.edges`) is known in total only. Where a cut (a span's
boundary) falls between them, the total is divided among the pieces by :mod:`~llmpower.attribution.ticks.division`, from
what the device drew in the ticks around.

What ticks have shown is remembered: it says what the pieces of later ones are expected to draw.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import hypot, sqrt
from statistics import fmean
from typing import NamedTuple

from msgspec.structs import replace

from llmpower.attribution.series import BUSY, IDLE, Nanoseconds, Reading, Regime, Told, Values
from llmpower.attribution.ticks.division import divide
from llmpower.attribution.ticks.edges import Edges
from llmpower.attribution.ticks.experience import Levels
from llmpower.attribution.ticks.habits import EXACT, Habits
from llmpower.attribution.ticks.steadiness import APART, Steadiness
from llmpower.attribution.ticks.tick import Around, Level, Piece, Shown

IDLE_MEMORY = 8
"""How many of the latest wholly idle ticks give the idle level."""

LEAST = 0.5
"""A device draws at least this much of what it drew in the least of those ticks, whatever runs on it."""

LEVELS = 3
"""How many whole ticks on either side give the level of what goes on there."""

VAGUE = 0.075
"""Relative deviation from which a level says little."""


class _Whole(NamedTuple):
    """A tick in which one thing ran; ``end_timing_w`` is what its last edge has in the uncertain timing."""

    start_ns: int
    end_ns: int
    regime: Regime
    shown: Shown
    end_timing_w: float


class _Asked(NamedTuple):
    """What :meth:`CounterSeries.readings` was asked."""

    cuts_ns: Sequence[int]
    regimes: Sequence[Regime]
    until_ns: int

    def regime(self, cut: int) -> Regime:
        """What runs before a cut."""
        return self.regimes[cut - 1] if 0 < cut <= len(self.regimes) else BUSY

    def until(self, cut: int) -> int | None:
        """Until when what runs before a cut goes on; ``None`` where nothing is known of it."""
        last = len(self.cuts_ns) - 1
        return None if cut > last else max(self.cuts_ns[cut], self.until_ns if cut == last else 0)


class CounterSeries:
    """Energy of one device by its counter.

    Args:
        max_age_s: how old a freshly read value can be at most, where that is known.
        habits: how the counter takes power to have come.
    """

    def __init__(self, max_age_s: float | None = None, habits: Habits = EXACT) -> None:
        self._edges = Edges(max_age_s, habits.latch_s)
        self._lag_ns, self._timing_s = round(habits.lag_s * 1e9), habits.timing_s
        self._idle: list[Shown] = []  # the latest wholly idle ticks
        self._whole: list[_Whole] = []  # the latest ticks without a break in which one thing ran
        self._levels = Levels()
        self._steadiness = {True: Steadiness(white=True), False: Steadiness()}  # of idle time, and of work

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
        """Mean power of the latest wholly idle ticks."""
        return fmean(each.power_w for each in self._idle) if self._idle else None

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Find the edges among new reads; ``value`` in joules, shapes (n,)."""
        self._edges.extend(before_ns - self._lag_ns, after_ns - self._lag_ns, value)

    def break_epoch(self) -> None:
        """The next edge has no connection to the latest one."""
        self._edges.break_epoch()

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest edge at or before ``time_ns``."""
        edge = self._edges.latest(time_ns)
        return self._edges.middle_ns[edge] if edge >= 0 else None

    def readings(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None = None
    ) -> list[Reading | None]:
        """Energy up to each cut: at an edge the counter's own value, between edges the tick's total divided."""
        asked = _Asked(cuts_ns, regimes, until_ns or 0)
        found: list[Reading | None] = []
        while len(found) < len(cuts_ns):
            tick = self._edges.latest(cuts_ns[len(found)])
            last = len(found)
            while last + 1 < len(cuts_ns) and self._edges.latest(cuts_ns[last + 1]) == tick:
                last += 1
            found += self._within(tick, asked, len(found), last + 1)
        self._learn(cuts_ns, regimes)
        return found

    def told(self, start_ns: int, end_ns: int) -> Told:
        """The edges inside the interval."""
        return self._edges.told(start_ns, end_ns)

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Edges inside the interval."""
        return len(self._edges.between(start_ns, end_ns))

    def forget(self, before_ns: int) -> None:
        """Drop edges older than ``before_ns``, all but three of them: the tick it lies in and the two before."""
        self._edges.forget(before_ns)

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
            around = Around(
                edges.power_w(tick - 1) if edges.is_tick(tick - 1) else None,
                edges.power_w(tick + 1) if edges.is_tick(tick + 1) else None,
                self._steadiness[False].flicker,
                self._steadiness[False].smoothness,
                self._steadiness[False].elsewhere,
                LEAST * min((each.power_w for each in self._idle), default=0.0),
            )
            pieces = self._pieces(tick, asked, first, end)
            division = divide(pieces, total_j, around)
            self._steadiness[False].judge(division)
            energies_j = [0.0, *(each.energy_j for each in division.used)]
            powers_w = [(energies_j[i + 1] - energies_j[i]) / piece.duration_s for i, piece in enumerate(pieces)]
            begun_ns, ending_ns = edges.reach_ns(tick)[1], edges.reach_ns(tick + 1)[0]
            for number, each in enumerate(division.used[:-1]):
                cut_ns, before_w, after_w = cuts_ns[first + number], powers_w[number], powers_w[number + 1]
                beyond_j2 = ((before_w - after_w) * self._timing_s) ** 2
                if cut_ns < begun_ns:
                    beyond_j2 += edges.beyond_j2(tick, cut_ns, (around.before_w, after_w))
                if cut_ns > ending_ns:
                    beyond_j2 += edges.beyond_j2(tick + 1, cut_ns, (around.after_w, before_w))
                energy_j = start_j + each.energy_j
                found.append(Reading(energy_j, beyond_j2, 0.0, epoch, start_ns, each.before_j2, each.within_j2))
        return found

    def _pieces(self, tick: int, asked: _Asked, first: int, end: int) -> list[Piece]:
        """The tick cut at cuts ``first`` to ``end``, each piece with what is known of its power beforehand."""
        edges = self._edges
        bounds_ns = [edges.middle_ns[tick], *asked.cuts_ns[first:end], edges.middle_ns[tick + 1]]
        mixed = len(set(asked.regimes[max(first - 1, 0) : end])) > 1
        flat = None if mixed else self._flat(tick, asked.regime(first))
        pieces = []
        last = len(bounds_ns) - 2
        for number in range(last + 1):
            cut = first + number  # the piece ends at this cut and began at the one before
            regime = asked.regime(cut)
            duration_s = (bounds_ns[number + 1] - bounds_ns[number]) / 1e9
            if 0 < number < last and regime != IDLE:
                # No tick beside it says anything about it; of such there are a hundred to a tick at thousands of spans
                # a second.
                pieces.append(Piece(duration_s, regime, self._levels.get(regime) if mixed else flat))
                continue
            near: list[Shown] = []
            width_ns = 0
            if number == 0:
                near = edges.near(range(tick - 1, tick - 1 - LEVELS, -1), self._since_ns(asked, cut - 1))
                width_ns = edges.width_ns[tick]
            elif number == last:
                near = edges.near(range(tick + 1, tick + 1 + LEVELS), asked.until(cut))
                width_ns = edges.width_ns[tick + 1]
            if regime == IDLE and len(near) < LEVELS:
                near += self._idle
            pieces.append(Piece(duration_s, regime, self._level(near, tick, regime, mixed, flat), width_ns / 1e9))
        if not mixed:
            self._go_on(tick, asked.regime(first), pieces)
        return pieces

    def _go_on(self, tick: int, regime: Regime, pieces: list[Piece]) -> None:
        """Give open ends of a tick the level of the ticks beside it, into which their work reaches.

        Both or none: of one alone, what is open at the other end would take up all that does not fit.
        """
        levels = [pieces[end].level or self._beside(tick + by, regime) for end, by in ((0, -1), (-1, 1))]
        if all(levels):
            pieces[0], pieces[-1] = (replace(pieces[end], level=levels[end]) for end in (0, -1))

    def _beside(self, tick: int, regime: Regime) -> Level | None:
        """What a tick drew of which a part is asked about; ``None`` where it may hold a step."""
        if not self._edges.is_tick(tick) or (flat := self._flat(tick, regime)) is None:
            return None
        return flat._replace(std_w=hypot(flat.flicker_w, self._edges.shown(tick).timing_w))

    def _flat(self, tick: int, regime: Regime) -> Level | None:
        """The level of a tick in which one kind of work ran and power did not step."""
        before = self._edges.near(range(tick - 1, tick - 3, -1), None)
        after = self._edges.near(range(tick + 1, tick + 3), None)
        return self._steadiness[regime == IDLE].flat(before, self._edges.shown(tick), after)

    def _level(self, near: list[Shown], tick: int, regime: Regime, mixed: bool, flat: Level | None) -> Level | None:
        """What whole ticks beside a piece drew; where they tell little, what its regime draws by experience.

        In a tick of a single regime neither experience nor a vague level says what the tick's own total does not say
        better.
        """
        beside = self._steadiness[regime == IDLE].level(near, self._edges.shown(tick)) if near else None
        if not mixed:
            return beside if beside and beside.std_w < VAGUE * beside.power_w else flat
        usual = self._levels.get(regime)
        if beside is None or usual is None:
            return usual or beside
        apart = abs(beside.power_w - usual.power_w) > APART * hypot(usual.std_w, usual.flicker_w, beside.flicker_w)
        return beside if apart or beside.std_w <= hypot(usual.std_w, usual.flicker_w) else usual

    def _since_ns(self, asked: _Asked, cut: int) -> int | None:
        """Since when what runs behind a cut has been running; ``None`` where nothing is known of it.

        The first cut is where the asking began, and no boundary of work if the same ran in the ticks before it.
        """
        if cut < 0:
            return None
        whole, begin_ns = self._whole, asked.cuts_ns[0]
        if cut == 0 and whole and whole[-1].end_ns == begin_ns and whole[-1].regime == asked.regimes[0]:
            return whole[0].start_ns
        return asked.cuts_ns[cut]

    def _learn(self, cuts_ns: Sequence[int], regimes: Sequence[Regime]) -> None:
        """Take what ticks between the first cut and the last have shown."""
        edges = self._edges
        if not regimes:
            return
        piece = 0
        for tick in edges.between(cuts_ns[0], cuts_ns[-1])[:-1]:
            if not edges.is_tick(tick):
                continue
            start_ns, end_ns, shown = edges.middle_ns[tick], edges.middle_ns[tick + 1], edges.shown(tick)
            while cuts_ns[piece + 1] <= start_ns:
                piece += 1
            shares: defaultdict[Regime, float] = defaultdict(float)
            last = piece
            while last < len(regimes) and cuts_ns[last] < end_ns:
                overlap_ns = min(end_ns, cuts_ns[last + 1]) - max(start_ns, cuts_ns[last])
                shares[regimes[last]] += overlap_ns / (end_ns - start_ns)
                last += 1
            self._levels.learn(shares, shown.power_w, shown.timing_w, self._steadiness[False].smoothness)
            if len(shares) == 1:
                end_timing_w = shown.power_w * edges.width_ns[tick + 1] / sqrt(12) / (end_ns - start_ns)
                self._compare(_Whole(start_ns, end_ns, next(iter(shares)), shown, end_timing_w))

    def _compare(self, tick: _Whole) -> None:
        """Learn from a tick in which one thing ran, beside the ticks before it.

        While idle, power is compared with that of the last tick but one: neighbours share what flickers slowly, and
        err oppositely about the edge between them. Work steps too often for that.
        """
        last = self._whole[-1] if self._whole else None
        if last is None or last.end_ns != tick.start_ns or last.regime != tick.regime:
            self._whole = []
        self._whole = [*self._whole[-2:], tick]
        idle = tick.regime == IDLE
        if idle:
            self._idle = [*self._idle[1 - IDLE_MEMORY :], tick.shown]
        back = 2 if idle else 1
        if len(self._whole) > back:
            earlier = self._whole[-1 - back]
            # The edge between neighbours makes one longer and the other shorter: it counts twice, squared.
            shared_w2 = 0.0 if idle else 2 * earlier.end_timing_w**2
            timing_w2 = earlier.shown.timing_w**2 + tick.shown.timing_w**2 + shared_w2
            self._steadiness[idle].learn(earlier.shown, tick.shown, timing_w2)
