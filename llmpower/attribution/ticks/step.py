"""Power that changes within a tick, elsewhere than where a span begins or ends.

With power a at the tick's beginning and b at its end, a·u + b·(Δ − u) = T says when it stepped, if T/Δ lies between a
and b; if it does not, it stepped outside, and the tick is flat.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, hypot, pi, sqrt
from statistics import NormalDist

from llmpower.attribution.ticks.tick import LEAST_STD, Around, Level, Piece, prior_j2

SIGNIFICANCE = 5.0
"""Levels further apart than this many standard deviations of flicker are different levels."""

STEPPING = 16.0
"""By how much the piece in which the power steps is less sure than the others, as variances."""

OUTSIDE = 0.5
"""How often a step between the levels that the ticks around show is hidden at the end of one of them."""

OPEN_STD = 0.3
"""Relative deviation of a power that is open, from that of the tick beside it."""


class Shape:
    """What the ticks around say of the power inside this one: a level a, a step to b at u, or flat."""

    def __init__(self, mean_w: float, before_w: float | None, after_w: float | None) -> None:
        self.mean_w = mean_w
        self.before_w = self.after_w = mean_w
        self.step = 1.0
        around_w = [power_w for power_w in (before_w, after_w) if power_w is not None]
        self.spread_w = max((abs(power_w - mean_w) for power_w in around_w), default=0.0)
        if before_w is not None and after_w is not None and min(around_w) < mean_w < max(around_w):
            self.before_w, self.after_w = before_w, after_w
            self.step = (mean_w - after_w) / (before_w - after_w)

    def energies_j(self, pieces: Sequence[Piece], tick_s: float) -> list[float]:
        """Energy of each piece."""
        energies_j, start_s = [], 0.0
        for piece in pieces:
            end_s = start_s + piece.duration_s
            before_s = min(max(self.step * tick_s - start_s, 0.0), piece.duration_s)
            energies_j.append(before_s * self.before_w + (piece.duration_s - before_s) * self.after_w)
            start_s = end_s
        return energies_j


class Step:
    """The hypothesis that the power stepped once within the tick, wherever, or not at all."""

    def __init__(self, total_j: float, tick_s: float, before: Level, after: Level) -> None:
        self.total_j, self.tick_s = total_j, tick_s
        self.before, self.after = before, after
        self.height_w = abs(before.power_w - after.power_w)
        noise_w = hypot(before.std_w, before.flicker_w, after.std_w, after.flicker_w)
        self.significant = self.height_w > SIGNIFICANCE * noise_w
        inside = 1 / (max(self.height_w, SIGNIFICANCE * noise_w, 1e-9) * tick_s)
        self.density = (1 - OUTSIDE) * inside + OUTSIDE * (self._flat(before) + self._flat(after)) / 2
        self.energies_j: list[float] = []
        self.variances_j2: list[float] = []

    def _flat(self, level: Level) -> float:
        """Density of T if all of the tick is at one level, the step lying just outside."""
        std_j = max(hypot(level.std_w, level.flicker_w) * self.tick_s, 1e-9)
        return NormalDist(level.power_w * self.tick_s, std_j).pdf(self.total_j)

    @classmethod
    def find(cls, pieces: Sequence[Piece], total_j: float, tick_s: float, around: Around) -> Step | None:
        """The step between the levels at both ends of the tick; ``None`` where one is not known."""
        before = _end_level(pieces[0].level, around.before_w, around.flicker)
        after = _end_level(pieces[-1].level, around.after_w, around.flicker)
        if before is None or after is None:
            return None
        step = cls(total_j, tick_s, before, after)
        step._divide(pieces, around.smoothness)
        return step

    def _divide(self, pieces: Sequence[Piece], h: float) -> None:
        mean_w = self.total_j / self.tick_s
        shape = Shape(mean_w, self.before.power_w, self.after.power_w)
        self.energies_j = shape.energies_j(pieces, self.tick_s)
        # Before the step what is uncertain is the first level, behind it the second; the step itself takes up the rest.
        least_j2 = (LEAST_STD * self.total_j) ** 2 or 1e-12
        start_s, step_s, stepping = 0.0, shape.step * self.tick_s, []
        for number, piece in enumerate(pieces):
            end_s = start_s + piece.duration_s
            level = self.before if end_s <= step_s else self.after
            own_j2 = prior_j2(piece, level, self.tick_s, h)
            if start_s < step_s < end_s:
                stepping.append(number)
            self.variances_j2.append(max(own_j2, least_j2))
            start_s = end_s
        for number in stepping:
            self.variances_j2[number] += STEPPING * sum(self.variances_j2)

    def weight(self, pieces: Sequence[Piece], elsewhere: float, residual_j: float | None, v: float) -> float:
        """Probability of this hypothesis, against the one that power steps at the cuts if anywhere.

        Args:
            pieces: of the tick.
            elsewhere: the same before T is known.
            residual_j: R under the other hypothesis; ``None`` where it leaves some powers open, which are then taken to
                be about those of the ticks beside.
            v: V under the other hypothesis.
        """
        if residual_j is None:
            mean_w = self.total_j / self.tick_s
            powers_w = [self.before.power_w, *[mean_w] * (len(pieces) - 2), self.after.power_w]
            known_w = [piece.level.power_w if piece.level else w for piece, w in zip(pieces, powers_w, strict=True)]
            residual_j = self.total_j - sum(w * piece.duration_s for w, piece in zip(known_w, pieces, strict=True))
            v += sum((OPEN_STD * w * p.duration_s) ** 2 for w, p in zip(known_w, pieces, strict=True) if not p.level)
        rival: float = exp(-min(residual_j**2 / v, 1000.0) / 2) / sqrt(2 * pi * v)
        return elsewhere * self.density / (elsewhere * self.density + (1 - elsewhere) * rival)


def _end_level(level: Level | None, beside_w: float | None, flicker: float) -> Level | None:
    """The level at one end of a tick: the piece's own if it has one, else what the tick beside it drew."""
    if level:
        return level
    return None if beside_w is None else Level(beside_w, 0.0, flicker * beside_w)
