"""``llmpower route``: a workload in, a model for every query out, and what that saves."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import aligned
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.routing import Outcome, RoutingPlan

WEIGHTINGS = ("tokens", "queries")
BEYOND_FITTED_NOTE = "lie outside what at least one model was fitted on; there its figures are extrapolations"


@click.command()
@click.option(
    "--models", "models_path", type=click.Path(path_type=Path), required=True, help="What llmpower fit wrote."
)
@click.option("--workload", "workload_path", type=click.Path(path_type=Path), required=True, help="A row a query.")
@click.option("--column", "columns", multiple=True, metavar="NAME=HEADER", help="Our column NAME stands under HEADER.")
@click.option("--accuracy", "accuracy_path", type=click.Path(path_type=Path), help="model_name, accuracy from 0 to 1.")
@click.option("--only", multiple=True, metavar="MODEL", help="Route to this model; repeat it for more.")
@click.option(
    "--share", "share_texts", multiple=True, metavar="MODEL=F|LOW:HIGH", help="Fraction of the queries, or a band."
)
@click.option("--shares-from-accuracy", is_flag=True, help="Take exact shares from that file's column share.")
@click.option("--zeta", type=float, default=0.5, show_default=True, help="0 is accuracy alone, 1 energy alone.")
@click.option(
    "--accuracy-weighting",
    type=click.Choice(WEIGHTINGS),
    default="tokens",
    show_default=True,
    help="Which mean accuracy is pursued: over tokens, as in the paper, or over queries.",
)
@click.option(
    "--frontier", "frontier_path", type=click.Path(path_type=Path), help="Also write plans along ζ: FILE.csv."
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the plan: FILE.csv, .parquet or .jsonl.")
@click.option("--cells", is_flag=True, help="With -o: a row a cell and model instead of a row a query.")
@click.option("--policy", "policy_path", type=click.Path(path_type=Path), help="Write prices for gateways: FILE.json.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    models_path: Path,
    workload_path: Path,
    columns: tuple[str, ...],
    accuracy_path: Path | None,
    only: tuple[str, ...],
    share_texts: tuple[str, ...],
    shares_from_accuracy: bool,
    zeta: float,
    accuracy_weighting: Any,
    frontier_path: Path | None,
    out: Path | None,
    cells: bool,
    policy_path: Path | None,
    as_json: bool,
) -> None:
    """Assign a workload's queries to models at least cost.

    Minimises Σ ζ·ê − (1−ζ)·â, each query to exactly one model; ê and â are energy and accuracy over their largest
    value. Shares are met to the query. The result is a proven optimum; ACC/TOKEN and ACC/QUERY are its mean
    accuracy over tokens and over queries, RUNTIME adds up all queries. A PRICE is what a share adds to the cost of
    a query on that model: each query goes where its cost and the price are least.

    The plan has the workload's rows and columns (those named by --column under our name) and model_name. Without
    --accuracy only --zeta 1 can be asked for.

    \b
    Example:
      llmpower route --models models.json --workload queries.csv --accuracy accuracy.csv -o plan.csv
      llmpower route --models models.json --workload queries.csv --zeta 1 --share Llama-2-70B=0.1:0.3
      llmpower route --models models.json --workload azure.csv --accuracy accuracy.csv --shares-from-accuracy \\
        --column input_tokens=ContextTokens --column output_tokens=GeneratedTokens --frontier frontier.csv
    """
    from llmpower.modelling import load_models
    from llmpower.routing import (
        Workload,
        cells_table,
        frontier_table,
        make_policy,
        read_accuracy,
        route,
        rows_table,
        save_policy,
        trace_frontier,
    )
    from llmpower.routing.shares import parse_shares
    from llmpower.routing.workload import REQUIRED
    from llmpower.tables import parse_columns, read_table, write_table

    if cells and out is None:
        raise InputError("--cells", "without -o", "it says how the plan is written; name a file with -o")
    shares = parse_shares(share_texts)
    models = load_models(models_path)
    table = None if accuracy_path is None else read_accuracy(accuracy_path)
    if shares_from_accuracy:
        if table is None or not table.shares:
            raise InputError(
                "--shares-from-accuracy", accuracy_path or "no file", "needs an --accuracy file with a column share"
            )
        if shares:
            raise InputError("--share", share_texts[0], "shares come from the accuracy file already; leave one out")
        shares = {name: share for name, share in table.shares.items() if not only or name in only}
    accuracy = None if table is None else table.accuracy
    frame = read_table(workload_path, columns=parse_columns(columns), required=REQUIRED, what="--workload")
    workload = Workload.from_frame(frame)

    plan = route(models, workload, accuracy, zeta=zeta, shares=shares, only=only, accuracy_weighting=accuracy_weighting)
    if plan.extrapolated_queries:
        beyond = f"{100 * plan.extrapolated_queries / workload.n_queries:.3g} % of the queries {BEYOND_FITTED_NOTE}"
        click.echo(f"llmpower: warning: {beyond}", err=True)
    if out is not None:
        write_table(cells_table(plan) if cells else rows_table(plan, frame), out)
    if policy_path is not None:
        save_policy(make_policy(plan), policy_path)
    if frontier_path is not None:
        plans = trace_frontier(
            models,
            workload,
            accuracy,
            shares=shares,
            only=only,
            accuracy_weighting=accuracy_weighting,
            progress=_show_progress if sys.stderr.isatty() else None,
        )
        write_table(frontier_table(plans), frontier_path, "--frontier")
    if as_json:
        click.echo(json.dumps(plan.to_json(), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        click.echo("\n".join(_lines(plan)))


def _show_progress(done: int, total: int) -> None:
    click.echo(f"\rfrontier: {done} of {total} plans", err=True, nl=done == total)


def _lines(plan: RoutingPlan) -> list[str]:
    divisor, unit = _energy_unit(min(outcome.energy_j for outcome in (plan, *plan.baselines.values())))
    largest, largest_unit = _energy_unit(plan.scaling.energy_max_j)
    scaling = f"ê = e / {plan.scaling.energy_max_j / largest:.4g} {largest_unit}"
    if plan.scaling.accuracy_max is not None:
        scaling += f", â = a / {plan.scaling.accuracy_max:,.6g}, a weighted by {plan.accuracy_weighting}"
    lines = [
        f"{plan.workload.n_queries:,} queries in {plan.workload.n_cells:,} cells, {len(plan.model_names)} models,"
        f" ζ = {plan.zeta:g}; optimal within {plan.optimality_gap:.1g}, found in {plan.solve_s:.2f} s",
        f"cost = ζ·ê − (1−ζ)·â, {scaling} ({plan.scaling.convention})",
        "",
    ]
    if plan.simulated:
        lines.insert(0, "SIMULATED: joules of a simulated device. They say nothing about real hardware.")
    outcomes: dict[str, Outcome] = {"plan": plan, **plan.baselines}
    lines += aligned(
        ("", "ENERGY", "SAVED", "ACC/TOKEN", "ACC/QUERY", "RUNTIME"),
        [
            (
                name,
                f"{outcome.energy_j / divisor:,.2f} {unit}",
                "" if outcome is plan else f"{100 * (1 - plan.energy_j / outcome.energy_j):.1f} %",
                _percent(outcome.accuracy_token_weighted),
                _percent(outcome.accuracy_query_mean),
                _duration(outcome.runtime_s),
            )
            for name, outcome in outcomes.items()
        ],
        right="ENERGY SAVED ACC/TOKEN ACC/QUERY RUNTIME",
    )
    lines.append("")
    lines += aligned(
        ("MODEL", "SHARE", "QUERIES", "ENERGY", "RUNTIME", "PRICE"),
        [
            (
                name,
                f"{100 * plan.shares[name]:.2f} %",
                f"{load.queries:,}",
                f"{load.energy_j / divisor:,.2f} {unit}",
                _duration(load.runtime_s),
                f"{plan.prices[name]:+.4g}" if plan.prices[name] else "0",
            )
            for name, load in plan.models.items()
        ],
        right="SHARE QUERIES ENERGY RUNTIME PRICE",
    )
    return lines


def _energy_unit(energy_j: float) -> tuple[float, str]:
    """The largest unit in which this energy is at least 1."""
    for divisor, unit in ((1e9, "GJ"), (1e6, "MJ"), (1e3, "kJ")):
        if energy_j >= divisor:
            return divisor, unit
    return 1.0, "J"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 36000 else f"{seconds:,.1f} s"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.2f} %"
