"""A fit that learns from new measurements without the old ones.

The sums that a fit leaves in models.json are added to those of the new rows, and coefficients, R², F and p follow from
them exactly as from all rows together. What sums do not tell is treated so:

- **Held-out error.** The old model is asked for the new rows before it learns from them: they were never seen, so this
  is a held-out error, and it is averaged with the old one by rows. Medians cannot be, and are left out,
  as are errors with a length held out: those of the old fit are not those of this one.
- **Standard errors.** Scores of the new cells, s_c = Σ w·x·(y − xβ)/(1 − h_c), say of the new rows what the old errors
  say of the old ones:

      X = G⁻¹·G_old·C_old·G_old·G⁻¹,     Y = G⁻¹·Σ_c s_c·s_cᵀ·G⁻¹        (the sandwich by cells, CR3; Bell and
                                                                         McCaffrey 2002)

  X + Y would be right of other cells. But the same lengths come again, and what the form misses there it misses again:
  noise averages out, this does not. Which cells they are, sums do not say, so all are taken for old ones. With τ² of
  the relative residuals' variance due to the form, σ² due to the noise of trials, and m cells of n rows each time, the
  two errors then have the correlation ρ, and

      C = (1 + ρ·b/a)·X + (1 + ρ·a/b)·Y,     a² = tr(G·X),  b² = tr(G·Y)

      ρ = τ² / √((τ² + σ²·m_old/n_old)·(τ² + σ²·m/n)) · √(min(m_old, m) / max(m_old, m))

- **Outliers.** New rows of a robust fit count by how far the old model misses them, on the scale of old and new rows
  together (:mod:`~llmpower.modelling.regressing.weights`).
- **The form** stays, and so does the noise of repeated trials; whether another form would do better by now, only a fit
  to all rows can tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.fitted.models import PROSPECTIVE, Fit, HeldOut, WorkloadModel, models_of
from llmpower.modelling.fitting import AUTO, fit_group, forms_of
from llmpower.modelling.forms import Batched, Phases, make_form
from llmpower.modelling.judging.details import JACKKNIFE, fitted_ranges
from llmpower.modelling.judging.estimators import weighted_statistics
from llmpower.modelling.judging.heldout import compare, with_quantiles
from llmpower.modelling.linear import FloatArray, Form
from llmpower.modelling.regressing.designs import Designs
from llmpower.modelling.regressing.outliers import HUBER
from llmpower.modelling.regressing.parts import Part, moments_of, parts_of
from llmpower.modelling.regressing.solving import inverse, solve
from llmpower.modelling.regressing.totals import MATCHED
from llmpower.modelling.regressing.weights import huber_beside, uncertain
from llmpower.modelling.rows.grouping import group_rows
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import FitMoments, Sums
from llmpower.modelling.rows.strata import TOKENS
from llmpower.modelling.rows.targets import Target
from llmpower.phrases import plural

if TYPE_CHECKING:
    import pandas as pd

LEARNT = ", of rows learnt since by the scores of their cells"
"""What an estimator says of its standard errors then."""


def update(
    models: WorkloadModel | Iterable[WorkloadModel],
    measurements: pd.DataFrame,
    *,
    group_by: str | Sequence[str] | None = None,
) -> list[WorkloadModel]:
    """The models with what ``measurements`` add to them; one that is new is fitted as :func:`~.fitting.fit` would.

    Args:
        models: all of one boundary, with the sums that :func:`~.fitting.fit` leaves.
        measurements: as for :func:`~.fitting.fit`; only rows that no model has learnt from.
        group_by: as the models were fitted.

    Raises:
        InputError: models of several boundaries, one without sums, or one that was matched to its total.
        FitError: rows that cannot be, or simulated ones for a model of real ones.
    """
    models = models_of(models)
    boundaries = {model.boundary for model in models}
    if len(boundaries) > 1:
        found = ", ".join(sorted(map(str, boundaries)))
        raise InputError(
            "boundary", found, "models of different boundaries are updated separately; keep one kind per file"
        )
    boundary = next(iter(boundaries), None) or "gpu"
    updated = {(model.model_name, model.system): model for model in models}
    fresh: list[Group] = []
    for group in group_rows(measurements, group_by, boundary, whole=True):
        known = updated.get((group.model_name, group.system))
        if known is None:
            fresh.append(group)
        else:
            updated[group.model_name, group.system] = _updated(known, group)
    for group in fresh:
        updated[group.model_name, group.system] = fit_group(group, forms_of(AUTO))
    return [updated[key] for key in sorted(updated)]


def _updated(model: WorkloadModel, group: Group) -> WorkloadModel:
    if model.simulated != group.simulated:
        kinds = "simulated rows for a model of real ones" if group.simulated else "real rows for a simulated model"
        raise FitError("simulated", str(group.simulated).lower(), f"{model.model_name}: {kinds}; they do not mix")
    if model.boundary != group.boundary:
        advice = f"{model.model_name} was fitted on {model.boundary}; joules of different boundaries do not mix"
        raise FitError("boundary", group.boundary, advice)
    return replace(
        model,
        energy=_learn(model, model.energy, group, group.energy),
        runtime=_learn(model, model.runtime, group, group.runtime),
    )


def _learn(model: WorkloadModel, old: Fit, group: Group, target: Target) -> Fit:
    if old.moments is None:
        advice = f"{model.model_name} was fitted by a version that kept no sums; fit again from all measurements"
        raise InputError("moments", "missing", advice)
    if MATCHED in old.estimator:
        advice = f"{model.model_name}: its sums do not say what predictions add up to; fit again from all measurements"
        raise InputError("estimator", MATCHED, advice)
    form = make_form(old.form, intercept="intercept" in old.terms)
    if HUBER in old.estimator and type(form) is Phases:
        advice = f"{model.model_name}: the sums of its phases hold outliers in full; fit again from all measurements"
        raise InputError("estimator", HUBER, advice)
    designs = Designs(group)
    asked = designs.of_cells(form, target, target.relative if form.non_negative else target.raw) @ old.coefficients
    columns = designs.of_rows(form, target)
    asked_rows = np.dot(old.coefficients, columns) if columns else asked[group.cells]
    sums = target.raw
    if form.non_negative:
        missed = 1 - asked_rows / target.y
        u = np.ones(len(group.strata))
        sums = target.relative
        if target.sure is not None:
            u = uncertain(target.sure.variance, target.sure.sums.n, float(missed @ missed) / len(missed))
            sums = target.sure.sums.gathered(group.strata, u)
        if HUBER in old.estimator:
            before = old.moments.relative
            scatter = before.residual(old.coefficients) / max(1, before.n - len(old.coefficients))
            of_rows = huber_beside(np.abs(missed), u[group.row_strata], before.n, scatter)
            lengths = None if group.row_lengths is None else group.row_lengths[: len(TOKENS)]
            sums = Sums.of_rows(group.cells, target.y, of_rows / target.y**2, group.n_cells, lengths)
    new = moments_of(designs, target, form, sums, old.coefficients)
    moments = FitMoments(
        old.moments.estimate + new.estimate, old.moments.relative + new.relative, old.moments.raw + new.raw
    )
    β = solve(moments.estimate.gram, moments.estimate.moment, non_negative=form.non_negative)
    ρ = _correlation(old, group, moments, β)
    covariance = _covariance(old, form, moments, β, list(parts_of(designs, target, form, sums)), ρ)
    statistics = weighted_statistics(moments.relative, β, constant=_constant(form, β))
    (in_low, in_high), (out_low, out_high), batch = fitted_ranges(group, form)
    heldout = with_quantiles(*compare(asked, target.y, group.cells, PROSPECTIVE, asked_rows))
    served = () if isinstance(form, Batched) else group.served
    return replace(
        old,
        coefficients=β,
        covariance=covariance,
        std_errors=np.sqrt(np.diag(covariance)),
        n_obs=moments.relative.n,
        r_squared=statistics.r_squared,
        f_statistic=statistics.f_statistic,
        f_pvalue=statistics.f_pvalue,
        r_squared_centered=moments.raw.r_squared(β, centered=True),
        r_squared_uncentered=moments.raw.r_squared(β, centered=False),
        heldout=_averaged(old, heldout, group.n_obs, float(target.raw.wy.sum())),
        input_range=(min(old.input_range[0], in_low), max(old.input_range[1], in_high)),
        output_range=(min(old.output_range[0], out_low), max(old.output_range[1], out_high)),
        batch_range=None if batch is None else _union(old.batch_range, batch),
        # Which of the new cells are old ones, sums do not say; counting none of them as further is on the safe side.
        n_cells=max(old.n_cells or 0, group.n_cells),
        warnings=tuple(dict.fromkeys((*old.warnings, *target.warnings, *served, _news(heldout, group.n_obs)))),
        moments=moments,
        nested=None,
        extrapolation=None,
        estimator=old.estimator.replace(LEARNT, "").replace(JACKKNIFE, JACKKNIFE + LEARNT),
    )


def _correlation(old: Fit, group: Group, moments: FitMoments, β: FloatArray) -> float:
    """ρ as above; the noise is that of the first fit's trials, and none where it had no cell twice."""
    σ2 = (old.replicate_noise or 0.0) ** 2
    τ2 = moments.relative.residual(β) / max(1, moments.relative.n - len(β)) - σ2
    if τ2 <= 0:
        return 0.0
    m_old, m = old.n_cells or old.n_obs, group.n_cells
    of_cells = (τ2 + σ2 * m_old / old.n_obs) * (τ2 + σ2 * m / group.n_obs)
    return float(τ2 / np.sqrt(of_cells) * np.sqrt(min(m_old, m) / max(m_old, m)))


def _covariance(
    old: Fit, form: Form, moments: FitMoments, β: FloatArray, parts: Sequence[Part], ρ: float
) -> FloatArray:
    """C as above, on the terms that are not at zero; the usual one of ordinary least squares."""
    assert old.moments is not None
    free = β > 0 if form.non_negative else np.ones(len(β), dtype=bool)
    covariance = np.full((len(β), len(β)), np.nan)
    if not free.any():
        return covariance
    chosen = np.ix_(free, free)
    inverted = inverse(moments.estimate.gram[chosen])
    if form.non_negative:
        # Products in this order, and not G·C·G first: where lengths lie close together it cancels all but a few digits.
        A = inverted @ old.moments.estimate.gram[free]
        X, Y = A @ np.nan_to_num(old.covariance) @ A.T, np.zeros_like(inverted)
        known = np.zeros_like(covariance)
        known[chosen] = inverted
        for part in parts:
            moved = _scores(part, β[part.terms], known[part.terms, part.terms]) @ known[part.terms][:, free]
            Y += moved.T @ moved
        a, b = (np.sqrt(max(0.0, float(np.vdot(moments.estimate.gram[chosen], of)))) for of in (X, Y))
        C = (1 + ρ * b / a) * X + (1 + ρ * a / b) * Y if a and b else X + Y
        covariance[chosen] = (C + C.T) / 2  # symmetric but for rounding
    elif moments.raw.n > len(β):
        covariance[chosen] = moments.raw.residual(β) / (moments.raw.n - len(β)) * inverted
    return covariance


def _scores(part: Part, β: FloatArray, inverted: FloatArray) -> FloatArray:
    """s_c of the new cells, shape (n_cells, n_terms), each over 1 − h_c as if its cell had been left out.

    h_c = W_c·x_c·G⁻¹·x_cᵀ: what a cell pulls the fit towards itself, its residual does not show.
    """
    W = part.sums.w
    missed = part.sums.wy - W * (part.design @ β)
    h = W * np.einsum("ij,jk,ik->i", part.design, inverted, part.design)
    return np.asarray(part.design * (missed / np.maximum(1 - h, 1e-3))[:, np.newaxis])


def _averaged(old: Fit, new: HeldOut, n_new: int, y_new: float) -> HeldOut:
    """Both errors over all rows; the old one is not known where some cell could not be spared."""
    assert old.moments is not None
    before = old.heldout
    if before.mape is None or new.mape is None or before.worst_ape is None or new.worst_ape is None:
        return new
    n_old, y_old = old.moments.raw.n, old.moments.raw.wy
    bias = (
        None if before.bias is None or new.bias is None else (before.bias * y_old + new.bias * y_new) / (y_old + y_new)
    )
    return HeldOut(
        mape=(n_old * before.mape + n_new * new.mape) / (n_old + n_new),
        median_ape=None,
        worst_ape=max(before.worst_ape, new.worst_ape),
        negative_predictions=(before.negative_predictions or 0) + (new.negative_predictions or 0),
        scheme=PROSPECTIVE,
        bias=bias,
    )


def _news(heldout: HeldOut, n: int) -> str:
    assert heldout.mape is not None
    assert heldout.bias is not None
    return (
        f"before it learnt from {plural(n, 'new row')} the model was off by {100 * heldout.mape:.1f} % on them,"
        f" {100 * heldout.bias:+.1f} % in total"
    )


def _constant(form: Form, β: FloatArray) -> bool:
    """Whether a term above zero is a constant."""
    return any(term in ("intercept", "p0", "q0") and value != 0 for term, value in zip(form.terms, β, strict=True))


def _union(ours: tuple[int, int] | None, theirs: tuple[int, int]) -> tuple[int, int]:
    return theirs if ours is None else (min(ours[0], theirs[0]), max(ours[1], theirs[1]))
