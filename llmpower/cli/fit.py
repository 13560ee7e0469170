"""``llmpower fit``: measurements in, workload models out, and how far to trust them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpower.cli.layout import aligned
from llmpower.cli.screened import in_short, summary_lines

if TYPE_CHECKING:
    import pandas as pd

    from llmpower.modelling import Fit, HeldOut, WorkloadModel

FORMS = (
    *("auto", "paper", "paper+intercept", "quadratic"),
    *("recompute", "recompute+call", "roofline", "cached", "batched", "phases"),
)
BOUNDARIES = ("gpu", "cpu", "gpu+cpu", "gpu-idle", "cpu-idle", "gpu+cpu-idle")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option("--column", "columns", multiple=True, metavar="NAME=HEADER", help="Our column NAME stands under HEADER.")
@click.option("--where", metavar="EXPR", help="Fit only rows for which EXPR holds.")
@click.option("--form", type=click.Choice(FORMS), default="auto", show_default=True, help="What is fitted.")
@click.option("--intercept", is_flag=True, help="Give the form paper a constant; the same as paper+intercept.")
@click.option("--robust", is_flag=True, help="Let outliers count for less (Huber's weights).")
@click.option("--group-by", metavar="NAME[,NAME…]", help="One model per value. [default: model_name,system]")
@click.option(
    "--boundary",
    type=click.Choice(BOUNDARIES),
    default="gpu",
    show_default=True,
    help="What the energy covers; -idle takes the idle share away. A file that has energy_j alone is taken as it is.",
)
@click.option("--tdp", "tdp_w", type=float, metavar="W", help="Design power of one device.  [default: by its name]")
@click.option(
    "--leave-out", multiple=True, metavar="KIND[,KIND…]", help="Fit without rows that have such a finding; or all."
)
@click.option(
    "--refuse", multiple=True, metavar="KIND[,KIND…]", help="Fit nothing where there is such a finding; or all."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the models to this file (models.json).")
@click.option("--json", "as_json", is_flag=True, help="Print the models.json document.")
def command(
    sources: tuple[str, ...],
    columns: tuple[str, ...],
    where: str | None,
    form: str,
    intercept: bool,
    robust: bool,
    group_by: str | None,
    boundary: str,
    tdp_w: float | None,
    leave_out: tuple[str, ...],
    refuse: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Fit workload models of energy and runtime to measurements.

    SOURCE is a measurements file (CSV, Parquet, JSON lines), a glob of them, or a daemon's store (.db). Rows whose
    energy is empty are left out and counted; a row that cannot be true stops the fit and is named.

    Before that the rows are screened: first calls, units that cannot be, more energy than the devices can draw, trials
    at the same time, outputs that ended early, replicates that disagree (docs/screening.md has all kinds). What is
    found is listed and counted, and fitted nevertheless unless --leave-out or --refuse names it.

    Forms: paper is τin + τout + τin·τout by least squares; all others are fitted to relative error and stay positive.
    cached is an engine with a KV cache, batched the same with what a batch shares, phases the same with prefill and
    decode fitted apart; recompute processes its whole context at each step (no KV cache), recompute+call with a
    constant a call, roofline with dearer tokens once a step is bound by arithmetic; quadratic is a polynomial. auto
    takes the least error on cells held out one at a time, or a form with fewer terms that is as good within one
    standard error.

    \b
    Example:
      llmpower fit measurements.csv -o models.json
      llmpower fit grid.csv --where "provenance == 'measured'" --form paper --intercept
      llmpower fit trials.csv --leave-out warm_up,early_stop --refuse negative_energy,impossible_unit
      llmpower fit azure.csv --column input_tokens=ContextTokens --group-by model_name,batch_size
    """
    from llmpower.modelling import dump_models, fit, load_measurements, save_models
    from llmpower.modelling.screening import parse_kinds, screen
    from llmpower.tables import parse_columns

    left_out, refused = parse_kinds(leave_out, "--leave-out"), parse_kinds(refuse, "--refuse")
    measurements = load_measurements(sources, columns=parse_columns(columns), where=where, readers={".db": _read_store})
    screening = screen(measurements, tdp_w=tdp_w)
    screening.refuse(refused)
    models = fit(
        screening.leave_out(measurements, left_out),
        form=form,
        intercept=intercept,
        group_by=None if group_by is None else [name.strip() for name in group_by.split(",")],
        boundary=boundary,
        robust=robust,
    )
    if screening.findings:
        click.echo(f"llmpower: warning: {in_short(screening, left_out)}", err=True)
    for model in models:
        for warning in _warnings(model):
            click.echo(f"llmpower: warning: {model.model_name}: {warning}", err=True)
    if out is not None:
        save_models(models, out, screening=screening.document(left_out))
    if as_json:
        click.echo(
            json.dumps(dump_models(models, screening.document(left_out)), ensure_ascii=False, indent=2, allow_nan=False)
        )
    else:
        click.echo("\n".join([*_summary(models), "", *_details(models), "", *summary_lines(screening, left_out)]))


def _read_store(path: Path) -> pd.DataFrame:
    from llmpower.store import read_measurements

    return read_measurements(path)


def _warnings(model: WorkloadModel) -> list[str]:
    """What concerns both targets once, the rest by target."""
    energy, runtime = model.energy.warnings, model.runtime.warnings
    return [
        *(warning for warning in energy if warning in runtime),
        *(f"energy: {warning}" for warning in energy if warning not in runtime),
        *(f"runtime: {warning}" for warning in runtime if warning not in energy),
    ]


def _summary(models: list[WorkloadModel]) -> list[str]:
    header = ("MODEL", "SYSTEM", "TARGET", "FORM", "n", "R²", "F", "p", "MAPE", "MEDIAN", "WORST", "≤0")
    rows = []
    for model in models:
        system = f"{model.system or '–'}{' SIMULATED' if model.simulated else ''}"
        for target, fit in (("energy [J]", model.energy), ("runtime [s]", model.runtime)):
            rows.append(
                (
                    *(model.model_name, system, target, fit.label, str(fit.n_obs)),
                    *(_number(fit.r_squared, ".4f"), _number(fit.f_statistic, ".4g"), _number(fit.f_pvalue, ".3g")),
                    *(_percent(fit.heldout.mape), _percent(fit.heldout.median_ape), _percent(fit.heldout.worst_ape)),
                    _number(fit.heldout.negative_predictions, "d"),
                )
            )
    lines = aligned(header, rows, right="n R² F p MAPE MEDIAN WORST ≤0")
    if any(model.simulated for model in models):
        lines.insert(0, "SIMULATED: joules of a simulated device, marked below. They say nothing about real hardware.")
    return [
        *lines,
        "R², F and p as statsmodels prints them. MAPE, MEDIAN, WORST: absolute error on (τin, τout) cells held out",
        "one at a time; ≤0: held-out cells predicted at or below zero.",
    ]


def _details(models: list[WorkloadModel]) -> list[str]:
    lines = []
    for model in models:
        covers = model.boundary or "energy_j as the file has it"
        for target, fit in ((f"energy [J] ({covers})", model.energy), ("runtime [s]", model.runtime)):
            lines += [
                f"{model.model_name}  {target} = {fit.formula}",
                f"    {_coefficients(fit)}",
                f"    R² centred {_number(fit.r_squared_centered, '.4f')},"
                f" uncentred {_number(fit.r_squared_uncentered, '.4f')} on the raw scale;"
                f" fitted on {fit.input_range[0]} to {fit.input_range[1]} input"
                f" and {fit.output_range[0]} to {fit.output_range[1]} output tokens",
            ]
            if fit.alternatives:
                lines.append(f"    {_choice(fit)}")
    return lines


def _coefficients(fit: Fit) -> str:
    """Each with its standard error; one without is held at zero by its bound, or left no degree of freedom."""
    return ",  ".join(
        f"{term} {value:.6g}" + ("" if math.isnan(error) else f" ± {error:.2g}")
        for term, value, error in zip(fit.terms, fit.coefficients, fit.std_errors, strict=True)
    )


def _choice(fit: Fit) -> str:
    """Why this form, and how the others did."""
    others = ", ".join(f"{other.form} {_verdict(other.heldout)}" for other in fit.alternatives)
    return f"chosen by held-out error: {fit.choice or fit.label}; others: {others}"


def _verdict(heldout: HeldOut) -> str:
    negative = f" with {heldout.negative_predictions} cells ≤ 0" if heldout.negative_predictions else ""
    return f"{_percent(heldout.mape)}{negative}"


def _number(value: float | None, spec: str) -> str:
    return "–" if value is None else format(value, spec)


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f} %"
