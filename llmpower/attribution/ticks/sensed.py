"""What the power sensor showed within long ticks.

Where reads of the counter are expensive, and so many devices share the time for them, a tick lasts for seconds and
holds several requests. Reads of power are cheap there. So the total of such a tick comes from the counter, and how it
lies in time from the power (:mod:`~llmpower.attribution.readings.power`).

Sensor and counter may differ by a gain, which is followed from tick to tick by a Kalman filter of one state,

    k ← k + P/(P + R)·(T/E − k),    R = var(E − T)/E²

with E what the sensor adds up to over a tick of total T. A sensor that differs by far more is not believed, and neither
is one that shows no change where work changed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from operator import itemgetter
from typing import NamedTuple

from msgspec.structs import replace

from llmpower.attribution.readings.power import PowerSeries
from llmpower.attribution.series import Nanoseconds, Reading, Regime, Values
from llmpower.attribution.ticks.tick import Level, Piece, prior_j2

VAGUE = 0.2
"""Relative deviation beyond which the sensor tells nothing of a piece."""

CONTRADICTS = 0.25
"""A sensor that differs from the counter by so much of it is not believed: no gain is so far off."""

GAIN_STD, GAIN_DRIFT = 0.02, 0.001
"""How far a gain may be from 1, and by how much it may change from one tick to the next."""

TELLING = 0.03
"""A tick by which a gain is known less well than this says nothing of it."""

BELIES = 5.0
"""A sight so many standard deviations off what is known of a piece says that something ran that nobody reported."""

LEAST_CHANGES_HZ = 2.0
"""A sensor that works changes its reading with every change of work, or at least so often where those are many."""

SILENT_NS = 1_000_000_000
"""A sensor that shows nothing for so long is not waited for."""

_start_ns, _end_ns = itemgetter(0), itemgetter(1)


class Tick(NamedTuple):
    """Of a tick its length, its energy and how uncertain that is because its edges are, and h, as in the division."""

    duration_s: float
    total_j: float
    std_j: float
    h: float


class Look(NamedTuple):
    """The pieces of one tick, most at the level that the power sensor saw, and what it leaves unsure about each cut.

    ``seen`` says which. ``cuts_j2`` is the variance of the energy up to each cut, beside that of the pieces.
    """

    pieces: list[Piece]
    seen: list[bool]
    cuts_j2: list[float]


class Sensed:
    """Power of one device, for the division of its long ticks."""

    def __init__(self) -> None:
        self._power = PowerSeries()
        self._readings: dict[int, Reading | None] = {}
        self._until_ns = 0  # of what was looked at last
        self._used: list[tuple[int, int]] = []  # ticks that were divided by it, in order
        self._gain, self._gain_var = 1.0, GAIN_STD**2
        self.wanted = False
        """Whether there may be long ticks: else reads are not kept."""

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Take reads of power in; ``value`` in watts, shapes (n,)."""
        if self.wanted and len(value):
            self._power.extend(before_ns, after_ns, value)

    def break_epoch(self) -> None:
        """What comes has no connection to what was."""
        self._power.break_epoch()

    def forget(self, before_ns: int) -> None:
        """Drop what is older than ``before_ns``."""
        self._power.forget(before_ns)
        del self._used[: bisect_left(self._used, before_ns, key=_end_ns)]

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Changes of the power within an interval, of those by which ticks were divided."""
        # Every request asks, mostly about the last of ten minutes of ticks.
        first = bisect_right(self._used, start_ns, key=_end_ns)
        last = bisect_left(self._used, end_ns, key=_start_ns)
        inside = self._used[first:last]
        return sum(self._power.ticks_between(max(start, start_ns), min(end, end_ns)) for start, end in inside)

    def floor_ns(self, time_ns: int, until_ns: int) -> int:
        """The latest moment at or before ``time_ns`` that the sensor has shown all of, if it shows anything.

        Args:
            time_ns: asked for.
            until_ns: until when the counter is known.
        """
        known_ns = self._power.known_until_ns
        if known_ns is None or until_ns - known_ns > SILENT_NS:
            return time_ns
        floor_ns = self._power.floor_ns(time_ns)
        return time_ns if floor_ns is None else floor_ns

    def look(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None, edges_ns: Sequence[int]
    ) -> None:
        """Find the course of the power between cuts and edges of long ticks, all of these between the cuts."""
        if cuts_ns[0] != self._until_ns:
            self._power.start_over()
        self._until_ns = cuts_ns[-1]
        moments_ns = sorted({*cuts_ns, *edges_ns})
        doing, cut = [], 0
        for moment_ns in moments_ns[:-1]:
            while cuts_ns[cut + 1] <= moment_ns:
                cut += 1
            doing.append(regimes[cut])
        readings = self._power.readings(moments_ns, doing, until_ns)
        self._readings = dict(zip(moments_ns, readings, strict=True))

    def within(self, tick: Tick, bounds_ns: Sequence[int], pieces: Sequence[Piece]) -> Look | None:
        """What was seen between the bounds, edges of a tick and cuts in it.

        A piece that is too short for the sensor keeps what was known of it without. ``None`` where none is long enough,
        the sensor has a gap, or it is not believed.
        """
        known = [reading for bound_ns in bounds_ns if (reading := self._readings.get(bound_ns))]
        if len(known) < len(bounds_ns) or known[0].epoch != known[-1].epoch:
            return None
        changes = self._power.ticks_between(bounds_ns[0], bounds_ns[-1])
        if changes < min(len(pieces) - 1, LEAST_CHANGES_HZ * tick.duration_s):
            return None
        energy_j = known[-1].energy_j - known[0].energy_j
        off_j = abs(self._gain * energy_j - tick.total_j)
        if energy_j <= 0 or off_j > CONTRADICTS * tick.total_j + 2 * tick.std_j:
            return None
        sight = _Sight.of(known)
        if sight.is_clear:
            self._learn_gain(tick, energy_j, sum(sight.own_j2))
        look = _looked(tick, pieces, sight.scaled(self._gain, self._gain_var))
        if look:
            self._used.append((bounds_ns[0], bounds_ns[-1]))
        return look

    def _learn_gain(self, tick: Tick, energy_j: float, var_j2: float) -> None:
        """Compare the sensor with the counter over a tick of which it saw everything."""
        ratio, ratio_var = tick.total_j / energy_j, (var_j2 + tick.std_j**2) / energy_j**2
        if ratio_var > TELLING**2:
            return
        self._gain_var += GAIN_DRIFT**2
        part = self._gain_var / (self._gain_var + ratio_var)
        self._gain += part * (ratio - self._gain)
        self._gain_var *= 1 - part


class _Sight(NamedTuple):
    """What the sensor saw of a tick: energy of each piece, variance of it, and of the energy up to each bound."""

    energies_j: list[float]
    own_j2: list[float]
    bounds_j2: list[float]

    @classmethod
    def of(cls, known: Sequence[Reading]) -> _Sight:
        """From readings at the bounds; at the tick's own edges nothing but the pieces there is uncertain."""
        energies_j = [after.energy_j - before.energy_j for before, after in pairwise(known)]
        own_j2 = [max(after.path_var_j2 - before.path_var_j2, 0.0) for before, after in pairwise(known)]
        own_j2[0] += known[0].boundary_var_j2
        own_j2[-1] += known[-1].boundary_var_j2
        return cls(energies_j, own_j2, [0.0, *(reading.boundary_var_j2 for reading in known[1:-1]), 0.0])

    @property
    def unsure_j2(self) -> list[float]:
        """Variance of each piece alone."""
        return [sum(each) for each in zip(self.own_j2, self.bounds_j2[:-1], self.bounds_j2[1:], strict=True)]

    @property
    def is_clear(self) -> bool:
        """Whether the sensor tells something of every piece."""
        return all(
            var <= (VAGUE * energy_j) ** 2 for var, energy_j in zip(self.unsure_j2, self.energies_j, strict=True)
        )

    def scaled(self, gain: float, gain_var: float) -> _Sight:
        """In the counter's joules."""
        energies_j = [gain * energy_j for energy_j in self.energies_j]
        own_j2 = [each + gain_var * energy_j**2 for each, energy_j in zip(self.own_j2, energies_j, strict=True)]
        return _Sight(energies_j, own_j2, self.bounds_j2)


def _looked(tick: Tick, pieces: Sequence[Piece], sight: _Sight) -> Look | None:
    """Each piece with the surer of what was seen and what was known; ``None`` where no sight is."""
    seen = [
        _is_seen(piece, energy_j, unsure_j2, tick)
        for piece, energy_j, unsure_j2 in zip(pieces, sight.energies_j, sight.unsure_j2, strict=True)
    ]
    if not any(seen):
        return None
    own_j2, cuts_j2 = list(sight.own_j2), list(sight.bounds_j2)
    # What the sensor cannot tell of a piece that it sees too little of, it cannot tell of those beside it either.
    for cut, beside in enumerate(pairwise(seen), 1):
        if not all(beside):
            own_j2[cut - 1] += cuts_j2[cut]
            own_j2[cut] += cuts_j2[cut]
            cuts_j2[cut] = 0.0
    found = []
    for piece, is_seen, energy_j, each_j2 in zip(pieces, seen, sight.energies_j, own_j2, strict=True):
        level = Level(energy_j / piece.duration_s, sqrt(each_j2) / piece.duration_s, 0.0)
        found.append(replace(piece, level=level) if is_seen else piece)
    return Look(found, seen, cuts_j2[1:-1])


def _is_seen(piece: Piece, energy_j: float, unsure_j2: float, tick: Tick) -> bool:
    """Whether what was seen of a piece is surer than what is known of it without the sensor, or belies that.

    Of a piece without a level nothing is known but what makes looking worth while.
    """
    if not piece.level:
        return unsure_j2 <= (VAGUE * energy_j) ** 2
    known_j2 = prior_j2(piece, piece.level, tick.duration_s, tick.h)
    off_j = energy_j - piece.level.power_w * piece.duration_s
    return unsure_j2 <= known_j2 or off_j**2 > BELIES**2 * (unsure_j2 + known_j2)
