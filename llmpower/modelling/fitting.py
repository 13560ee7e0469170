"""Measurements → workload models: fit each form, keep the one that predicts unseen cells best.

What is the same for every row of a cell is done once per cell, and forms are compared without refitting:
the price of ``auto`` is a few passes over the cells for each form. Only the form that was chosen is looked at closely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.fitted.models import Alternative, Fit, HeldOut, WorkloadModel
from llmpower.modelling.forms import FORM_NAMES, Batched, Form, Phases, make_form
from llmpower.modelling.judging.choosing import Candidate, choose
from llmpower.modelling.judging.details import detailed
from llmpower.modelling.judging.heldout import in_all, length_bands, predict_held_out
from llmpower.modelling.judging.nesting import nested
from llmpower.modelling.regressing.designs import Designs
from llmpower.modelling.regressing.regression import Regression, matched, regress, weigh
from llmpower.modelling.rows.grouping import makers_of_rows
from llmpower.modelling.rows.groups import Group, Maker
from llmpower.modelling.rows.strata import Codes
from llmpower.modelling.rows.targets import Target

if TYPE_CHECKING:
    import pandas as pd

AUTO = "auto"


def fit(
    measurements: pd.DataFrame,
    *,
    form: str = AUTO,
    intercept: bool = False,
    group_by: str | Sequence[str] | None = None,
    boundary: str = "gpu",
    robust: bool = False,
    match_total: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[WorkloadModel]:
    """Fit energy and runtime of every model in ``measurements``.

    Args:
        measurements: one row per span, with ``model_name``, ``input_tokens``, ``output_tokens``, ``runtime_s`` [s]
            and ``gpu_energy_j`` or ``energy_j`` [J]. Rows whose energy is empty are left out and counted in the
            fits' warnings. ``gpu_energy_std_j`` [J], where there is such a column, says how sure each row is;
            ``batch_size`` and ``concurrency`` matter to the form ``batched``; ``prefill_energy_j``,
            ``decode_energy_j`` [J] and ``time_to_first_token_s`` [s] to the form ``phases``.
        form: a name of :data:`~llmpower.modelling.forms.FORM_NAMES`, or ``auto`` for the least held-out error that a
            form with fewer terms does not reach as well, chosen for energy and runtime apart.
        intercept: give the form ``paper`` a constant; the same as ``paper+intercept``.
        group_by: one model per distinct values of these columns, or of one; by default ``model_name``, and ``system``
            where there is such a column. Columns beyond those two become part of the name: ``Llama [batch_size=8]``.
        boundary: what the energy covers: a name of :data:`~llmpower.modelling.rows.boundary.BOUNDARIES`.
        robust: let outliers count for less, by Huber's weights. The form ``paper`` stays ordinary least squares.
        match_total: scale each fit so that its predictions add up to what was measured
            (:mod:`~llmpower.modelling.regressing.totals`). Not with ``robust``, nor for the form ``paper``.
        progress: called with the number of models fitted and of all of them.

    Returns:
        The models, sorted by the values they are grouped by.

    Raises:
        InputError: an option is unknown, or both ``robust`` and ``match_total`` are asked for.
        FitError: the measurements cannot carry the form: a row is impossible, there is one cell or fewer cells than
            terms, a constant column, terms that cannot be told apart, or simulated rows mixed with real ones.

    Example:
        >>> import pandas as pd
        >>> L = (8, 64, 512)
        >>> rows = pd.DataFrame(
        ...     [("llama", τin, τout, 5 + 0.1 * τin + 2 * τout, 0.1 + 0.02 * τout) for τin in L for τout in L],
        ...     columns=["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"],
        ... )
        >>> (model,) = fit(rows, form="cached")
        >>> model.energy.formula
        'p0 + p1·τin + p2·τin² + d0·τout + d1·(τin·τout + τout(τout−1)/2)'
        >>> round(float(model.energy.predict(100, 50)), 3)
        115.0
        >>> model.energy.heldout.mape < 1e-9
        True
    """
    if robust and match_total:
        raise InputError("--match-total", "given", "outliers count fully in a total; leave it out, or --robust")
    forms = forms_of(form, intercept=intercept)
    makers = makers_of_rows(measurements, group_by, boundary, whole=robust)
    return fit_groups(makers, forms, robust=robust, match_total=match_total, progress=progress)


def fit_groups(
    makers: Sequence[Maker],
    forms: Sequence[Form],
    *,
    robust: bool = False,
    match_total: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[WorkloadModel]:
    """Energy and runtime of every model, one after another; ``progress`` as for :func:`fit`."""
    models: list[WorkloadModel] = []
    for make in makers:
        models.append(fit_group(make(), forms, robust=robust, match_total=match_total))
        if progress is not None:
            progress(len(models), len(makers))
    return models


def forms_of(form: str, *, intercept: bool = False) -> list[Form]:
    """The forms that compete: all of them under ``auto``, or the one named.

    Raises:
        InputError: as :func:`~llmpower.modelling.forms.make_form`.
    """
    return [make_form(name) for name in FORM_NAMES] if form == AUTO else [make_form(form, intercept=intercept)]


def fit_group(group: Group, forms: Sequence[Form], *, robust: bool = False, match_total: bool = False) -> WorkloadModel:
    """Energy and runtime of one model, by the best of ``forms``."""
    if group.n_cells == 1:
        advice = (
            f"all rows of {group.model_name} have the same lengths, so no effect of them can be determined; measure"
            " others"
        )
        raise FitError("cells", 1, advice)
    for column, tokens in (("input_tokens", group.cell_input_tokens), ("output_tokens", group.cell_output_tokens)):
        if tokens.min() == tokens.max():
            advice = (
                f"every row of {group.model_name} has this, so its effect cannot be determined; measure other lengths"
                " too"
            )
            raise FitError(column, f"{tokens[0]:.0f}", advice)
    designs, bands = Designs(group), length_bands(group)
    return WorkloadModel(
        model_name=group.model_name,
        system=group.system,
        simulated=group.simulated,
        energy=_best(group, group.energy, forms, designs, bands, robust=robust, match_total=match_total),
        runtime=_best(group, group.runtime, forms, designs, bands, robust=robust, match_total=match_total),
        boundary=group.boundary,
    )


def _best(
    group: Group,
    target: Target,
    forms: Sequence[Form],
    designs: Designs,
    bands: Sequence[Codes],
    *,
    robust: bool,
    match_total: bool,
) -> Fit:
    """The form to keep; the others are its alternatives, best first."""
    candidates: list[Candidate] = []
    refused: dict[str, FitError] = {}
    forms = [form for form in forms if len(forms) == 1 or _applies(form, group, target)]
    weighting = weigh(group, target, [form for form in forms if form.non_negative], designs)
    for form in forms:
        try:
            regression = regress(group, target, form, designs=designs, weighting=weighting, robust=robust)
            if match_total:
                regression = matched(regression, target, designs)
            candidates.append(_candidate(group, target, regression))
        except FitError as error:
            refused[form.label] = error
    if not candidates:
        raise next(iter(refused.values()))
    chosen, others, reason = choose(candidates, group.cells)
    said = detailed(group, target, chosen, designs, bands, robust=robust)
    served = () if isinstance(chosen.regression.form, Batched) else group.served
    left_aside = (
        f"form {label} skipped: {error.advice if error.field == 'form' else error}" for label, error in refused.items()
    )
    return replace(
        said,
        warnings=(*target.warnings, *served, *left_aside, *said.warnings),
        alternatives=tuple(Alternative(other.label, other.heldout) for other in others),
        choice=reason,
        nested=nested(candidates, group, target.y),
    )


def _applies(form: Form, group: Group, target: Target) -> bool:
    """Whether measurements say at all what the form is about; asked for by name, its absence is an error."""
    if isinstance(form, Batched):
        return group.batched
    return target.phases is not None if isinstance(form, Phases) else True


def _candidate(group: Group, target: Target, regression: Regression) -> Candidate:
    """With what forms are compared by; medians, which cost more than all of that, are for the one that is chosen."""
    held_out = predict_held_out(regression)
    if held_out is None:
        return Candidate(regression, HeldOut(None, None, None, None), None, None)
    predicted, folds = held_out
    errors, missed = regression.judge(folds, predicted, group.cells, target.y)
    return Candidate(regression, in_all(missed, int(np.count_nonzero(predicted <= 0))), errors, folds)
