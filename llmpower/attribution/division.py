"""Dividing one tick's energy among the pieces that spans cut it into.

The counter gives the total T of a tick, between two edges whose moments are known to within their widths. Of each
piece something may be known beforehand: the power that the same thing drew in the whole ticks beside it (its
*levels*), or the power of idle ticks. So piece i of duration d has a prior energy π·d with variance

    v = (σ·d)² + (π·w)²/12       w the width of the edge that bounds it, if one does

and the total is a constraint that they meet together:

    e_i = π_i·d_i + v_i/V·R,     R = T − Σ π·d,  V = Σ v

which is the mean of independent Gaussians given their sum. The energy up to a cut is the sum over the pieces before
it, with variance A·B/V, A and B the prior variances before and after the cut.

A residual well beyond √V is no chance. Between two pieces with levels a and b it says that the power did not step at
the cut but elsewhere: with the step at u, T = a·u + b·(Δ − u), so the side that the step reaches into takes all of R
and the other keeps its prior. Where a span begins or ends amid unrelated work, this finds the step within the tick. A
residual that no step explains stretches the variance by R²/V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import NamedTuple

from llmpower.attribution.series import Regime

LEVEL_STD = 0.03
"""Relative deviation of power from one tick to the next doing the same, where only one such tick is known."""

STEADY_STD = 0.015
"""The least relative deviation that is believed, however steady the ticks look."""

LEAST_STD = 0.001
"""Relative to the tick's mean: no piece is so sure of itself that it could not take up a residual."""

STEP_SIGNIFICANCE = 2.5
"""Residuals beyond this many standard deviations are taken for a step of power elsewhere in the tick."""

UNKNOWN_STD = 0.1
"""Relative deviation of a piece of which no level is known, about what the ticks around suggest."""


PREFILL_STD = 1.0
"""The same for a prompt: it draws far more than the decoding around it, and may be over within the tick."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a tick.

    ``levels_w`` are the mean powers of whole ticks that did the same, the nearest first. ``edge_width_s`` is the
    width of the edge that bounds the piece, 0 for a piece between two cuts.
    """

    duration_s: float
    levels_w: tuple[float, ...]
    regime: Regime
    edge_width_s: float


class Used(NamedTuple):
    """Energy from the tick's beginning to one cut."""

    energy_j: float
    var_j2: float


def divide(
    pieces: Sequence[Piece], total_j: float, before_w: float | None = None, after_w: float | None = None
) -> list[Used]:
    """Energy used up to the end of each piece; the last is ``total_j`` itself.

    Args:
        pieces: in order, two at least.
        total_j: what the counter says of all of them.
        before_w: mean power of the tick before, whatever went on there; ``None`` where it is not known.
        after_w: the same of the tick after.
    """
    shape = _Shape(total_j / sum(piece.duration_s for piece in pieces), before_w, after_w)
    tick_s = sum(piece.duration_s for piece in pieces)
    start_s = 0.0
    prior_j, prior_j2 = [], []
    for piece in pieces:
        end_s = start_s + piece.duration_s
        power_w, std_w = _prior_w(piece, shape, start_s / tick_s, end_s / tick_s)
        std_w = max(std_w, LEAST_STD * shape.mean_w)
        start_s = end_s
        prior_j.append(power_w * piece.duration_s)
        prior_j2.append((std_w * piece.duration_s) ** 2 + (power_w * piece.edge_width_s) ** 2 / 12)
    v = sum(prior_j2) or 1e-12
    residual_j = total_j - sum(prior_j)
    if residual_j**2 > STEP_SIGNIFICANCE**2 * v and (reached := _reached_by_step(pieces, residual_j)) is not None:
        first_j, var_j2 = (total_j - prior_j[1], prior_j2[1]) if reached == 0 else (prior_j[0], prior_j2[0])
        return [Used(min(max(first_j, 0.0), total_j), var_j2), Used(total_j, 0.0)]

    # A piece cannot give energy back: where priors ask for that, what they ask is scaled down to the total.
    shared_j = [max(each + share / v * residual_j, 0.0) for each, share in zip(prior_j, prior_j2, strict=True)]
    scale = total_j / (sum(shared_j) or 1.0)
    stretch = max(1.0, residual_j**2 / v)
    used, energy_j, before_j2 = [], 0.0, 0.0
    for shared, variance_j2 in zip(shared_j, prior_j2, strict=True):
        energy_j += scale * shared
        before_j2 += variance_j2
        used.append(Used(energy_j, stretch * before_j2 * max(v - before_j2, 0.0) / v))
    return used


def _reached_by_step(pieces: Sequence[Piece], residual_j: float) -> int | None:
    """Of two pieces, the one into which the other's power reaches, if such a step accounts for the residual."""
    if len(pieces) != 2 or any(piece.regime == "idle" or not piece.levels_w for piece in pieces):
        return None  # where nothing runs nothing steps, and where no level is known a step has no height
    height_w = pieces[1].levels_w[0] - pieces[0].levels_w[0]
    reached = int(height_w * residual_j <= 0)
    return reached if abs(residual_j) <= abs(height_w) * pieces[reached].duration_s else None


class _Shape:
    """What the ticks around say of the power inside this one: a level a, a step to b at u, or flat.

    T = a·u + b·(Δ − u) has a solution within the tick when its mean lies between a and b.
    """

    def __init__(self, mean_w: float, before_w: float | None, after_w: float | None) -> None:
        self.mean_w = mean_w
        self.before_w = self.after_w = mean_w
        self.step = 1.0
        around_w = [power_w for power_w in (before_w, after_w) if power_w is not None]
        self.spread_w = max((abs(power_w - mean_w) for power_w in around_w), default=UNKNOWN_STD * mean_w)
        if before_w is not None and after_w is not None and min(around_w) < mean_w < max(around_w):
            self.before_w, self.after_w = before_w, after_w
            self.step = (mean_w - after_w) / (before_w - after_w)

    def power_w(self, start: float, end: float) -> float:
        """Mean power between two fractions of the tick."""
        if end <= start:
            return self.mean_w
        before = min(max((self.step - start) / (end - start), 0.0), 1.0)
        return before * self.before_w + (1 - before) * self.after_w


def _prior_w(piece: Piece, shape: _Shape, start: float, end: float) -> tuple[float, float]:
    """Expected power of a piece between two fractions of its tick, and its standard deviation, in watts."""
    levels_w, mean_w = piece.levels_w, shape.mean_w
    if not levels_w:
        power_w = shape.power_w(start, end)
        relative = PREFILL_STD if piece.regime == "prefill" else UNKNOWN_STD
        return power_w, max(relative * power_w, shape.spread_w / 2)
    if piece.regime == "idle":
        return fmean(levels_w), max(pstdev(levels_w), STEADY_STD * levels_w[0])
    nearest_w = levels_w[0]
    if len(levels_w) == 1:
        return nearest_w, LEVEL_STD * nearest_w
    if abs(nearest_w - levels_w[1]) > LEVEL_STD * max(nearest_w, levels_w[1]):
        # The power stepped within that tick, so its mean is no level: ours may still be what our own tick says.
        return nearest_w, max(abs(nearest_w - levels_w[1]), abs(nearest_w - mean_w))
    return nearest_w, max(pstdev(levels_w), STEADY_STD * nearest_w)
