r"""A whole grid and a campaign with chosen cells, of one model in one session, interleaved trial by trial.

Both are campaigns as `llmpower profile` runs them, over the same cells and with the same loaded model; the next trial
is always of the one that has done the smaller part of its own, so each of the chosen ones lies among the grid's.
They share a name in the daemon's store. Which trial was whose is known by the journals, and stands in the column
``campaign`` of the file that is written at the end: ``grid`` or ``chosen``.

    llmpower daemon --backend simulated --store spans.db --socket /tmp/llmpower.sock &
    python benchmarks/campaigns/together.py MODEL --store spans.db --socket /tmp/llmpower.sock \
        --journals DIR -o examples/together-NAME.csv

Broken off or killed, it goes on when it is started again.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
from turns import in_turns, orders, rule_of  # beside this file

from llmpower.profiling import (
    Campaign,
    Cell,
    Generation,
    Journal,
    Meter,
    Trial,
    Workload,
    find_model,
    load_model,
    make_grid,
    parse_lengths,
    warm,
)
from llmpower.spans import SpanClient, request_status
from llmpower.store import read_measurements
from llmpower.tables import write_table

PATIENCE_S = 30.0
"""How long the last trials may take to be stored."""


def main() -> None:
    """Measure, and write both campaigns' trials to one file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a folder, a GGUF file, or a name on the hub")
    parser.add_argument("--model-name", help="of the measurements; by default the model's own")
    parser.add_argument("--input-tokens", default="8,32,64,128,256,512")
    parser.add_argument("--output-tokens", default="4,8,16,32")
    parser.add_argument("--trials", type=int, default=3, help="of each cell of the grid")
    parser.add_argument("--pause", type=float, default=0.25, help="before each trial, seconds")
    parser.add_argument("--settle", type=float, default=10.0, help="work first for this many seconds at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--socket", type=Path, required=True, help="the daemon's")
    parser.add_argument("--store", type=Path, required=True, help="the daemon's")
    parser.add_argument("--journals", type=Path, required=True, help="the folder for both")
    parser.add_argument("-o", "--out", type=Path, required=True, help="FILE.csv")
    arguments = parser.parse_args()
    cells = make_grid(
        parse_lengths("--input-tokens", arguments.input_tokens),
        parse_lengths("--output-tokens", arguments.output_tokens),
    )
    source = find_model(arguments.model)
    name = arguments.model_name or source.name
    generation = Generation(
        load_model(source),
        SpanClient(arguments.socket),
        model_name=name,
        pause_s=arguments.pause,
        seed=arguments.seed,
    )
    with ExitStack() as stack:
        workload: Workload = stack.enter_context(generation)
        whose: dict[str, str] = {}
        campaigns: dict[str, Campaign] = {}
        for campaign, order in orders(cells, arguments.trials, arguments.seed).items():
            path = arguments.journals / f"{name}-{campaign}.jsonl"
            settings = {"model_name": name, "campaign": campaign, "seed": arguments.seed}
            journal = stack.enter_context(Journal(path, settings, resume=True))
            whose |= dict.fromkeys(journal.trials, campaign)
            campaigns[campaign] = Campaign(cells, rule_of(arguments.trials), journal=journal, order=order)
        if any(campaign.unfinished() for campaign in campaigns.values()):
            work(Meter(lambda: request_status(arguments.socket)), workload, cells[len(cells) // 2], arguments.settle)
        for campaign, event in in_turns(campaigns, workload):
            if isinstance(event, Trial):
                whose[event.span.span_id] = campaign
                print(f"{campaign}: {event.cell}, trial {event.number}, {event.span.runtime_s:.3g} s", file=sys.stderr)
    write_table(stored(arguments.store, name, whose), arguments.out)
    print(f"{len(whose)} trials in {arguments.out}", file=sys.stderr)


def work(meter: Meter, workload: Workload, cell: Cell, most_s: float) -> None:
    """Until the device is steady."""
    for settled in warm(meter, lambda: workload.probe(cell), most_s):
        print(f"warming up: {settled.power_w or math.nan:.1f} W after {settled.seconds:.0f} s", file=sys.stderr)


def stored(store: Path, name: str, whose: Mapping[str, str]) -> pd.DataFrame:
    """The trials' measurements, in order of start, once the daemon has stored all of them."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        rows = read_measurements(store, model=name)
        rows = rows[rows["span_id"].isin(list(whose))]
        if len(rows) == len(whose):
            return rows.assign(campaign=rows["span_id"].map(whose))
        if time.monotonic() > until_s:
            raise SystemExit(f"{store} has {len(rows)} of the {len(whose)} trials; is it the store of that daemon?")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
