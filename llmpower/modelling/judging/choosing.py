"""``--form auto``: the form that predicts unseen cells best, unless a simpler one does it as well.

R² near 0.97 is what a form reaches that is wrong by a factor of three on short queries, so it decides nothing here.
Forms compete by held-out error, and a form that predicts some cell at or below zero loses to one that does not: an
optimiser seeks out exactly those cells.

With the errors |ŷ − y|/y of two forms on the same n rows in m cells, d_c their difference summed over the n_c rows of a
cell, the mean difference and its standard error take each cell as one observation:

    D = Σ_c d_c / n     se² = m/(m − 1) · Σ_c (d_c − n_c·D)² / n²

A form with fewer terms takes the place of the best when it is worse by no more than one standard error: the
one-standard-error rule (Breiman, Friedman, Olshen and Stone, CART, 1984), on paired differences. (On the published
grid: three terms where five are 0.3 points better with an error of 0.4, five where they are 1.1 better.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.fitted.models import HeldOut
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.regressing.regression import Regression

# A hundredth of a point of MAPE is no reason for another term, however steady it is.
NEGLIGIBLE = 1e-4


@dataclass(frozen=True, slots=True)
class Candidate:
    """A form that was fitted, with its held-out error in all and by row (``None`` where there is none)."""

    regression: Regression
    heldout: HeldOut
    errors: FloatArray | None
    folds: FloatArray | None

    @property
    def label(self) -> str:
        """What the form is asked for by."""
        return self.regression.form.label

    @property
    def n_terms(self) -> int:
        """What it costs in terms."""
        return len(self.regression.form.terms)


def choose(candidates: Sequence[Candidate], cells: NDArray[np.intp]) -> tuple[Candidate, list[Candidate], str]:
    """The candidate to keep, the others best first, and why it is this one."""
    best, *others = sorted(candidates, key=_merit)
    if not others:
        return best, [], ""
    chosen, excess, error = _simplest(best, others, cells)
    rest = [candidate for candidate in (best, *others) if candidate is not chosen]
    return chosen, rest, _reason(chosen, best, others, excess, error)


def _merit(candidate: Candidate) -> tuple[bool, bool, float, int]:
    """Sort key, best first: held-out error known, no prediction at or below zero, small MAPE, few terms.

    Where no held-out error is known, a form that cannot fall below zero goes first. A form whose further terms are all
    held at zero is the one without them, and no rounding decides between the two.
    """
    heldout = candidate.heldout
    if heldout.mape is None:
        return True, not candidate.regression.form.non_negative, 0.0, candidate.n_terms
    return False, bool(heldout.negative_predictions), round(heldout.mape, 12), candidate.n_terms


def _simplest(best: Candidate, others: Sequence[Candidate], cells: NDArray[np.intp]) -> tuple[Candidate, float, float]:
    """Who has the fewest terms among those as good as the best; how much worse it is, and within what."""
    chosen, by, within, n = best, 0.0, 0.0, np.bincount(cells)
    for other in others:
        comparable = _merit(other)[:2] == _merit(best)[:2] and best.errors is not None and other.errors is not None
        if not comparable or other.n_terms >= chosen.n_terms:
            continue
        assert best.errors is not None
        assert other.errors is not None
        excess, error = map(float, paired_difference(by_cell(other.errors - best.errors, cells), n))
        if excess <= max(error, NEGLIGIBLE):
            chosen, by, within = other, excess, error
    return chosen, by, within


def by_cell(errors: FloatArray, cells: NDArray[np.intp]) -> FloatArray:
    """Their sums over the rows of each cell."""
    return np.asarray(np.bincount(cells, errors), dtype=np.float64)


def paired_difference(d: FloatArray, n: NDArray[np.intp]) -> tuple[FloatArray, FloatArray]:
    """D and its standard error, of sums ``d`` (…, m) over ``n`` (…, m) rows of each cell; both 0 where it is left out.

    The error is infinite with one cell alone.
    """
    rows, m = n.sum(axis=-1), np.count_nonzero(n, axis=-1)
    D = d.sum(axis=-1) / rows
    away = d - n * D[..., np.newaxis]
    variance = m / np.maximum(m - 1, 1) * (away**2).sum(axis=-1) / rows**2
    return D, np.where(m > 1, np.sqrt(variance), np.inf)


def _reason(chosen: Candidate, best: Candidate, others: Sequence[Candidate], excess: float, error: float) -> str:
    mape, second = chosen.heldout.mape, others[0]
    if mape is None:
        return "no form has a held-out error; one that cannot predict below zero goes first"
    if chosen is not best:
        within = max(error, NEGLIGIBLE)
        return (
            f"{chosen.label} has {chosen.n_terms} terms and is {100 * excess:.2f} points of held-out MAPE behind"
            f" {best.label} with {best.n_terms}, within one standard error of the difference ({100 * within:.2f})"
        )
    lower = [other.label for other in others if other.heldout.mape is not None and other.heldout.mape < mape]
    if lower:
        return f"{chosen.label} predicts no cell at or below zero, as {', '.join(lower)} would with a smaller error"
    if second.heldout.mape is None:
        return f"{chosen.label} is the only form with a held-out error"
    return f"{chosen.label} is {100 * (second.heldout.mape - mape):.2f} points of held-out MAPE before {second.label}"
