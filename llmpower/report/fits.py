"""The table of fits: what each model is, how it was judged, and its warnings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmpower.modelling import Fit, WorkloadModel
from llmpower.modelling.fitted.models import labels_of
from llmpower.phrases import percent
from llmpower.report.figure import Table

HEADER = (
    *("Model", "Target", "Form", "n", "Cells", "R²", "F", "p"),
    *("Held-out MAPE [%]", "Median [%]", "Worst [%]", "≤ 0", "Extrapolated [%]", "Noise [%]"),
)


@dataclass(frozen=True, slots=True)
class Detail:
    """One fit in words: its formula, coefficients, range, and why this form."""

    title: str
    formula: str
    coefficients: Table
    lines: Sequence[str]


def fit_table(models: Sequence[WorkloadModel]) -> Table:
    """A row a target of a model."""
    # The page says it of all; where some are real, each row must.
    mixed = len({model.simulated for model in models}) > 1
    rows = []
    for label, model in zip(labels_of(models), models, strict=True):
        for target, unit, fit in targets(model):
            held, beyond = fit.heldout, fit.extrapolation
            rows.append(
                (
                    *(f"{label} (SIMULATED)" if model.simulated and mixed else label, f"{target} [{unit}]", fit.label),
                    *(fit.n_obs, fit.n_cells, fit.r_squared, fit.f_statistic, fit.f_pvalue),
                    *(_percent(held.mape), _percent(held.median_ape), _percent(held.worst_ape)),
                    held.negative_predictions,
                    _percent(None if beyond is None else beyond.mape),
                    _percent(fit.replicate_noise),
                )
            )
    return Table(HEADER, rows, n_labels=3)


def fit_details(models: Sequence[WorkloadModel]) -> Iterator[Detail]:
    """What the table has no room for."""
    for label, model in zip(labels_of(models), models, strict=True):
        for target, unit, fit in targets(model):
            mark = " SIMULATED" if model.simulated else ""
            yield Detail(f"{label}: {target} [{unit}]{mark}", fit.formula, _coefficients(fit), list(_lines(model, fit)))


def targets(model: WorkloadModel) -> tuple[tuple[str, str, Fit], ...]:
    """Name, unit and fit of both."""
    return (("energy", "J", model.energy), ("runtime", "s", model.runtime))


def _coefficients(fit: Fit) -> Table:
    rows = []
    for term, value, error, (low, high) in zip(
        fit.terms, fit.coefficients.tolist(), fit.std_errors.tolist(), fit.coefficient_intervals().tolist(), strict=True
    ):
        rows.append((term, value, _finite(error), _finite(low), _finite(high)))
    return Table(("Term", "Coefficient", "Standard error", "95 % from", "to"), rows)


def _lines(model: WorkloadModel, fit: Fit) -> Iterator[str]:
    (in_low, in_high), (out_low, out_high) = fit.input_range, fit.output_range
    batch = "" if fit.batch_range is None else f" a request, {fit.batch_range[0]} to {fit.batch_range[1]} at a time"
    yield f"Fitted on {in_low} to {in_high} input and {out_low} to {out_high} output tokens{batch}."
    if model.system:
        yield f"System: {model.system}."
    if fit.heldout.bias is not None:
        yield f"Held out, the total is off by {100 * fit.heldout.bias:+.1f} %."
    if fit.nested is not None:
        yield f"Held out with the form chosen without the cell too, MAPE is {_shown(fit.nested.mape)}."
    if fit.estimator:
        yield f"Estimated by {fit.estimator}."
    if fit.choice:
        others = ", ".join(f"{other.form} {_shown(other.heldout.mape)}" for other in fit.alternatives)
        others = f"; others: {others}" if others else ""
        yield f"Form chosen by held-out error{fit.of_first_rows}: {fit.choice}{others}."
    yield from (f"Warning: {warning}." for warning in fit.warnings)


def _shown(fraction: float | None) -> str:
    return "–" if fraction is None else percent(fraction)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
