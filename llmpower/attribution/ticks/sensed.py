"""What the power sensor showed within long ticks.

Where reads of the counter are expensive, and so many devices share the time for them, a tick lasts for seconds and
holds several requests. Reads of power are cheap there. So the total of such a tick comes from the counter, and how it
lies in time from the power (:mod:`~llmpower.attribution.readings.power`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

from msgspec.structs import replace

from llmpower.attribution.readings.power import PowerSeries
from llmpower.attribution.series import Nanoseconds, Reading, Regime, Values
from llmpower.attribution.ticks.tick import Level, Piece, prior_j2

KEPT_NS = 60_000_000_000
"""How far back reads of power are kept: a tick is looked at when it has ended."""

VAGUE = 0.2
"""Relative deviation beyond which the sensor tells nothing of a piece."""

CONTRADICTS = 0.25
"""A sensor that differs from the counter by so much of it is not believed: no gain is so far off."""

SILENT_NS = 1_000_000_000
"""A sensor that shows nothing for so long is not waited for."""


class Tick(NamedTuple):
    """Of a tick its length, its energy and how uncertain that is because its edges are, and h, as in the division."""

    duration_s: float
    total_j: float
    std_j: float
    h: float


class Look(NamedTuple):
    """The pieces of one tick, most at the level that the power sensor saw, and what it leaves unsure about each cut.

    ``cuts_j2`` is the variance of the energy up to each cut, beside that of the pieces.
    """

    pieces: list[Piece]
    cuts_j2: list[float]


class Sensed:
    """Power of one device, for the division of its long ticks."""

    def __init__(self) -> None:
        self._power = PowerSeries()
        self._readings: dict[int, Reading | None] = {}
        self._since_ns = self._until_ns = 0  # what was looked at last, without a gap
        self.wanted = False
        """Whether there may be long ticks: else reads are not kept."""

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest idle time in long ticks."""
        return self._power.idle_w

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Take reads of power in; ``value`` in watts, shapes (n,)."""
        if self.wanted and len(value):
            self._power.extend(before_ns, after_ns, value)
            self._power.forget(int(after_ns[-1]) - KEPT_NS)

    def break_epoch(self) -> None:
        """What comes has no connection to what was."""
        self._power.break_epoch()

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Changes of the power within an interval that was looked at; 0 of any other."""
        looked_at = self._since_ns <= start_ns and end_ns <= self._until_ns
        return self._power.ticks_between(start_ns, end_ns) if looked_at else 0

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
            self._since_ns = cuts_ns[0]
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
        the sensor has a gap, or it contradicts the counter.
        """
        known = [reading for bound_ns in bounds_ns if (reading := self._readings.get(bound_ns))]
        if len(known) < len(bounds_ns) or known[0].epoch != known[-1].epoch:
            return None
        energies_j = [after.energy_j - before.energy_j for before, after in pairwise(known)]
        if abs(sum(energies_j) - tick.total_j) > CONTRADICTS * tick.total_j + 2 * tick.std_j:
            return None
        own_j2 = [after.path_var_j2 - before.path_var_j2 for before, after in pairwise(known)]
        cuts_j2 = [0.0, *(reading.boundary_var_j2 for reading in known[1:-1]), 0.0]
        own_j2[0] += known[0].boundary_var_j2
        own_j2[-1] += known[-1].boundary_var_j2
        unsure_j2 = [own + before + after for own, before, after in zip(own_j2, cuts_j2[:-1], cuts_j2[1:], strict=True)]
        keeps = [
            _otherwise_j2(piece, energy_j, tick) < each
            for piece, energy_j, each in zip(pieces, energies_j, unsure_j2, strict=True)
        ]
        if all(keeps):
            return None
        # What the sensor cannot tell of a piece that it sees too little of, it cannot tell of those beside it either.
        for cut, beside in enumerate(pairwise(keeps), 1):
            if any(beside):
                own_j2[cut - 1] += cuts_j2[cut]
                own_j2[cut] += cuts_j2[cut]
                cuts_j2[cut] = 0.0
        found = []
        for piece, keep, energy_j, each_j2 in zip(pieces, keeps, energies_j, own_j2, strict=True):
            level = Level(energy_j / piece.duration_s, sqrt(max(each_j2, 0.0)) / piece.duration_s, 0.0)
            found.append(piece if keep else replace(piece, level=level))
        return Look(found, cuts_j2[1:-1])


def _otherwise_j2(piece: Piece, energy_j: float, tick: Tick) -> float:
    """Variance of a piece's energy without the sensor; of one without a level, what makes looking worth while."""
    return prior_j2(piece, piece.level, tick.duration_s, tick.h) if piece.level else (VAGUE * energy_j) ** 2
