"""Dividing one tick's energy among the pieces that spans cut it into.

The counter gives the total T of a tick of length Δ, between two edges whose moments are known to within their widths.
Of a piece of duration d something may be known beforehand: the power π ± σ that the same thing drew in the whole ticks
beside it, or that this kind of work draws by experience (:mod:`~llmpower.attribution.ticks.experience`), and how far
that power flickers, φ over a whole tick. Then its energy is expected to be π·d, with variance

    v = (σ·d)² + φ²·Δ^(1−h)·d^(1+h) + (π·w)²/12       w the width of the edge that bounds the piece, if one does

(h says how flicker averages out: white noise, h = 0, has an energy of variance q·d; one that is constant over a tick
has h = 1). The total is a constraint that the pieces meet together:

    e_i = π_i·d_i + v_i/V·R,     R = T − Σ π·d,  V = Σ v

which is the mean of independent Gaussians given their sum. The energy up to a cut is the sum over the pieces before
it, with variance A·(V − A)/V, A the prior variance before the cut. Pieces of which nothing is known share what the
others leave, in the proportions that the ticks around suggest. A total further off than predicted, R² > V, says that
something was less sure than was thought: variances of work then count R²/V times, and those of idle time, which many
ticks of nothing else have told, only where nothing works. No piece gets less than the device is known to draw at
least, or gives energy back: where the mean asks for that, what is above the least is scaled down to the total.

All that assumes that power steps at the cuts if anywhere. Where the same kind of work goes on across them it may step
elsewhere: then power was a at the tick's beginning and b at its end, and a·u + b·(Δ − u) = T says when. How often it
does is experience too; with it both hypotheses are weighted by how well they predicted T, and the answer is their
mixture, its variance holding their disagreement, unless one of them is hardly likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from llmpower.attribution.series import IDLE, bridge_var_j2
from llmpower.attribution.ticks.step import Shape, Step
from llmpower.attribution.ticks.tick import LEAST_STD, Around, Piece, prior_j2

UNKNOWN_STD = 0.07
"""Relative deviation of a piece of which nothing is known, about what the ticks around suggest."""

TAKE_UP = 16.0
"""By how much unknown pieces are less sure than known ones, as variances: they take up what those leave."""

PROMPT_STD = 1.0
"""The same for a prompt: it draws far more than the decoding around it, and may be over within the tick."""

UNLIKELY = 0.03
"""A hypothesis less probable than this is dropped: it has no place in an interval of 95 %."""


class Division(NamedTuple):
    """How a tick is divided, and what that teaches.

    ``surprise`` is R²/V where pieces of several regimes all had a level: 1 on average if the variances are right.
    ``elsewhere`` is the probability that the power stepped elsewhere than at a cut, where it changed within the
    same work.
    """

    used: list[Used]
    surprise: float | None
    elsewhere: float | None


class Used(NamedTuple):
    """Energy from the tick's beginning to one cut, and the prior variances before that cut and of the whole tick."""

    energy_j: float
    before_j2: float
    within_j2: float

    @property
    def var_j2(self) -> float:
        """Variance of ``energy_j``: A·(V − A)/V."""
        return bridge_var_j2(self.before_j2, self.within_j2)


def divide(pieces: Sequence[Piece], total_j: float, around: Around) -> Division:
    """Energy used up to the end of each piece, the last being ``total_j`` itself.

    Args:
        pieces: in order, two at least.
        total_j: what the counter says of all of them.
        around: what is known of the ticks beside this one.
    """
    tick_s = sum(piece.duration_s for piece in pieces)
    shape = Shape(total_j / tick_s, around.before_w, around.after_w)
    expected_j, variances_j2 = _expected(pieces, total_j, tick_s, shape, around.smoothness)
    v = sum(variances_j2)
    residual_j = total_j - sum(expected_j)
    energies_j = [each + share / v * residual_j for each, share in zip(expected_j, variances_j2, strict=True)]
    known = all(piece.level for piece in pieces)
    mixed = len({piece.regime for piece in pieces}) > 1
    surprise, elsewhere = residual_j**2 / v if known and mixed else None, None
    stretch = max(1.0, residual_j**2 / v)

    if not mixed and (step := Step.find(pieces, total_j, tick_s, around)):
        weight = step.weight(pieces, around.elsewhere, residual_j if known else None, v)
        if step.significant:
            elsewhere = weight
        weight = min(max((weight - UNLIKELY) / (1 - 2 * UNLIKELY), 0.0), 1.0)
        # Twice: of two pieces, whose differences are opposite, each holds half of the mixture's variance.
        variances_j2 = [
            (1 - weight) * own + weight * other + 2 * weight * (1 - weight) * (there - here) ** 2
            for own, other, here, there in zip(
                variances_j2, step.variances_j2, energies_j, step.energies_j, strict=True
            )
        ]
        energies_j = [
            (1 - weight) * here + weight * there for here, there in zip(energies_j, step.energies_j, strict=True)
        ]
        stretch = (1 - weight) * stretch + weight

    # No piece draws less than the device ever does: where priors ask for that, what is above is scaled to the total.
    # Idle time known to draw less says that it does: what passed for idle time before held work that nobody reported.
    idle_w = [piece.level.power_w for piece in pieces if piece.level and piece.regime == IDLE]
    least_w = min(around.least_w, total_j / tick_s, *idle_w)
    above_j = [max(each - least_w * piece.duration_s, 0.0) for each, piece in zip(energies_j, pieces, strict=True)]
    scale = (total_j - least_w * tick_s) / (sum(above_j) or 1.0)
    surprising = {piece.regime for piece in pieces if piece.regime != IDLE} or {IDLE}
    variances_j2 = [
        each * stretch if piece.regime in surprising else each for each, piece in zip(variances_j2, pieces, strict=True)
    ]
    within_j2 = sum(variances_j2)
    used, energy_j, before_j2 = [], 0.0, 0.0
    for piece, each_j, variance_j2 in zip(pieces, above_j, variances_j2, strict=True):
        energy_j += least_w * piece.duration_s + scale * each_j
        before_j2 += variance_j2
        used.append(Used(energy_j, before_j2, within_j2))
    return Division(used, surprise, elsewhere)


def _expected(
    pieces: Sequence[Piece], total_j: float, tick_s: float, shape: Shape, h: float
) -> tuple[list[float], list[float]]:
    """Prior energy of each piece and its variance."""
    least_j2 = (LEAST_STD * total_j) ** 2 or 1e-12
    known_j = sum(piece.level.power_w * piece.duration_s for piece in pieces if piece.level)
    shaped_j = shape.energies_j(pieces, tick_s)
    unknown_j = sum(each for each, piece in zip(shaped_j, pieces, strict=True) if not piece.level)
    left_j = max(total_j - known_j, 0.0)
    energies_j, variances_j2 = [], []
    for piece, each_j in zip(pieces, shaped_j, strict=True):
        if piece.level:
            energy_j = piece.level.power_w * piece.duration_s
            own_j2 = prior_j2(piece, piece.level, tick_s, h)
        else:
            energy_j = each_j / unknown_j * left_j if unknown_j else 0.0  # the quotient first: it is 1 at most
            relative = PROMPT_STD if piece.regime.kind == "prefill" else UNKNOWN_STD
            own_j2 = max(relative * energy_j, shape.spread_w / 3 * piece.duration_s) ** 2
            own_j2 += (energy_j / piece.duration_s * piece.edge_width_s) ** 2 / 12
        energies_j.append(energy_j)
        variances_j2.append(max(own_j2, least_j2))
    # What the known pieces are uncertain of, the unknown ones have to take up, whatever they claim.
    sure_j2 = sum(each for each, piece in zip(variances_j2, pieces, strict=True) if piece.level)
    unsure_j2 = sum(variances_j2) - sure_j2
    if 0 < unsure_j2 < TAKE_UP * sure_j2:
        widen = TAKE_UP * sure_j2 / unsure_j2
        variances_j2 = [each if piece.level else widen * each for each, piece in zip(variances_j2, pieces, strict=True)]
    return energies_j, variances_j2
