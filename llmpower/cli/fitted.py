"""Fitted models as ``llmpower fit`` shows them: a table, what is behind each line, and the analysis of variance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmpower import phrases
from llmpower.cli.layout import ABSENT, aligned, compact, covered, formatted, in_percent

if TYPE_CHECKING:
    from llmpower.modelling import Anova, Fit, HeldOut, WorkloadModel


def warnings_of(model: WorkloadModel) -> list[str]:
    """What concerns both targets once, the rest by target."""
    energy, runtime = model.energy.warnings, model.runtime.warnings
    return [
        *(warning for warning in energy if warning in runtime),
        *(f"energy: {warning}" for warning in energy if warning not in runtime),
        *(f"runtime: {warning}" for warning in runtime if warning not in energy),
    ]


def summary_lines(models: Sequence[WorkloadModel]) -> list[str]:
    """A line for each target of each model, and what the energies cover."""
    header = (
        *("MODEL", "SYSTEM", "TARGET", "FORM"),
        *("n", "R²", "F", "p", "MAPE [%]", "NESTED [%]", "MEDIAN [%]", "WORST [%]", "≤0"),
    )
    rows = []
    for model in models:
        system = f"{model.system or ABSENT}{' SIMULATED' if model.simulated else ''}"
        for target, fit in (("energy [J]", model.energy), ("runtime [s]", model.runtime)):
            rows.append(
                (
                    *(model.model_name, system, target, fit.label, str(fit.n_obs)),
                    *(formatted(fit.r_squared, ".4f"), compact(fit.f_statistic, 4), compact(fit.f_pvalue)),
                    *map(in_percent, (fit.heldout.mape, None if fit.nested is None else fit.nested.mape)),
                    *map(in_percent, (fit.heldout.median_ape, fit.heldout.worst_ape)),
                    formatted(fit.heldout.negative_predictions, "d"),
                )
            )
    return [
        *([phrases.SIMULATED] if any(model.simulated for model in models) else []),
        *aligned(header, rows, right=header[4:]),
        "R², F and p as statsmodels prints them. MAPE, MEDIAN, WORST: absolute error on (τin, τout) cells held out"
        " one at a time; NESTED: MAPE where the form, too, is chosen without the cell; ≤0: held-out cells predicted at"
        " or below zero.",
        _boundaries(models),
    ]


def detail_lines(models: Sequence[WorkloadModel]) -> Iterator[str]:
    """Formula, coefficients, errors and why this form, for each target of each model."""
    from llmpower.modelling.fitted.models import labels_of

    for name, model in zip(labels_of(models), models, strict=True):
        for target, fit in ((f"energy [J] ({covered(model.boundary)})", model.energy), ("runtime [s]", model.runtime)):
            yield f"{name}  {target} = {fit.formula}"
            yield f"    {_coefficients(fit)}"
            yield (
                f"    R² centred {formatted(fit.r_squared_centered, '.4f')},"
                f" uncentred {formatted(fit.r_squared_uncentered, '.4f')} on the raw scale;"
                f" fitted on {fit.input_range[0]} to {fit.input_range[1]} input"
                f" and {fit.output_range[0]} to {fit.output_range[1]} output tokens{_batches(fit)}"
            )
            yield f"    {_errors(fit)}"
            if fit.estimator:
                yield f"    by {fit.estimator}"
            if fit.alternatives:
                yield f"    {_choice(fit)}"


def anova_lines(tables: Sequence[Anova]) -> Iterator[str]:
    """One table for all rows of both targets."""
    rows = []
    for table in tables:
        for effect in table.effects:
            figures = (compact(effect.sum_of_squares, 6), str(effect.degrees), f"{effect.f_statistic:.2f}")
            rows.append((table.target, effect.name, *figures, compact(effect.f_pvalue)))
        rows.append(
            (table.target, "residual", compact(table.residual_sum_of_squares, 6), str(table.residual_degrees), "", "")
        )
    yield f"Analysis of variance of {phrases.plural(tables[0].n_obs, 'row')}, type II, token counts as categories"
    header = ("TARGET", "EFFECT", "SUM OF SQUARES", "DF", "F", "p")
    yield from aligned(header, rows, right=header[2:])


def _boundaries(models: Sequence[WorkloadModel]) -> str:
    kinds: dict[str, list[str]] = {}
    for model in models:
        kinds.setdefault(covered(model.boundary), []).append(model.model_name)
    if len(kinds) == 1:
        return f"Energy covers: {next(iter(kinds))}."
    found = "; ".join(f"{covers} of {', '.join(names)}" for covers, names in kinds.items())
    return f"Energy covers DIFFERENT things, which are not to be compared: {found}."


def _batches(fit: Fit) -> str:
    return "" if fit.batch_range is None else f" a request, {fit.batch_range[0]} to {fit.batch_range[1]} at a time"


def _coefficients(fit: Fit) -> str:
    """Each with its standard error and 95 % interval; one without is held at zero, or left no degree of freedom."""
    return ",  ".join(
        f"{term} {value:.6g}" + ("" if math.isnan(error) else f" ± {error:.2g}{_interval(low, high)}")
        for term, value, error, (low, high) in zip(
            fit.terms, fit.coefficients, fit.std_errors, fit.coefficient_intervals(), strict=True
        )
    )


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" [{low:.3g}, {high:.3g}]"


def _errors(fit: Fit) -> str:
    """What the table has no room for: bias, the tail, extrapolation, and the floor."""
    heldout, extrapolation = fit.heldout, fit.extrapolation
    parts = []
    if heldout.bias is not None:
        parts.append(f"held out: total off by {100 * heldout.bias:+.1f} %")
    if heldout.p95_ape is not None:
        parts.append(f"95 % of errors below {_percent(heldout.p95_ape)}")
    if extrapolation is not None and extrapolation.mape is not None:
        worst = _percent(extrapolation.worst_ape)
        parts.append(f"one length held out at a time: MAPE {_percent(extrapolation.mape)}, worst {worst}")
    noise = "unknown, no cell was repeated" if fit.replicate_noise is None else _percent(fit.replicate_noise)
    return "; ".join([*parts, f"noise of a trial: {noise}{fit.of_first_rows}"])


def _choice(fit: Fit) -> str:
    """Why this form, and how the others did."""
    others = ", ".join(f"{other.form} {_verdict(other.heldout)}" for other in fit.alternatives)
    return f"chosen by held-out error{fit.of_first_rows}: {fit.choice or fit.label}; others: {others}"


def _verdict(heldout: HeldOut) -> str:
    count = heldout.negative_predictions
    negative = f" with {count} cell{'s' * (count > 1)} ≤ 0" if count else ""
    return f"{_percent(heldout.mape)}{negative}"


def _percent(fraction: float | None) -> str:
    return ABSENT if fraction is None else f"{in_percent(fraction)} %"
