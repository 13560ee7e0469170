"""``llmpower report``: models, measurements and a frontier on one page."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option("--models", type=click.Path(path_type=Path), required=True, help="models.json, from 'llmpower fit'.")
@click.option(
    "--measurements", multiple=True, metavar="SOURCE", help="What the models were fitted to, for the plots; repeatable."
)
@click.option("--frontier", type=click.Path(path_type=Path), help="CSV from 'llmpower route --frontier'.")
@click.option("--title", default="Energy per request", show_default=True, help="Heading of the page.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True, help="The page."
)
def command(models: Path, measurements: tuple[str, ...], frontier: Path | None, title: str, out: Path) -> None:
    """Write one self-contained HTML page of fits and plans.

    The page needs no network and no other file. Needs the extra: pip install 'llmpower[report]'.

    \b
    Example:
      llmpower report --models models.json --measurements measurements.csv -o report.html
      llmpower report --models models.json --measurements 'runs/*.csv' --frontier frontier.csv
    """
    from llmpower.files import write_text
    from llmpower.modelling import load_measurements, load_models
    from llmpower.report import render
    from llmpower.tables import read_table

    page = render(
        load_models(models),
        load_measurements(measurements) if measurements else None,
        None
        if frontier is None
        else read_table(
            frontier, required=("zeta", "energy_j", "runtime_s", "accuracy_token_weighted"), what="--frontier"
        ),
        title=title,
    )
    write_text(out, page, "-o")
    print(f"{out}: {len(page.encode()) / 1024:.0f} KiB", file=sys.stderr)
