"""Measurements → workload models: fit each form, keep the one that predicts unseen cells best.

R² near 0.97 is what a form reaches that is wrong by a factor of three on short queries, so it decides nothing here.
Forms compete by held-out error, and a form that predicts some cell at or below zero loses to one that does not: an
optimiser seeks out exactly those cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llmpower.exceptions import FitError
from llmpower.modelling.estimators import ordinary_least_squares, r_squared_raw, relative_least_squares
from llmpower.modelling.forms import FORMS, FloatArray, Form, Paper, make_form
from llmpower.modelling.groups import Group, group_rows
from llmpower.modelling.heldout import leave_one_cell_out
from llmpower.modelling.models import Alternative, Fit, WorkloadModel

if TYPE_CHECKING:
    import pandas as pd

AUTO = "auto"
# Ratio of smallest to largest singular value, columns of unit length, below which terms cannot be told apart.
RANK_TOLERANCE = 1e-9


def fit(
    measurements: pd.DataFrame,
    *,
    form: str = AUTO,
    intercept: bool = False,
    group_by: Sequence[str] | None = None,
    boundary: str = "gpu",
) -> list[WorkloadModel]:
    """Fit energy and runtime of every model in ``measurements``.

    Args:
        measurements: one row a span, with ``model_name``, ``input_tokens``, ``output_tokens``, ``runtime_s`` [s]
            and ``gpu_energy_j`` or ``energy_j`` [J]. Rows whose energy is empty are left out and counted in the
            fits' warnings.
        form: a name of :data:`~llmpower.modelling.forms.FORMS`, or ``auto`` for the least held-out error, chosen
            for energy and runtime apart.
        intercept: give the form ``paper`` a constant.
        group_by: one model per distinct values of these columns; by default ``model_name``, and ``system`` where
            there is such a column. Columns beyond those two become part of the name: ``Llama [batch_size=8]``.
        boundary: ``gpu``, ``cpu`` or ``gpu+cpu``: what the energy covers.

    Returns:
        The models, sorted by the values they are grouped by.

    Raises:
        InputError: an option is unknown.
        FitError: the measurements cannot carry the form: a row is impossible, there are fewer cells than terms, a
            constant column, terms that cannot be told apart, or simulated rows mixed with real ones.
    """
    if form == AUTO:
        forms = [make_form(name, intercept=intercept and name == Paper.name) for name in FORMS]
    else:
        forms = [make_form(form, intercept=intercept)]
    return [_fit_model(group, forms) for group in group_rows(measurements, group_by, boundary)]


def _fit_model(group: Group, forms: Sequence[Form]) -> WorkloadModel:
    for column, tokens in (("input_tokens", group.input_tokens), ("output_tokens", group.output_tokens)):
        if tokens.min() == tokens.max():
            advice = (
                f"every row of {group.model_name} has this, so its effect cannot be told; measure other lengths too"
            )
            raise FitError(column, f"{tokens[0]:.0f}", advice)
    return WorkloadModel(
        model_name=group.model_name,
        system=group.system,
        simulated=group.simulated,
        energy=_best(group, group.energy_j, forms, (*group.warnings, *group.energy_warnings)),
        runtime=_best(group, group.runtime_s, forms, group.warnings),
        boundary=group.boundary,
    )


def _best(group: Group, y: FloatArray, forms: Sequence[Form], warnings: tuple[str, ...]) -> Fit:
    """The form with the least held-out error; the others are its alternatives, best first."""
    fits: list[Fit] = []
    refused: dict[str, FitError] = {}
    for form in forms:
        try:
            fits.append(_fit_form(group, y, form))
        except FitError as error:
            refused[form.name] = error
    if not fits:
        raise next(iter(refused.values()))
    best, *others = sorted(fits, key=_merit)
    return replace(
        best,
        warnings=(*warnings, *(f"form {name} left aside: {error}" for name, error in refused.items()), *best.warnings),
        alternatives=tuple(Alternative(other.form, other.heldout) for other in others),
    )


def _merit(candidate: Fit) -> tuple[bool, bool, float]:
    """Sort key, best first: held-out error known, no prediction at or below zero, small MAPE.

    Where no held-out error is known, a form that cannot fall below zero goes first.
    """
    heldout = candidate.heldout
    if heldout.mape is None:
        return True, not FORMS[candidate.form].non_negative, 0.0
    return False, bool(heldout.negative_predictions), heldout.mape


def _fit_form(group: Group, y: FloatArray, form: Form) -> Fit:
    X = form.design(group.input_tokens, group.output_tokens)
    _refuse_undetermined(group, form, X / y[:, np.newaxis] if form.non_negative else X)
    estimate = (relative_least_squares if form.non_negative else ordinary_least_squares)(X, y)
    predicted = X @ estimate.coefficients
    centered, uncentered = r_squared_raw(y, predicted)
    heldout = leave_one_cell_out(X, y, group.cells, non_negative=form.non_negative)
    warnings = []
    if heldout.mape is None:
        warnings.append(
            f"no held-out error: without some of the {group.n_cells} cells the form {form.name} is undetermined"
        )
    if heldout.negative_predictions:
        n = heldout.negative_predictions
        warnings.append(
            f"{n} of {group.n_cells} held-out cells predicted at or below zero: not to be trusted on short queries"
        )
    return Fit(
        form=form.name,
        terms=form.terms,
        coefficients=estimate.coefficients,
        std_errors=estimate.std_errors,
        covariance=estimate.covariance,
        n_obs=len(y),
        r_squared=estimate.r_squared,
        r_squared_centered=centered,
        r_squared_uncentered=uncentered,
        f_statistic=estimate.f_statistic,
        f_pvalue=estimate.f_pvalue,
        heldout=heldout,
        input_range=(int(group.input_tokens.min()), int(group.input_tokens.max())),
        output_range=(int(group.output_tokens.min()), int(group.output_tokens.max())),
        warnings=tuple(warnings),
    )


def _refuse_undetermined(group: Group, form: Form, weighted: FloatArray) -> None:
    n_terms = len(form.terms)
    if group.n_cells < n_terms:
        advice = f"{group.model_name}: fewer (input, output) cells than the {n_terms} terms of form {form.name}"
        raise FitError("cells", group.n_cells, f"{advice}; measure more cells")
    lengths = np.linalg.norm(weighted, axis=0)
    singular = np.linalg.svd(weighted / np.where(lengths > 0, lengths, 1), compute_uv=False)
    if singular[-1] < RANK_TOLERANCE * singular[0]:
        advice = f"{group.model_name}: its {group.n_cells} cells cannot tell the form's terms apart; vary both lengths"
        raise FitError("form", form.name, advice)
