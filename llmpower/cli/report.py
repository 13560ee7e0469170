"""``llmpower report``: models, measurements and plans on one page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.progress import counted, shown
from llmpower.cli.sources import read_sources
from llmpower.cli.tariffs import tariff_of, tariff_options
from llmpower.exceptions import InputError
from llmpower.report.costs import CARBON_G, PRICE, PUE

if TYPE_CHECKING:
    import pandas as pd

    from llmpower.modelling import WorkloadModel
    from llmpower.report import Plans
    from llmpower.routing.problem.rates import Weigh
    from llmpower.routing.problem.tariff import Tariff

STAGES = 4
"""Reading, planning, drawing, and the page."""

FRONTIER = ("zeta", "energy_j", "runtime_s", "accuracy_token_weighted")


@click.command()
@click.option("--models", type=click.Path(path_type=Path), required=True, help="models.json, from 'llmpower fit'.")
@click.option(
    "--measurements",
    multiple=True,
    metavar="SOURCE",
    help="What the models were fitted to: a file, a glob or a store; repeatable.",
)
@click.option("--column", "columns", multiple=True, metavar="NAME=HEADER", help="Our column NAME of the measurements.")
@click.option("--where", metavar="EXPR", help="Show only measurements for which EXPR holds, as the fit did.")
@click.option("--group-by", metavar="NAME[,NAME…]", help="As in the fit. [default: by the models' names]")
@click.option("--frontier", type=click.Path(path_type=Path), help="CSV from 'llmpower route --frontier'.")
@click.option("--workload", type=click.Path(path_type=Path), help="Find the efficient plans of these queries.")
@click.option(
    "--workload-column", "workload_columns", multiple=True, metavar="NAME=HEADER", help="As --column, of the workload."
)
@click.option("--accuracy", type=click.Path(path_type=Path), help="For --workload: model_name, accuracy from 0 to 1.")
@click.option("--share", "share_texts", multiple=True, metavar="MODEL=F|LOW:HIGH", help="As 'llmpower route' has it.")
@click.option("--only", multiple=True, metavar="MODEL", help="Plan with this model; repeat it for more.")
@click.option(
    "--accuracy-weighting",
    type=click.Choice(("tokens", "queries")),
    default="tokens",
    show_default=True,
    help="Which mean accuracy plans pursue, or those of --frontier did.",
)
@click.option("--max-runtime", "max_runtime_s", type=float, metavar="S", help="Plan no query that takes longer.")
@tariff_options
@click.option("--price-per-kwh", type=float, default=PRICE, show_default=True, metavar="EUR", help="Of electricity.")
@click.option(
    "--co2-per-kwh", type=float, default=CARBON_G, show_default=True, metavar="G", help="Grams of CO₂ it emits."
)
@click.option("--pue", type=float, default=PUE, show_default=True, help="What the building draws for a server's watt.")
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also write each figure as PNG and SVG.")
@click.option("--title", default="Energy per request", show_default=True, help="Heading of the page.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True, help="The page."
)
def command(
    models: Path,
    measurements: tuple[str, ...],
    columns: tuple[str, ...],
    where: str | None,
    group_by: str | None,
    frontier: Path | None,
    workload: Path | None,
    workload_columns: tuple[str, ...],
    accuracy: Path | None,
    share_texts: tuple[str, ...],
    only: tuple[str, ...],
    accuracy_weighting: Any,
    max_runtime_s: float | None,
    tariff_path: Path | None,
    tariff_zone: str | None,
    weigh: Weigh | None,
    price_per_kwh: float,
    co2_per_kwh: float,
    pue: float,
    plots: Path | None,
    title: str,
    out: Path,
) -> None:
    """Write one self-contained HTML page of fits, measurements and plans.

    The page needs no network and no other file. With measurements it shows throughput and joules per token, what the
    fits miss, phases, idle share and what screening found; with a workload and accuracies, or a frontier, the plans
    along ζ on a slider, with their cost and CO₂. Price and carbon factors are placeholders unless you give your own,
    and readers can change them on the page. With a --tariff they are those of each query's hour, plans pursue them, and
    each plan is shown with the one of the same accuracy that ignores the hours. Needs the extra: pip install
    'llmpower[report]'.

    \b
    Example:
      llmpower report --models models.json --measurements measurements.csv -o report.html
      llmpower report --models models.json --measurements 'runs/*.csv' --workload queries.csv --accuracy accuracy.csv
      llmpower report --models models.json --workload queries.csv --accuracy accuracy.csv --tariff tariff.csv
      llmpower report --models models.json --frontier frontier.csv --price-per-kwh 0.19 --co2-per-kwh 56
      llmpower report --models models.json --measurements measurements.csv --plots figures/
    """
    from llmpower.cli.outputs import check_places
    from llmpower.files import write_text
    from llmpower.modelling import load_models
    from llmpower.report import Factors, check_drawing, make_figures, render, save_figures

    check_places({"-o": out}, (models, *measurements, frontier, workload, accuracy, tariff_path))
    factors = Factors(price_per_kwh, co2_per_kwh, pue)
    factors.check()
    check_drawing()
    if not measurements:
        _refuse_without("--measurements", {"--column": columns, "--where": where, "--group-by": group_by})
    if workload is None:
        _refuse_without("--workload", {"--workload-column": workload_columns})
    if workload is None and frontier is None:
        limits = {"--share": share_texts, "--only": only, "--max-runtime": max_runtime_s, "--weigh": weigh}
        _refuse_without("--workload", limits)
    fitted = load_models(models)
    grouped = None if group_by is None else [name.strip() for name in group_by.split(",")]
    plans: Plans | None
    with shown("report") as progress:
        done = counted(progress, STAGES)
        rows, screening = _rows(models, measurements, columns, where)
        done()
        if frontier is not None:
            _refuse_beside_frontier(
                workload, accuracy, share_texts, only, max_runtime_s, tariff_path, tariff_zone, weigh
            )
            plans = _read_frontier(frontier, fitted, accuracy_weighting)
        else:
            tariff = tariff_of(tariff_path, tariff_zone)
            plans = _plan(
                *(fitted, workload, workload_columns, accuracy, share_texts, only, accuracy_weighting, max_runtime_s),
                *(tariff, weigh),
            )
        done()
        figures = make_figures(fitted, rows, plans, grouped)
        done()
        page = render(fitted, rows, plans, figures=figures, screening=screening, factors=factors, title=title)
        done()
    if plots is not None:
        with shown("plots") as progress:
            simulated = any(model.simulated for model in fitted)
            save_figures(figures, plots, "--plots", simulated=simulated, progress=progress)
    write_text(out, page, "-o")
    print(f"{out}: {len(page.encode()) / 1024:.0f} KiB", file=sys.stderr)
    if plots is not None:
        print(f"{plots}: {len(figures)} figures, each as PNG and SVG", file=sys.stderr)


def _rows(
    models: Path, sources: tuple[str, ...], columns: tuple[str, ...], where: str | None
) -> tuple[pd.DataFrame | None, Any]:
    """The rows that were fitted, and what screening found in all of them; only the latter where no source is given."""
    from llmpower.modelling import screen
    from llmpower.modelling.fitted.document import load_screening
    from llmpower.tables import parse_columns

    fitted = load_screening(models)
    if not sources:
        return None, fitted
    found = read_sources(sources, "--measurements", columns=parse_columns(columns), where=where)
    left_out = list(dict.fromkeys(f["kind"] for f in fitted["findings"] if f["left_out"])) if fitted else []
    screening = screen(found)
    # A fit may have known design powers that the rows do not tell, so its own word goes first if it was about these.
    document = screening.document(left_out) if fitted is None or fitted["rows"] != len(found) else fitted
    return screening.leave_out(found, left_out), document


def _read_frontier(path: Path, models: Sequence[WorkloadModel], weighting: Any) -> Plans:
    from llmpower.report import read_steps
    from llmpower.tables import read_table

    table = read_table(path, required=FRONTIER, what="--frontier", option=None)
    if not len(table):
        raise InputError("--frontier", path, "holds no plans; write it again with llmpower route --frontier")
    return read_steps(table, simulated=any(model.simulated for model in models), weighting=weighting)


def _plan(
    models: Sequence[WorkloadModel],
    path: Path | None,
    columns: tuple[str, ...],
    accuracy: Path | None,
    share_texts: tuple[str, ...],
    only: tuple[str, ...],
    weighting: Any,
    max_runtime_s: float | None,
    tariff: Tariff | None,
    weigh: Weigh | None,
) -> Plans | None:
    from llmpower.report import Hours, plan_steps
    from llmpower.routing import Workload, read_accuracy
    from llmpower.routing.problem.shares import parse_shares
    from llmpower.routing.problem.workload import REQUIRED
    from llmpower.tables import parse_columns, read_table

    if path is None:
        if accuracy is not None:
            raise InputError("--accuracy", accuracy, "weighs the plans of a workload; give --workload too")
        if tariff is not None:
            raise InputError("--tariff", "given", "bills the plans of a workload; give --workload too")
        return None
    if accuracy is None:
        raise InputError("--workload", path, "plans weigh energy against accuracy; give --accuracy too")
    option = "--workload-column"
    named = parse_columns(columns, option)
    required = REQUIRED if tariff is None else (*REQUIRED, "timestamp")
    frame = read_table(path, columns=named, required=required, what="--workload", option=option)
    return plan_steps(
        models,
        Workload.from_frame(frame, tariff),
        read_accuracy(accuracy),
        shares=parse_shares(share_texts),
        only=only,
        weighting=weighting,
        max_runtime_s=max_runtime_s,
        weigh=weigh,
        hours=None if tariff is None else Hours.of(tariff, frame["timestamp"]),
    )


def _refuse_without(option: str, given: Mapping[str, object]) -> None:
    """Options that say how to take what is not there."""
    _refuse(given, f"says how {option} is taken; give that too, or leave this out")


def _refuse_beside_frontier(*given: object) -> None:
    """A frontier is plans already."""
    names = ("--workload", "--accuracy", "--share", "--only", "--max-runtime", "--tariff", "--tariff-zone", "--weigh")
    advice = "the plans of --frontier are found already; leave one of the two out"
    _refuse(dict(zip(names, given, strict=True)), advice)


def _refuse(given: Mapping[str, object], advice: str) -> None:
    for name, value in given.items():
        if value:
            raise InputError(name, value[0] if isinstance(value, tuple) else value, advice)
