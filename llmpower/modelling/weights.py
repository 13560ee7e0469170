"""What each row counts: the same percentage everywhere, less where its joules are unsure, less still for outliers.

Relative least squares minimises Σ u·((y − ŷ)/y)², so a row's weight is w = u/y².

**Uncertainty.** A row with standard deviation s has the relative variance v = (s/y)², but rows also miss the form by
something of their own, ω², which no better meter would take away. Weights of 1/v alone would let the longest spans
decide everything. So

    u = (ω² + v̄)/(ω² + v),     ω² = max(0, Σr²/(n − p) − v̄)

with r the relative residuals of the fit with u = 1: Hedges' moment estimator, as random-effects meta-analysis has it
(Hedges and Olkin 1985). Where the form misses by more than the meter does, rows count about the same.

**Outliers.** On request, Huber's weights: rows within k = 1.345 scales keep theirs, those beyond get k·scale/|r|,
iterated; the scale is the median of |r| over 0.6745. Least squares loses 5 % of its efficiency to them where errors
are normal (Huber 1964).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llmpower.modelling.linear import FloatArray

HUBER_K = 1.345
NORMAL_MAD = 0.6745  # median of |x| of a standard normal
ITERATIONS = 50
CONVERGED = 1e-8

Solve = Callable[[FloatArray], FloatArray]
"""Row factors u → relative residuals (y − ŷ)/y of the fit with them, both of shape (n_obs,)."""


def row_factors(
    solve: Solve, relative_variance: FloatArray | None, n_obs: int, n_terms: int, *, robust: bool
) -> FloatArray:
    """Factors u of every row, shape (n_obs,), mean of order 1.

    ``relative_variance`` is (s/y)², NaN where a row has none: it is then taken to be as sure as the median of others.
    """
    u = np.ones(n_obs)
    if relative_variance is not None and not np.isnan(relative_variance).all():
        v = np.where(np.isnan(relative_variance), np.nanmedian(relative_variance), relative_variance)
        u = _uncertain(solve(u), v, n_terms)
    return _huber(solve, u) if robust else u


def _uncertain(residual: FloatArray, v: FloatArray, n_terms: int) -> FloatArray:
    """Hedges' weights; all rows alike where residuals leave no degree of freedom to tell ω² by."""
    degrees = len(v) - n_terms
    if degrees <= 0 or v.max() == 0:
        return np.ones(len(v))
    ω2 = max(0.0, float(residual @ residual) / degrees - float(v.mean()))
    # Where the meter explains all of the scatter, a row that claims to be exact must not count for infinitely many.
    floor = max(ω2, float(np.median(v)) * 1e-2)
    return np.asarray((floor + v.mean()) / (floor + v))


def _huber(solve: Solve, base: FloatArray) -> FloatArray:
    u = base
    for _ in range(ITERATIONS):
        size = np.abs(solve(u))
        scale = float(np.median(size)) / NORMAL_MAD
        if scale == 0:
            return u
        previous, u = u, base * np.minimum(1, HUBER_K * scale / np.maximum(size, 1e-300))
        if np.abs(u - previous).max() < CONVERGED:
            break
    return u
