"""``llmpower simulate``: the online policy over a trace in time order, against baselines and the true optimum."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmpower import phrases
from llmpower.cli.layout import aligned, compact, covered, echo_lines, energy_unit, formatted, in_percent
from llmpower.cli.options import json_option
from llmpower.cli.progress import shown
from llmpower.cli.values import models_of_file
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.cli.route_amounts import AmountColumn
    from llmpower.routing.replaying.arena import Strategy
    from llmpower.routing.replaying.simulation import Simulation


@click.command()
@click.option(
    "--policy", "policy_path", type=click.Path(path_type=Path), required=True, help="What llmpower route wrote."
)
@click.option(
    "--workload",
    "workload_path",
    type=click.Path(path_type=Path),
    required=True,
    help="One row per query, timestamped.",
)
@click.option(
    "--column", "columns", multiple=True, metavar="NAME=HEADER", help="The header that holds our column NAME."
)
@click.option(
    "--history", type=float, default=0.2, show_default=True, help="Fraction of the trace to learn from, not routed."
)
@click.option(
    "--period", type=int, metavar="QUERIES", help="Shares are kept over this many; by default over all that are routed."
)
@click.option(
    "--servers",
    "server_texts",
    multiple=True,
    metavar="MODEL=N",
    shell_complete=models_of_file("policy_path", after="="),
    help="Queries that a model serves at a time.",
)
@json_option
def command(
    policy_path: Path,
    workload_path: Path,
    columns: tuple[str, ...],
    history: float,
    period: int | None,
    server_texts: tuple[str, ...],
    as_json: bool,
) -> None:
    """Replay a trace in time order: the online router against other strategies and the optimum.

    The workload needs timestamp (an ISO date, or seconds), input_tokens and output_tokens. A column query_class is the
    application that the router is told. Each model has a queue and --servers, by default as many as the optimal plan
    keeps busy for 80 % of the time.

    CLOSED is how much of the distance from random to the optimum at the same shares is closed, by the policy's
    objective; rows without it do not keep the shares. The router "online" learns output lengths from answers as they
    complete, and "optimum_same_information" is the best that is possible without knowing more of them. LATE is the part
    of the queries that takes longer than the policy's --max-runtime, without waiting. A policy that pursues money or
    carbon decides, and is judged, by its tariff at the trace's times.

    \b
    Example:
      llmpower route --models models.json --workload yesterday.csv --accuracy accuracy.csv --policy policy.json
      llmpower simulate --policy policy.json --workload today.csv
      llmpower simulate --policy policy.json --workload azure.csv --column timestamp=TIMESTAMP \\
        --column input_tokens=ContextTokens --column output_tokens=GeneratedTokens --period 5000
    """
    from llmpower.routing import Trace, load_policy, simulate
    from llmpower.routing.problem.workload import REQUIRED
    from llmpower.tables import parse_columns, read_table

    servers = _parse_servers(server_texts)
    policy = load_policy(policy_path)
    required = ("timestamp", *REQUIRED)
    frame = read_table(workload_path, columns=parse_columns(columns), required=required, what="--workload")
    with shown("replay") as progress:
        result = simulate(
            policy, Trace.from_frame(frame), history=history, period=period, servers=servers, progress=progress
        )
    if as_json:
        click.echo(json.dumps(result.to_json(), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        echo_lines(_lines(result))


def _parse_servers(texts: tuple[str, ...]) -> dict[str, int]:
    servers: dict[str, int] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        if not name or not number.isdecimal():
            raise InputError("--servers", text, "write MODEL=N, such as Llama-2-7B=4")
        servers[name] = int(number)
    return servers


def _lines(result: Simulation) -> list[str]:
    from llmpower.cli.route_amounts import amount_columns, worth_words

    servers = ", ".join(f"{name} {count}" for name, count in result.servers.items())
    lines = [
        f"{phrases.plural(result.queries, 'query')} routed after {result.history:,} to learn from,"
        f" ζ = {result.zeta:g}{worth_words(result)},"
        f"{'' if result.weighs == 'energy' else f' pursued is {result.weighs},'}"
        f" shares over {phrases.plural(result.period, 'query')}",
        f"energy covers {covered(result.boundary)}; servers: {servers}",
        "",
    ]
    if result.simulated:
        lines.insert(0, phrases.SIMULATED)
    divisor, unit = energy_unit(strategy.energy_j for strategy in result.strategies.values())
    amounts = amount_columns([] if result.weighs == "energy" else [result.weighs], result.strategies.values())
    header = (
        *("", "CLOSED [%]", "OBJECTIVE", f"ENERGY [{unit}]", *(column.header for column in amounts)),
        *("ACC/TOKEN [%]", "ACC/QUERY [%]"),
        *("WAIT [s]", "WAIT-P99 [s]", "DECISION-P99 [µs]"),
        *(["LATE [%]"] if result.max_runtime_s is not None else []),
    )
    rows = [
        (
            *_row(name, strategy, divisor, amounts),
            *([] if strategy.late_queries is None else [in_percent(strategy.late_queries / result.queries, 2)]),
        )
        for name, strategy in result.strategies.items()
    ]
    lines += aligned(header, rows, right=header[1:])
    return lines


def _row(name: str, strategy: Strategy, divisor: float, amounts: Sequence[AmountColumn]) -> tuple[str, ...]:
    return (
        name,
        in_percent(strategy.closed),
        compact(strategy.objective, 5),
        f"{strategy.energy_j / divisor:,.2f}",
        *(column.figure(strategy) for column in amounts),
        in_percent(strategy.accuracy_token_weighted, 2),
        in_percent(strategy.accuracy_query_mean, 2),
        f"{strategy.wait_mean_s:,.1f}",
        f"{strategy.wait_p99_s:,.1f}",
        formatted(strategy.decision_p99_us, ".1f"),
    )
