"""What is said of the form that was chosen: statistics, standard errors, ranges, further held-out errors, warnings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmpower.modelling.fitted.models import SHORT, Fit
from llmpower.modelling.forms import Batched, FloatArray, Form, Phases
from llmpower.modelling.judging.choosing import Candidate
from llmpower.modelling.judging.estimators import Statistics, jackknife, ordinary_least_squares, weighted_statistics
from llmpower.modelling.judging.heldout import leave_one_length_out, replicate_noise, with_quantiles
from llmpower.modelling.regressing.designs import Designs
from llmpower.modelling.regressing.outliers import HUBER
from llmpower.modelling.regressing.parts import moments_of
from llmpower.modelling.regressing.regression import Regression
from llmpower.modelling.regressing.solving import inverse
from llmpower.modelling.regressing.totals import MATCHED
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import FitMoments
from llmpower.modelling.rows.strata import LENGTHS, Codes
from llmpower.modelling.rows.targets import Target

JACKKNIFE = "standard errors by the delete-one-cell jackknife"
"""What an estimator says of it."""


def detailed(
    group: Group, target: Target, candidate: Candidate, designs: Designs, bands: Sequence[Codes], *, robust: bool
) -> Fit:
    """Everything that is said of the form that was chosen."""
    regression, form = candidate.regression, candidate.regression.form
    moments = moments_of(designs, target, form, regression.sums, regression.solution)
    if form.non_negative:
        β, constant = regression.coefficients, _has_constant(regression)
        statistics = weighted_statistics(moments.relative, β, constant=constant)
        covariance = _covariance(regression, moments, candidate.folds)
    else:
        β, covariance, statistics = _ordinary(group, target, regression, moments)
    input_range, output_range, batch_range = fitted_ranges(group, form)
    return Fit(
        form=form.name,
        terms=form.terms,
        coefficients=β,
        std_errors=np.sqrt(np.diag(covariance)),
        covariance=covariance,
        n_obs=group.n_obs,
        r_squared=statistics.r_squared,
        r_squared_centered=moments.raw.r_squared(β, centered=True),
        r_squared_uncentered=moments.raw.r_squared(β, centered=False),
        f_statistic=statistics.f_statistic,
        f_pvalue=statistics.f_pvalue,
        heldout=candidate.heldout if candidate.errors is None else with_quantiles(candidate.heldout, candidate.errors),
        input_range=input_range,
        output_range=output_range,
        warnings=tuple(_doubts(group, candidate)),
        n_cells=group.n_cells,
        batch_range=batch_range,
        extrapolation=leave_one_length_out(regression, group, target.y, bands),
        replicate_noise=None if group.row_lengths is not None else replicate_noise(target.raw),
        estimator=_estimator(target, candidate, robust=robust),
        moments=moments,
    )


def _ordinary(
    group: Group, target: Target, regression: Regression, moments: FitMoments
) -> tuple[FloatArray, FloatArray, Statistics]:
    """By statsmodels from the rows where they are all there, by the same formulas from their sums where not."""
    if group.whole:
        return ordinary_least_squares(regression.design[group.cells], target.y)
    β, p = regression.coefficients, len(regression.coefficients)
    covariance = moments.raw.residual(β) / (group.n_obs - p) * inverse(moments.raw.gram)
    return β, covariance, weighted_statistics(moments.raw, β, constant=_has_constant(regression))


def _covariance(regression: Regression, moments: FitMoments, folds: FloatArray | None) -> FloatArray:
    """By the jackknife; where cells cannot be spared, by the residual variance over the terms above zero."""
    free = regression.free
    if folds is not None:
        return jackknife(folds, free)
    covariance = np.full((len(free), len(free)), np.nan)
    degrees = moments.estimate.n - int(free.sum())
    if degrees > 0 and free.any():
        variance = regression.scale**2 * moments.estimate.residual(regression.solution) / degrees
        covariance[np.ix_(free, free)] = variance * inverse(moments.estimate.gram[np.ix_(free, free)])
    return covariance


def _has_constant(regression: Regression) -> bool:
    """Whether a term above zero multiplies the same number in every cell."""
    design = regression.design[:, regression.free]
    return bool((design == design[0]).all(axis=0).any())


def _estimator(target: Target, candidate: Candidate, *, robust: bool) -> str:
    if not candidate.regression.form.non_negative:
        return "ordinary least squares (statsmodels)"
    parts = ["least squares on relative error, coefficients ≥ 0"]
    if isinstance(candidate.regression.form, Phases):
        parts = ["prefill and decode apart, each by " + parts[0]]
    elif target.sure is not None:
        parts.append("rows weighted by their standard deviations")
    if robust:
        parts.append(HUBER)
    if candidate.regression.totals is not None:
        parts.append(MATCHED)
    how = "standard errors of the residuals" if candidate.folds is None else JACKKNIFE
    return "; ".join([*parts, how])


def _doubts(group: Group, candidate: Candidate) -> list[str]:
    heldout, label, doubts = candidate.heldout, candidate.label, []
    if heldout.mape is None:
        doubts.append(f"no held-out error: without some of the {group.n_cells} cells the form {label} is undetermined")
    if heldout.negative_predictions:
        n = heldout.negative_predictions
        doubts.append(
            f"{n} of {group.n_cells} held-out cells predicted at or below zero: not to be trusted on short queries"
        )
    if heldout.bias is not None and heldout.bias < -SHORT and candidate.regression.form.non_negative:
        doubts.append(
            f"predictions add up to {-100 * heldout.bias:.1f} % less than was measured, as relative error is drawn to"
            " the cheaper of rows that vary; for totals fit with --match-total"
        )
    if outliers := candidate.regression.outliers:
        doubts.append(f"{outliers} of {group.n_obs} rows are outliers and count for less than half (--robust)")
    return doubts


def fitted_ranges(group: Group, form: Form) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int] | None]:
    """Lowest and highest input and output tokens, and requests at a time where the form knows of them.

    A form of batches speaks of one request, all others of what a row holds.
    """
    inputs, outputs = ("input_tokens_each", "output_tokens_each") if isinstance(form, Batched) else LENGTHS[:2]
    batch = _whole(group.ranges["sharing"]) if isinstance(form, Batched) else None
    return _whole(group.ranges[inputs]), _whole(group.ranges[outputs]), batch


def _whole(ends: tuple[float, float]) -> tuple[int, int]:
    """Whole numbers that contain them."""
    return int(np.floor(ends[0])), int(np.ceil(ends[1]))
