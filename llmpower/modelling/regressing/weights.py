"""What each row counts: the same percentage everywhere, less where its joules are uncertain, less still for outliers.

Relative least squares minimises Σ u·((y − ŷ)/y)², so a row's weight is w = u/y².

**Uncertainty.** A row with standard deviation s has the relative variance v = (s/y)², but rows also miss the form by
something of their own, ω², which no better meter would take away. Weights of 1/v alone would let the longest spans
decide everything. So

    u = (ω² + v̄)/(ω² + v),     ω² = max(0, Σr²/(n − p) − v̄)

for rows of a stratum alike, with v the mean of theirs (:mod:`~llmpower.modelling.rows.strata`), and
with r the relative residuals, with u = 1, of the form that misses least, so that all forms are judged by one measure:
Hedges' moment estimator, as random-effects meta-analysis has it (Hedges and Olkin 1985). Where the form misses by more
than the meter does, rows count about the same.

**Outliers.** On request, Huber's weights: rows within k = 1.345 scales keep theirs, those beyond get k·scale/|r|,
iterated; the scale is the median of |r| over 0.6745. Fewer cells than twice the terms have no outliers. Least squares
loses 5 % of its efficiency to them where errors are normal (Huber 1964).

Of rows that are gone their deviation σ tells the scale, as E[u·r²] = (2Φ(k) − 1)·σ² of normal r. Rows that come later
have the scale of all together: the median of their own |r| and of σ·|z|, z normal, over 0.6745.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.moments import Sums

HUBER_K = 1.345
NORMAL_MAD = 0.6745  # median of |x| of a standard normal
KEPT_SQUARES = 2 * NormalDist().cdf(HUBER_K) - 1
"""E[u·r²]/σ² of normal r."""

_HALF_NORMAL = np.array([NormalDist().inv_cdf(0.5 + (i + 0.5) / 402) for i in range(201)])
"""|z| of rows as many as these stand for, evenly likely."""

ITERATIONS = 50
CONVERGED = 1e-8

Solve = Callable[[FloatArray], FloatArray]
"""Row factors u → relative residuals (y − ŷ)/y of the fit with them, both of shape (n_obs,)."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """u of every stratum, and the sums of every cell for w = u/y²."""

    factors: FloatArray
    sums: Sums


def uncertain(relative_variance: FloatArray, n: FloatArray, scatter: float) -> FloatArray:
    """Hedges' factors of strata of ``n`` rows; ``scatter`` is Σr²/(n − p) of the form that misses least with u = 1.

    ``relative_variance`` is the mean of (s/y)² in each, NaN where rows have none: they are then taken to be as sure as
    the median of others.
    """
    known = ~np.isnan(relative_variance)
    if not known.any() or relative_variance[known].max() == 0:
        return np.ones(len(relative_variance))
    middle = _median(relative_variance[known], n[known])
    v = relative_variance if known.all() else np.where(known, relative_variance, middle)
    mean = float(v @ n / n.sum())
    # Where the meter explains all of the scatter, a row that claims to be exact must not count for infinitely many, nor
    # where most of them do.
    ω2 = max(scatter - mean, 0.01 * (middle or mean))
    return np.asarray((ω2 + mean) / (ω2 + v))


def _median(values: FloatArray, n: FloatArray) -> float:
    """The value that half of all rows do not exceed; of those within its power of two alone is the order looked at."""
    exponent = np.frexp(values)[1]
    exponent -= exponent.min()
    exponent[values == 0] = 0  # beside the least, whatever power of two that has
    passed = np.cumsum(np.bincount(exponent, n))
    half = passed[-1] / 2
    of_middle = int(np.searchsorted(passed, half))
    values, n = values[exponent == of_middle], n[exponent == of_middle]
    half -= passed[of_middle - 1] if of_middle else 0
    order = np.argsort(values)
    return float(values[order[np.searchsorted(np.cumsum(n[order]), half)]])


def huber(solve: Solve, base: FloatArray) -> FloatArray:
    """Huber's factors on top of ``base``."""
    u = base
    for _ in range(ITERATIONS):
        size = np.abs(solve(u))
        scale = float(np.median(size)) / NORMAL_MAD
        if scale == 0:
            return u
        previous, u = u, _beyond(size, base, scale)
        if np.abs(u - previous).max() < CONVERGED:
            break
    return u


def huber_beside(size: FloatArray, base: FloatArray, n_before: int, scatter: float) -> FloatArray:
    """Huber's factors, on top of ``base``, of rows that a fit to ``n_before`` others misses by ``size``.

    ``scatter`` is the mean of u·r² of those others. A few rows tell no scale of their own: a single one never lies
    beyond it.
    """
    before = np.sqrt(scatter / KEPT_SQUARES) * _HALF_NORMAL
    n_each = np.concatenate([np.ones(len(size)), np.full(len(before), n_before / len(before))])
    scale = _median(np.concatenate([size, before]), n_each) / NORMAL_MAD
    return _beyond(size, base, scale) if scale else base


def _beyond(size: FloatArray, base: FloatArray, scale: float) -> FloatArray:
    return np.asarray(base * np.minimum(1, HUBER_K * scale / np.maximum(size, 1e-300)))
