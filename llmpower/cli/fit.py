"""``llmpower fit``: measurements in, workload models out, and how far to trust them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.fitted import anova_lines, detail_lines, summary_lines, warnings_of
from llmpower.cli.layout import echo_lines
from llmpower.cli.progress import shown
from llmpower.cli.screened import in_short, screening_lines
from llmpower.cli.sources import read_sources
from llmpower.cli.values import FORMS
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    import pandas as pd

    from llmpower.modelling import Anova, WorkloadModel
    from llmpower.modelling.screening import Screening

BOUNDARIES = ("gpu", "cpu", "gpu+cpu", "gpu-idle", "cpu-idle", "gpu+cpu-idle")


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=HEADER", help="The header that holds our column NAME."
)
@click.option("--where", metavar="EXPR", help="Fit only rows for which EXPR holds.")
@click.option("--form", type=click.Choice(FORMS), default="auto", show_default=True, help="The form; see above.")
@click.option("--intercept", is_flag=True, help="Give the form paper a constant; the same as paper+intercept.")
@click.option("--robust", is_flag=True, help="Let outliers count for less (Huber's weights).")
@click.option("--match-total", is_flag=True, help="Scale predictions so that they add up to what was measured.")
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
    "--leave-out", multiple=True, metavar="KIND[,KIND…]", help="Leave out rows with findings of these kinds, or all."
)
@click.option(
    "--refuse", multiple=True, metavar="KIND[,KIND…]", help="Fit nothing if there is a finding of these kinds, or all."
)
@click.option("--anova", "with_anova", is_flag=True, help="Show the analysis of variance of all rows together.")
@click.option(
    "--update",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Let the models of FILE learn from rows that they have not seen, and write it again (or -o).",
)
@click.option(
    "--dask",
    "scheduler",
    metavar="ADDRESS|local",
    help="Read on the workers of this Dask scheduler (tcp://HOST:8786), or on processes of this machine.",
)
@click.option("--report", type=click.Path(path_type=Path), metavar="DIR", help="Write plots of residuals there.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the models to this file (models.json).")
@click.option("--json", "as_json", is_flag=True, help="Print the models.json document.")
def command(
    sources: tuple[str, ...],
    columns: tuple[str, ...],
    where: str | None,
    form: str,
    intercept: bool,
    robust: bool,
    match_total: bool,
    group_by: str | None,
    boundary: str,
    tdp_w: float | None,
    leave_out: tuple[str, ...],
    refuse: tuple[str, ...],
    with_anova: bool,
    update: Path | None,
    scheduler: str | None,
    report: Path | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Fit workload models of energy and runtime to measurements.

    SOURCE is a measurements file (CSV, Parquet, JSON lines), a glob of them, or a daemon's store (.db). Rows whose
    energy is empty are left out and counted; a row that cannot be true stops the fit and is named.

    A directory or a URL (s3://bucket/path, whatever fsspec knows) is a data set of Parquet files. Any number of rows is
    read in bounded memory, without the checks that compare rows (docs/fleet.md). With --dask many workers read files in
    the same way; the coefficients are the same.

    Rows are screened first: for first calls, impossible units, more energy than the devices can draw, trials at the
    same time, outputs that ended early, replicates that disagree (docs/screening.md has all kinds). Findings are listed
    and counted, and fitted all the same unless --leave-out or --refuse names their kind.

    Forms: paper is τin + τout + τin·τout by least squares; all others are fitted to relative error and stay positive.
    cached is an engine with a KV cache, batched the same with what a batch shares, phases the same with prefill and
    decode fitted apart. recompute processes its whole context at each step (no KV cache), recompute+call adds a
    constant for each call, roofline adds costlier tokens once a step is bound by arithmetic. quadratic is a polynomial.
    auto takes the form with the least error on cells held out one at a time, or one with fewer terms that is as good
    within one standard error. NESTED is the error if the held-out cell plays no part in that choice either (–: not
    known).

    Fits to single queries underestimate sums: where trials vary by 10 % the total is 2 % low, where they vary by 30 % a
    sixth. --match-total scales each fit, and its held-out errors, to the total.

    A model in models.json keeps the sums that it was fitted from, so that --update adds new rows without the old ones.
    How far off it was on the new rows is said first, and goes into its held-out error.

    \b
    Example:
      llmpower fit measurements.csv -o models.json
      llmpower fit grid.csv --where "provenance == 'measured'" --form paper --intercept
      llmpower fit trials.csv --leave-out warm_up,early_stop --refuse negative_energy,impossible_unit
      llmpower fit today.parquet --update models.json
      llmpower fit /srv/measurements --dask local -o models.json
      llmpower fit azure.csv --column input_tokens=ContextTokens --group-by model_name,batch_size
    """
    # Before NumPy comes: problems of a form's size gain nothing by threads of BLAS, which spin after each of them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from llmpower.cli.outputs import check_places
    from llmpower.cli.streamed import fit_streamed
    from llmpower.modelling import anova, fit, load_models
    from llmpower.modelling import update as learn
    from llmpower.modelling.screening import parse_kinds, screen
    from llmpower.places import is_dataset
    from llmpower.tables import parse_columns

    check_places({"-o": out}, sources)
    left_out, refused = parse_kinds(leave_out, "--leave-out"), parse_kinds(refuse, "--refuse")
    renamed = parse_columns(columns)
    columns_of_group = None if group_by is None else [name.strip() for name in group_by.split(",")]
    if scheduler is not None or any(map(is_dataset, sources)):
        _refuse_beside_dataset(robust=robust, anova=with_anova, update=update, report=report)
        streamed = fit_streamed(
            sources,
            scheduler,
            form=form,
            intercept=intercept,
            group_by=columns_of_group,
            boundary=boundary,
            match_total=match_total,
            columns=renamed,
            where=where,
            tdp_w=tdp_w,
            leave_out=left_out,
            refuse=refused,
        )
        _show(streamed.models, streamed.screening, left_out, (), out, as_json=as_json)
        return
    measurements = read_sources(sources, "SOURCE", columns=renamed, where=where)
    screening = screen(measurements, tdp_w=tdp_w)
    screening.refuse(refused)
    rows = screening.leave_out(measurements, left_out)
    if update is not None:
        _refuse_beside_update(form=form, intercept=intercept, robust=robust, match_total=match_total, boundary=boundary)
        models = learn(load_models(update, "--update"), rows, group_by=columns_of_group)
        out = out or update
    else:
        with shown("fit") as progress:
            models = fit(
                rows,
                form=form,
                intercept=intercept,
                group_by=columns_of_group,
                boundary=boundary,
                robust=robust,
                match_total=match_total,
                progress=progress,
            )
    tables = anova(rows, boundary) if with_anova else ()
    if report is not None:
        _write_report(report, models, rows, columns_of_group, screening.document(left_out))
    _show(models, screening, left_out, tables, out, as_json=as_json)


def _show(
    models: list[WorkloadModel],
    screening: Screening,
    left_out: tuple[str, ...],
    tables: Sequence[Anova],
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Warnings, the file, and the tables or the document."""
    from llmpower.modelling import dump_models, save_models
    from llmpower.modelling.fitted.models import labels_of

    if screening.findings:
        click.echo(f"llmpower: warning: {in_short(screening, left_out)}", err=True)
    for name, model in zip(labels_of(models), models, strict=True):
        for warning in warnings_of(model):
            click.echo(f"llmpower: warning: {name}: {warning}", err=True)
    if out is not None:
        save_models(models, out, screening=screening.document(left_out))
    if as_json:
        click.echo(
            json.dumps(dump_models(models, screening.document(left_out)), ensure_ascii=False, indent=2, allow_nan=False)
        )
    else:
        lines = [*summary_lines(models), "", *detail_lines(models), "", *screening_lines(screening, left_out)]
        echo_lines([*lines, *(["", *anova_lines(tables)] if tables else [])])


def _refuse_beside_update(**given: object) -> None:
    """The models that learn have all of this already."""
    defaults = {"form": "auto", "intercept": False, "robust": False, "match_total": False, "boundary": "gpu"}
    for name, value in given.items():
        if value != defaults[name]:
            raise InputError(
                f"--{name.replace('_', '-')}", value, "models that learn keep what they were fitted with; leave it out"
            )


def _refuse_beside_dataset(**given: object) -> None:
    """What needs all rows at once."""
    for name, value in given.items():
        if value:
            shown = "given" if value is True else value
            instead = "give some of the files (DIR/host=…/*/*.parquet) without --dask, or leave it out"
            raise InputError(f"--{name}", shown, f"needs all rows at once; {instead}")


def _write_report(
    directory: Path,
    models: list[WorkloadModel],
    rows: pd.DataFrame,
    group_by: list[str] | None,
    screening: dict[str, Any],
) -> None:
    """A page of the fits, and residuals of each as a picture."""
    from llmpower.files import write_text
    from llmpower.report import make_directory, render, residual_charts, save_chart

    # The page first: where nothing can be drawn it says so.
    page = render(models, rows, group_by=group_by, screening=screening, title="Fitted models")
    make_directory(directory, "--report")
    for name, chart in residual_charts(models, rows, group_by=group_by):
        save_chart(chart, directory / f"{name}.svg", "--report")
    write_text(directory / "report.html", page, "--report")
