"""What is printed of a fit: standard errors, R², F and p.

Ordinary least squares is what the paper did, and its figures are statsmodels' own. It minimises joules squared, so the
longest queries decide everything and the short ones are predicted at several times their cost, or below zero. Relative
least squares with non-negative coefficients asks for the same percentage everywhere; R², F and p are then what
statsmodels' WLS gives for these weights and the terms above zero, computed here because a million rows need no more
than their sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.moments import Moments


@dataclass(frozen=True, slots=True)
class Statistics:
    """As statsmodels prints them for a fit; ``None`` where the data do not determine one."""

    r_squared: float | None
    f_statistic: float | None
    f_pvalue: float | None


def ordinary_least_squares(design: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, Statistics]:
    """β, its covariance and statistics of min Σ (y − Xβ)²; X of shape (n_obs, n_terms), y of shape (n_obs,).

    All by statsmodels, whose R² is the uncentred one where there is no intercept.
    """
    from statsmodels.regression.linear_model import OLS

    # Of columns of unit length, by which terms are told apart here and everywhere (regressing/cells.py): tokens beside
    # their products make statsmodels find a rank too low, and F by as many degrees of freedom.
    length = np.linalg.norm(design, axis=0)
    results = OLS(y, design / length).fit()
    determined = results.df_resid > 0
    covariance = np.asarray(results.cov_params()) if determined else np.full((design.shape[1],) * 2, np.nan)
    statistics = Statistics(
        _finite(results.rsquared),
        _finite(results.fvalue) if determined else None,
        _finite(results.f_pvalue) if determined else None,
    )
    return np.asarray(results.params) / length, covariance / np.outer(length, length), statistics


def weighted_statistics(moments: Moments, β: FloatArray, *, constant: bool) -> Statistics:
    """R², F and p of a weighted fit, with a ``constant`` among its terms above zero or without.

    R² = 1 − S/T     S = Σw(y − Xβ)²     T = Σw(y − ȳ)² with a constant, Σwy² without
    F  = (T − S)/k / (S/(n − p))         p terms above zero, k of them not constant
    """
    p, S, T = int(np.count_nonzero(β)), moments.residual(β), moments.total(centered=constant)
    k, degrees = p - constant, moments.n - p
    if k <= 0 or degrees <= 0 or S <= 0:
        return Statistics(moments.r_squared(β, centered=constant), None, None)
    from scipy.special import fdtrc

    F = (T - S) / k / (S / degrees)
    return Statistics(1 - S / T, _finite(F), _finite(float(fdtrc(k, degrees, F))))


def jackknife(folds: FloatArray, free: NDArray[np.bool_]) -> FloatArray:
    """Covariance of the coefficients by deleting one cell of m at a time; NaN on terms that are not free.

        C = (m − 1)/m · Σ_c (β₋c − β̄)(β₋c − β̄)ᵀ

    Rows of one cell miss the form together, and cells miss it by differing amounts; formulas that take rows for
    independent and alike make the errors of a thousand trials on ten cells thirty times too small. The jackknife takes
    the cells as they come (Efron 1982; with clusters, MacKinnon, Nielsen and Webb 2023), bounds included.
    """
    m = len(folds)
    away = folds[:, free] - folds[:, free].mean(axis=0)
    covariance = np.full((len(free), len(free)), np.nan)
    covariance[np.ix_(free, free)] = (m - 1) / m * (away.T @ away)
    return covariance


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
