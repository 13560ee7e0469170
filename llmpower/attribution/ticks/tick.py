"""A tick of the counter before it is divided: its pieces, and what is known of their power.

See :mod:`~llmpower.attribution.ticks.division` for the formulas and their symbols.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from llmpower.attribution.series import Regime

LEAST_STD = 0.0002
"""Relative to the tick's energy: no piece is so sure of itself that it could not take up a residual."""


class Shown(NamedTuple):
    """Mean power of a whole tick, and what of it is uncertain because the tick's edges are, as a deviation in watts."""

    power_w: float
    timing_w: float = 0.0
    duration_s: float = 0.1


class Level(NamedTuple):
    """A prior power, its uncertainty, and how far the mean of one tick deviates from it, all in watts."""

    power_w: float
    std_w: float
    flicker_w: float


class Piece(Struct, frozen=True):
    """A part of a tick.

    ``level`` is what its power is expected to be, ``None`` where nothing is known of it. ``edge_width_s`` is the width
    of the edge that bounds the piece, 0 for a piece between two cuts.
    """

    duration_s: float
    regime: Regime
    level: Level | None
    edge_width_s: float = 0.0


class Around(NamedTuple):
    """What is known beside the pieces themselves.

    Mean power of the ticks before and after, ``None`` where not known; how far they flicker, relative; h; how often
    a power that changes during the same work does so elsewhere than at a cut; and what the device draws at least.
    """

    before_w: float | None = None
    after_w: float | None = None
    flicker: float = 0.01
    smoothness: float = 0.0
    elsewhere: float = 0.1
    least_w: float = 0.0


def prior_j2(piece: Piece, level: Level, tick_s: float, h: float) -> float:
    """(σ·d)² + φ²·Δ^(1−h)·d^(1+h) + (π·w)²/12 of a piece at this level.

    Of idle time nothing ever shows h, so there it counts as 0.
    """
    h = 0.0 if piece.regime.kind == "idle" else h
    share = piece.duration_s / tick_s
    unsure_j2: float = (level.std_w * piece.duration_s) ** 2 + (level.flicker_w * tick_s) ** 2 * share ** (1 + h)
    return unsure_j2 + (level.power_w * piece.edge_width_s) ** 2 / 12
