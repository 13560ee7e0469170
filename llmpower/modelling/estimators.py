"""The two estimators: coefficients, their covariance, and the statistics that statsmodels prints for them.

Ordinary least squares is what the paper did. It minimises joules squared, so the longest queries decide everything
and the short ones are predicted at several times their cost, or below zero. Relative least squares with
non-negative coefficients asks for the same percentage everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpower.modelling.forms import FloatArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """Coefficients of shape (n_terms,) with what is known about them; NaN and ``None`` where nothing is."""

    coefficients: FloatArray
    std_errors: FloatArray
    covariance: FloatArray
    r_squared: float | None
    f_statistic: float | None
    f_pvalue: float | None


def ordinary_least_squares(design: FloatArray, y: FloatArray) -> Estimate:
    """Minimise Σ (y − Xβ)²; ``design`` X of shape (n_obs, n_terms), ``y`` of shape (n_obs,).

    R², F and p are statsmodels' own: without an intercept its R² is the uncentred one.
    """
    from statsmodels.regression.linear_model import OLS

    results = OLS(y, design).fit()
    return _estimate(results, np.asarray(results.params), np.full(design.shape[1], True))


def relative_least_squares(design: FloatArray, y: FloatArray) -> Estimate:
    """Minimise Σ ((y − Xβ)/y)² subject to β ≥ 0; shapes as :func:`ordinary_least_squares`, y > 0.

    scipy solves it as non-negative least squares on the rows of X/y against 1. On the terms that come out above zero
    the bound does not bind, so weighted least squares with weights 1/y² on those terms alone has the same
    coefficients: statsmodels' WLS gives their covariance, R², F and p, conditional on the other terms being zero.
    Those others have no standard error (NaN).
    """
    from statsmodels.regression.linear_model import WLS

    β = non_negative_least_squares(design / y[:, np.newaxis], np.ones_like(y))
    free = β > 0
    return _estimate(WLS(y, design[:, free], weights=y**-2).fit(), β, free)


def non_negative_least_squares(A: FloatArray, b: FloatArray) -> FloatArray:
    """Minimise ‖Aβ − b‖ subject to β ≥ 0, with columns scaled to unit length: ours span ten orders of magnitude."""
    from scipy.optimize import nnls

    lengths = np.linalg.norm(A, axis=0)
    β: FloatArray = nnls(A / lengths, b)[0] / lengths
    return β


def r_squared_raw(y: FloatArray, predicted: FloatArray) -> tuple[float | None, float | None]:
    """R² on the raw scale, centred and uncentred: 1 − Σ(y − ŷ)²/Σ(y − ȳ)² and 1 − Σ(y − ŷ)²/Σy²."""
    residual = float(np.sum((y - predicted) ** 2))
    about_mean, about_zero = float(np.sum((y - y.mean()) ** 2)), float(np.sum(y**2))
    return (1 - residual / about_mean if about_mean > 0 else None), 1 - residual / about_zero


def _estimate(results: Any, coefficients: FloatArray, free: np.ndarray[Any, np.dtype[np.bool_]]) -> Estimate:
    """Spread the statistics of the free terms over all terms."""
    n_terms = len(free)
    covariance = np.full((n_terms, n_terms), np.nan)
    if results.df_resid > 0:
        covariance[np.ix_(free, free)] = results.cov_params()
    return Estimate(
        coefficients=coefficients,
        std_errors=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        r_squared=_finite(results.rsquared),
        f_statistic=_finite(results.fvalue) if results.df_resid > 0 else None,
        f_pvalue=_finite(results.f_pvalue) if results.df_resid > 0 else None,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
