"""``llmpower route``: a workload in, a model for every query out, and what that saves."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import echo_lines
from llmpower.cli.options import json_option
from llmpower.cli.progress import shown
from llmpower.cli.tariffs import tariff_options
from llmpower.cli.values import models_of_file
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.routing.problem.rates import Weigh

WEIGHTINGS = ("tokens", "queries")


@click.command()
@click.option(
    "--models", "models_path", type=click.Path(path_type=Path), required=True, help="What llmpower fit wrote."
)
@click.option(
    "--workload", "workload_source", type=click.Path(), required=True, help="One row per query; or a data set."
)
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=HEADER", help="The header that holds our column NAME."
)
@click.option("--accuracy", "accuracy_path", type=click.Path(path_type=Path), help="model_name, accuracy from 0 to 1.")
@click.option(
    "--only",
    multiple=True,
    metavar="MODEL",
    shell_complete=models_of_file("models_path"),
    help="Route to this model; repeat it for more.",
)
@click.option(
    "--share",
    "share_texts",
    multiple=True,
    metavar="MODEL=F|LOW:HIGH",
    shell_complete=models_of_file("models_path", after="="),
    help="Fraction of the queries, or a band.",
)
@click.option("--shares-from-accuracy", is_flag=True, help="Take exact shares from that file's column share.")
@click.option(
    "--max-runtime", "max_runtime_s", type=float, metavar="S", help="Send no query where it would take over S seconds."
)
@click.option(
    "--gpu-seconds",
    "second_texts",
    multiple=True,
    metavar="MODEL=S",
    shell_complete=models_of_file("models_path", after="="),
    help="At most S GPU-seconds for all queries of the model.",
)
@click.option("--zeta", type=float, help="0 is accuracy alone, 1 energy alone. Give one of --zeta to --knee.")
@click.option("--energy-budget", type=float, metavar="J", help="The most accuracy for at most J joules.")
@click.option("--accuracy-floor", type=float, metavar="A", help="The least energy at a mean accuracy of at least A.")
@click.option("--joules-per-point", type=float, metavar="J", help="What a point of accuracy (1 %) is worth.")
@click.option("--cost-budget", type=float, metavar="EUR", help="As --energy-budget, in euros by the --tariff.")
@click.option("--carbon-budget", type=float, metavar="G", help="The same in grams of CO₂.")
@click.option("--cost-per-point", type=float, metavar="EUR", help="As --joules-per-point, in euros by the --tariff.")
@click.option("--carbon-per-point", type=float, metavar="G", help="The same in grams of CO₂.")
@click.option("--knee", is_flag=True, help="Where accuracy stops being cheap: ζ = ½ on what is achievable.  [default]")
@click.option(
    "--accuracy-weighting",
    type=click.Choice(WEIGHTINGS),
    default="tokens",
    show_default=True,
    help="Which mean accuracy is pursued: over tokens, as in the paper, or over queries.",
)
@tariff_options
@click.option(
    "--frontier", "frontier_path", type=click.Path(path_type=Path), help="Also write the efficient plans: FILE.csv."
)
@click.option("--idle-watts", multiple=True, metavar="W|MODEL=W", help="Charge what a waiting GPU of the model draws.")
@click.option("--horizon", "horizon_s", type=float, metavar="S", help="For how many seconds models stay loaded.")
@click.option("--allow-unload", is_flag=True, help="Leave out models that are not worth their idle energy.")
@click.option(
    "--max-extrapolation",
    type=float,
    default=0.5,
    show_default=True,
    metavar="F",
    help="Refuse when more of queries or energy lies outside the fitted lengths.",
)
@click.option(
    "--bootstrap",
    "draws",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    metavar="N",
    help="Plan again N times with other coefficients, as new measurements might give them.",
)
@click.option(
    "--dask",
    "scheduler",
    metavar="ADDRESS|local",
    help="Count queries on the workers of this Dask scheduler (tcp://HOST:8786), or on processes of this machine.",
)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the plan: FILE.csv, .parquet or .jsonl.")
@click.option("--cells", is_flag=True, help="With -o: one row per cell and model instead of one row per query.")
@click.option("--policy", "policy_path", type=click.Path(path_type=Path), help="Write prices for gateways: FILE.json.")
@click.option(
    "--plot", "plot_path", type=click.Path(path_type=Path), help="Draw plan, frontier and baselines: FILE.png or .svg."
)
@json_option
def command(
    models_path: Path,
    workload_source: str,
    columns: tuple[str, ...],
    accuracy_path: Path | None,
    only: tuple[str, ...],
    share_texts: tuple[str, ...],
    shares_from_accuracy: bool,
    max_runtime_s: float | None,
    second_texts: tuple[str, ...],
    zeta: float | None,
    energy_budget: float | None,
    accuracy_floor: float | None,
    joules_per_point: float | None,
    cost_budget: float | None,
    carbon_budget: float | None,
    cost_per_point: float | None,
    carbon_per_point: float | None,
    knee: bool,
    accuracy_weighting: Any,
    tariff_path: Path | None,
    tariff_zone: str | None,
    weigh: Weigh | None,
    frontier_path: Path | None,
    idle_watts: tuple[str, ...],
    horizon_s: float | None,
    allow_unload: bool,
    max_extrapolation: float,
    draws: int,
    scheduler: str | None,
    out: Path | None,
    cells: bool,
    policy_path: Path | None,
    plot_path: Path | None,
    as_json: bool,
) -> None:
    """Assign a workload's queries to models at least cost.

    Minimises Σ ζ·ê − (1−ζ)·â, with each query on exactly one model; ê and â are energy and accuracy over their largest
    values. Shares are met to the query, and the result is a proven optimum. ACC/TOKEN and ACC/QUERY are its mean
    accuracy over tokens and over queries; RUNTIME is the sum over all queries. A PRICE is what a share adds to the cost
    of a query on that model: each query goes where cost plus price is least.

    The plan has the workload's rows and columns (those of --column under our names) and model_name. Without --accuracy
    only --zeta 1 is possible. What a ζ means depends on the scaling, which one long query can set. So better name
    joules or an accuracy; the plan then comes with a bound that even divided queries could not beat. A model that was
    fitted on several systems is one choice for each, MODEL@SYSTEM. Accuracies may differ by query_class, a column of
    both files.

    --max-runtime limits the predicted runtime of a query by itself, without waiting; LATE is the part of its queries
    that a baseline answers late. --gpu-seconds limits the sum of a model's runtimes × num_gpus (a column of
    --accuracy); OVER names the models for which a baseline takes more. --idle-watts charges loaded models num_gpus × W
    × --horizon.

    A directory or a URL (s3://bucket/path) is a data set of Parquet files: its queries are counted by cell in bounded
    memory, with --dask by many workers, and the plan is written by cells (docs/fleet.md).

    With a --tariff the workload needs timestamps, and ê is euros or grams of CO₂ in place of joules, at the rate of the
    hour in which each query comes. The table has all three. Queries are not moved to other hours. A --policy includes
    the rates and decides by the clock.

    \b
    Example:
      llmpower route --models models.json --workload queries.csv --accuracy accuracy.csv -o plan.csv
      llmpower route --models models.json --workload queries.csv --accuracy accuracy.csv --energy-budget 5e6
      llmpower route --models models.json --workload queries.csv --zeta 1 --share Llama-2-70B=0.1:0.3
      llmpower route --models models.json --workload queries.csv --accuracy accuracy.csv --max-runtime 20
      llmpower route --models models.json --workload queries.csv --accuracy accuracy.csv --gpu-seconds Llama-2-70B=7200
      llmpower route --models models.json --workload queries.csv --accuracy accuracy.csv --tariff tariff.csv --knee
      llmpower route --models models.json --workload azure.csv --accuracy accuracy.csv --shares-from-accuracy \\
        --column input_tokens=ContextTokens --column output_tokens=GeneratedTokens --plot plan.png
    """
    # Before NumPy comes: this command divides cells among threads of its own, and those of BLAS would spin beside them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from llmpower.cli.route_rows import begin_reading, count_dataset
    from llmpower.places import is_dataset

    reading, out_by_row = None, None if cells else out
    if scheduler is None and not is_dataset(workload_source):
        asked = columns, tariff_path, tariff_zone, out_by_row
        reading = begin_reading(click.get_current_context(), Path(workload_source), *asked)
    from llmpower.cli.route_asked import check_outputs, goal_of, idle_of
    from llmpower.cli.route_table import plan_lines, policy_warnings, warnings
    from llmpower.modelling import load_models
    from llmpower.report.plan_plot import save_plan_plot
    from llmpower.routing import (
        cells_table,
        frontier_table,
        read_accuracy,
        route,
        trace_frontier,
    )
    from llmpower.routing.problem.gpu_seconds import GpuSeconds, parse_gpu_seconds
    from llmpower.routing.problem.shares import parse_shares
    from llmpower.tables import write_table

    check_outputs(
        {"-o": out, "--policy": policy_path, "--frontier": frontier_path, "--plot": plot_path},
        (models_path, workload_source, accuracy_path, tariff_path),
        cells=cells,
        has_accuracy=accuracy_path is not None,
        limits_seconds=bool(second_texts),
    )
    goal = goal_of(
        zeta,
        knee,
        {
            "--energy-budget": energy_budget,
            "--accuracy-floor": accuracy_floor,
            "--joules-per-point": joules_per_point,
            "--cost-budget": cost_budget,
            "--carbon-budget": carbon_budget,
            "--cost-per-point": cost_per_point,
            "--carbon-per-point": carbon_per_point,
        },
    )
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
    idle = idle_of(idle_watts, horizon_s, table)
    second_limits = parse_gpu_seconds(second_texts)
    if reading is None:
        rows, early, tariff = None, False, None
        workload = count_dataset(workload_source, scheduler, columns, tariff_path, tariff_zone, out_by_row)
    else:
        rows, workload, early = reading.result()
        tariff = rows.tariff

    with rows.saving(out) if early and rows is not None and out is not None else nullcontext() as solved:
        plan = route(
            models,
            workload,
            table,
            zeta=goal,
            shares=shares,
            only=only,
            accuracy_weighting=accuracy_weighting,
            idle=idle,
            allow_unload=allow_unload,
            max_runtime_s=max_runtime_s,
            gpu_seconds=GpuSeconds(second_limits, {} if table is None else table.num_gpus) if second_limits else None,
            weigh=weigh,
            max_extrapolation=max_extrapolation,
            draws=draws,
            solved=solved,
        )
    for warning in (*warnings(plan), *(() if policy_path is None else policy_warnings(plan, tariff))):
        click.echo(f"llmpower: warning: {warning}", err=True)
    if out is not None and not early:
        if rows is None or cells:
            write_table(cells_table(plan), out)
        else:
            rows.save(plan, out)
    if policy_path is not None:
        from llmpower.routing import make_policy, save_policy

        save_policy(make_policy(plan, tariff), policy_path)
    if frontier_path is not None or plot_path is not None:
        with shown("frontier") as progress:
            plans = trace_frontier(
                models,
                workload,
                table,
                shares=shares,
                only=only,
                accuracy_weighting=accuracy_weighting,
                max_runtime_s=max_runtime_s,
                weigh=plan.weighs,
                progress=progress,
            )
        if frontier_path is not None:
            write_table(frontier_table(plans), frontier_path, "--frontier")
        if plot_path is not None:
            save_plan_plot(plan, frontier_table(plans), plot_path)
    if as_json:
        click.echo(json.dumps(plan.to_json(), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        echo_lines(plan_lines(plan))
