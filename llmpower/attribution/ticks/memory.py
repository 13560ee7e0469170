"""What ticks of one device have shown, from which comes what the pieces of others are expected to draw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import hypot, sqrt
from statistics import fmean
from typing import NamedTuple

from llmpower.attribution.series import IDLE, Regime
from llmpower.attribution.ticks.division import Division
from llmpower.attribution.ticks.edges import Edges
from llmpower.attribution.ticks.experience import Levels
from llmpower.attribution.ticks.sensed import Look
from llmpower.attribution.ticks.steadiness import APART, Steadiness
from llmpower.attribution.ticks.tick import Around, Level, Shown

IDLE_MEMORY = 8
"""How many of the latest wholly idle ticks, or idle times within others, give the idle level."""

IDLE_S = 0.2
"""Idle time within a tick that is shorter tells nothing of the idle level."""

IDLE_STD = 0.01
"""Relative deviation of one idle tick from the next, about; what their edges leave open comes on top."""

LEAST = 0.5
"""A device draws at least this much of what it drew in the least of those ticks, whatever runs on it."""

VAGUE = 0.075
"""Relative deviation from which a level says little."""


class _Whole(NamedTuple):
    """A tick in which one thing ran; ``end_timing_w`` is what its last edge has in the uncertain timing."""

    start_ns: int
    end_ns: int
    regime: Regime
    shown: Shown
    end_timing_w: float


class Memory:
    """How steady idle time and work are, what each kind of work draws, and what the latest ticks showed.

    Args:
        edges: of the device.
    """

    def __init__(self, edges: Edges) -> None:
        self._edges = edges
        self._levels = Levels()
        self._steadiness = {True: Steadiness(white=True), False: Steadiness()}  # of idle time, and of work
        self._whole: list[_Whole] = []  # the latest ticks without a break in which one thing ran
        self.idle: list[Shown] = []
        """The latest wholly idle ticks, and idle times that were seen within others."""

    @property
    def idle_w(self) -> float | None:
        """Their energy over their time, the surer counting for more.

        A tick that is taken to be longer than it was seems to have drawn less, and to be surer: what it counts for
        must not depend on that, or the mean comes out too low.
        """
        if not self.idle:
            return None
        usual_s = fmean(each.duration_s for each in self.idle)
        edges_s = [each.duration_s * each.timing_w / max(each.power_w, 1e-9) for each in self.idle]
        counted_s = [
            each.duration_s / (edge_s**2 + (IDLE_STD * usual_s) ** 2)
            for each, edge_s in zip(self.idle, edges_s, strict=True)
        ]
        return fmean([each.power_w for each in self.idle], counted_s)

    def around(self, tick: int) -> Around:
        """What is known beside the pieces of a tick."""
        edges, work = self._edges, self._steadiness[False]
        return Around(
            edges.power_w(tick - 1) if edges.is_tick(tick - 1) else None,
            edges.power_w(tick + 1) if edges.is_tick(tick + 1) else None,
            work.flicker,
            work.smoothness,
            work.elsewhere,
            LEAST * min((each.power_w for each in self.idle), default=0.0),
        )

    def usual(self, regime: Regime) -> Level | None:
        """What a regime draws by experience."""
        return self._levels.get(regime)

    def beside(self, tick: int, regime: Regime) -> Level | None:
        """What a tick drew of which a part is asked about; ``None`` where it may hold a step."""
        if not self._edges.is_tick(tick) or (flat := self.flat(tick, regime)) is None:
            return None
        return flat._replace(std_w=hypot(flat.flicker_w, self._edges.shown(tick).timing_w))

    def flat(self, tick: int, regime: Regime) -> Level | None:
        """The level of a tick in which one kind of work ran and power did not step."""
        before = self._edges.near(range(tick - 1, tick - 3, -1), None)
        after = self._edges.near(range(tick + 1, tick + 3), None)
        return self._steadiness[regime == IDLE].flat(before, self._edges.shown(tick), after)

    def level(self, near: list[Shown], tick: int, regime: Regime, mixed: bool, flat: Level | None) -> Level | None:
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

    def since_ns(self, begin_ns: int, regime: Regime) -> int:
        """Since when what runs from ``begin_ns`` on has been running, by the ticks before it."""
        whole = self._whole
        goes_on = whole and whole[-1].end_ns == begin_ns and whole[-1].regime == regime
        return whole[0].start_ns if goes_on else begin_ns

    def judge(self, division: Division) -> None:
        """Take how well a tick's total was foretold."""
        self._steadiness[False].judge(division)

    def see(self, look: Look) -> None:
        """Take idle time that was seen within a tick."""
        for piece, seen in zip(look.pieces, look.seen, strict=True):
            if seen and piece.level and piece.regime == IDLE and piece.duration_s >= IDLE_S:
                self._remember_idle(Shown(piece.level.power_w, piece.level.std_w, piece.duration_s))

    def learn(self, cuts_ns: Sequence[int], regimes: Sequence[Regime]) -> None:
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
            self._remember_idle(tick.shown)
        back = 2 if idle else 1
        if len(self._whole) > back:
            earlier = self._whole[-1 - back]
            # The edge between neighbours makes one longer and the other shorter: it counts twice, squared.
            shared_w2 = 0.0 if idle else 2 * earlier.end_timing_w**2
            timing_w2 = earlier.shown.timing_w**2 + tick.shown.timing_w**2 + shared_w2
            self._steadiness[idle].learn(earlier.shown, tick.shown, timing_w2)

    def _remember_idle(self, shown: Shown) -> None:
        self.idle = [*self.idle[1 - IDLE_MEMORY :], shown]
