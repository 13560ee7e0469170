"""``llmpower profile``: the measuring campaign, from options to a summary."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower import phrases
from llmpower.cli.asked import ASKED, PRECISION, campaign_of, going_on
from llmpower.cli.campaigns import (
    CONDITIONS,
    IDLE_AFTER,
    IDLE_BEFORE,
    idle_text,
    plan_text,
    progress,
    record,
    settled_notes,
    settled_text,
    summary,
    warmth_text,
)
from llmpower.cli.layout import echo_lines
from llmpower.cli.options import FiniteRange, json_option
from llmpower.cli.targets import check, local, served
from llmpower.cli.values import forms
from llmpower.phrases import SIMULATED_GPU

if TYPE_CHECKING:
    from llmpower.profiling import Cell, Journal, Meter, Workload

PAPER_LENGTHS = "8..2048"
DTYPES = ("auto", "float32", "float16", "bfloat16")
BEGAN = "began_unix_s"


@click.command()
@click.argument("model", required=False)
@click.option("--model-name", metavar="N", help="Name of the measurements.  [default: MODEL's own]")
@click.option("--input-tokens", metavar="L", default=PAPER_LENGTHS, show_default=True, help="Prompt lengths.")
@click.option("--output-tokens", metavar="L", default=PAPER_LENGTHS, show_default=True, help="Output lengths.")
@click.option("--batch-size", metavar="L", default="1", show_default=True, help="Sequences per call.")
@click.option("--concurrency", metavar="L", default="1", show_default=True, help="Requests at a time, of an endpoint.")
@click.option(
    "--cells",
    type=click.Choice(["all", "chosen"]),
    default="all",
    show_default=True,
    help="Every cell, or those that teach --form most, in a quarter of the trials.",
)
@click.option(
    "--form",
    metavar="NAME",
    shell_complete=forms,
    help="The form that cells are chosen for.  [default: by the KV cache and batches]",
)
@click.option("--trials", type=click.IntRange(min=1), help="Most trials of chosen cells.  [default: a quarter of all]")
@click.option("--max-trials", type=click.IntRange(min=1), default=25, show_default=True, help="Most trials of a cell.")
@click.option("--min-trials", type=click.IntRange(min=1), default=3, show_default=True, help="Fewest trials of a cell.")
@click.option(
    "--energy-precision",
    metavar="F",
    type=FiniteRange(min=0),
    help="A cell stops when the 95 % confidence interval of its mean energy is ± this part of it."
    f"  [default: {PRECISION}, unless --ci-half-width is given]",
)
@click.option(
    "--ci-half-width",
    metavar="S",
    type=FiniteRange(min=0),
    help="The paper's rule (there 0.5): the mean runtime's interval is ± this many seconds.",
)
@click.option(
    "--pause", metavar="S", type=FiniteRange(min=0), default=0.25, show_default=True, help="Rest between trials."
)
@click.option(
    "--idle",
    metavar="S",
    type=FiniteRange(min=0),
    default=5.0,
    show_default=True,
    help="Measure idle power for this long before and after the trials; 0 does not.",
)
@click.option(
    "--settle",
    metavar="S",
    type=FiniteRange(min=0),
    default=60.0,
    show_default=True,
    help="Work unmeasured until power is steady, and temperature if reported, for at most this long; 0 does not.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the order and the prompts.")
@click.option(
    "--journal", type=click.Path(path_type=Path), help="Progress file.  [default: by model, in the state dir]"
)
@click.option("--resume", is_flag=True, help="Go on with the campaign in the journal.")
@click.option("--plan", "plan_only", is_flag=True, help="Show the plan and how long it would take; measure nothing.")
@click.option("--no-kv-cache", is_flag=True, help="Read the whole context again at each step, as the paper's runs did.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to run it."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Precision of the weights.")
@click.option("--endpoint", metavar="URL", help="Measure a server that speaks OpenAI's API; MODEL is its name there.")
@click.option(
    "--spans",
    type=click.Choice(["auto", "server", "client"]),
    default="auto",
    show_default=True,
    help="Whose spans are the trials of an endpoint: the server's own, where it is instrumented, or this command's.",
)
@click.option("--api-key", metavar="KEY", help="Key of the endpoint; better in LLMPOWER_PROFILE_API_KEY than here.")
@click.option(
    "--socket", "socket_path", type=click.Path(path_type=Path), help="Daemon's socket.  [default: where it is]"
)
@json_option
@click.pass_context
def command(
    context: click.Context, /, model: str | None, socket_path: Path | None, as_json: bool, **options: Any
) -> None:
    """Measure a model over a grid of input and output lengths.

    MODEL is a name on the Hugging Face hub, a model's folder, or a .gguf file; with --endpoint it is a server's name
    for it. Every combination of the lengths is a cell; L is a list (8,16,32) or a range by doubling (8..2048). Cells
    are measured in rounds of random order until their mean energy is known well enough; --cells chosen measures those
    that teach the model most, in a quarter of the trials. The plan with its expected time comes first. The daemon must
    run: it stores the joules, and 'llmpower export' gives them out. A campaign that was broken off, or killed, goes on
    with --resume, as it was asked for unless this command says otherwise.

    \b
    Example:
      llmpower profile meta-llama/Llama-2-7b-hf --input-tokens 8..1024 --output-tokens 8..1024
      llmpower profile ./my-model --cells chosen --plan
      llmpower profile model.gguf --input-tokens 16,64 --output-tokens 16,64 --ci-half-width 0.5 --max-trials 5
      llmpower profile ./my-model --resume
      llmpower profile llama-3-8b --endpoint http://127.0.0.1:8000 --concurrency 1,4,16 --cells chosen
    """
    from llmpower.profiling import Campaign, Journal, Meter
    from llmpower.spans import default_socket_path, request_status

    cells, rule, order = campaign_of(options)
    check(model, options)
    socket_path = socket_path or default_socket_path()
    status = request_status(socket_path)
    simulated = bool(status.get("simulated"))
    if simulated:
        print(f"llmpower: {SIMULATED_GPU}", file=sys.stderr)
    store = status.get("store", {}).get("path")
    target = (served if options["endpoint"] else local)(model, socket_path, store and Path(store), options)
    path = options["journal"] or _default_journal(target.name)
    if options["resume"]:
        options |= going_on(context, path)
        cells, rule, order = campaign_of(options)
    target.check_cells(cells)
    asked = {name: options[name] for name in ASKED}
    with Journal(path, target.settings, resume=options["resume"], asked=asked) as journal:
        campaign = Campaign(cells, rule, seed=options["seed"], journal=journal, order=order)
        plan = campaign.plan(options["pause"])
        if campaign.unfinished():
            with target.open() as workload:
                for _ in campaign.prepare(workload):
                    pass
                plan = campaign.plan(options["pause"])
                _say(f"plan: {plan_text(plan, 2 * options['idle'] + options['settle'])}")
                if options["settle"] > 0:
                    _say(
                        f"plan: work first until power and temperature are steady, for {options['settle']:g} s at most"
                    )
                if not options["plan_only"]:
                    meter = Meter(lambda: request_status(socket_path))
                    with _between_idle(journal, meter, options["idle"]):
                        _warm(journal, meter, workload, cells, options["settle"])
                        with progress(campaign, options["pause"]) as show:
                            for event in campaign.run(workload):
                                show(event)
        began_s = journal.notes.get(BEGAN)
        notes = target.notes(None if began_s is None else datetime.fromtimestamp(began_s, UTC))
    if as_json:
        document = {"model_name": target.name, "simulated": simulated, "kv_cache": not options["no_kv_cache"]}
        document |= {"journal": str(journal.path), "plan": asdict(plan)}
        document |= {name: journal.notes.get(name) for name in CONDITIONS}
        document["cells"] = [record(result) for result in campaign.results()]
        print(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
    elif not options["plan_only"]:
        lines = summary(campaign.results(), chosen=campaign.is_choosing)
        conditions = [warmth_text(journal.notes)]
        conditions.append(idle_text(journal.notes.get(IDLE_BEFORE), journal.notes.get(IDLE_AFTER)))
        few = "Among so few trials a single outlier counts for much: fit them with 'llmpower fit --robust'."
        advice = [few] if campaign.is_choosing else []
        done = f"{target.name}: {phrases.plural(campaign.trials, 'trial')}."
        echo_lines([*lines, *filter(None, conditions), done, *advice, *notes])


@contextmanager
def _between_idle(journal: Journal, meter: Meter, seconds: float) -> Iterator[None]:
    """Idle power before and after what is done; a resumed campaign keeps that of its beginning."""
    from llmpower.profiling import idle_power_w

    if IDLE_BEFORE not in journal.notes:
        journal.note(IDLE_BEFORE, idle_power_w(meter, seconds))
        journal.note(BEGAN, time.time())
    yield
    journal.note(IDLE_AFTER, idle_power_w(meter, seconds))


def _warm(journal: Journal, meter: Meter, workload: Workload, cells: Sequence[Cell], most_s: float) -> None:
    """Work on the cell in the middle, which takes long enough and not too long, until power and warmth are steady."""
    from llmpower.profiling import warm

    settled = None
    cell = sorted(cells, key=lambda cell: cell.sequences * (cell.input_tokens + cell.output_tokens))[len(cells) // 2]
    for settled in warm(meter, lambda: workload.probe(cell), most_s):
        _say(f"warming up: {settled_text(settled)}")
    if settled is None:
        return
    # A campaign that goes on warms up again: what is kept is how its latest trials began.
    for name, value in settled_notes(settled).items():
        journal.note(name, value)
    if not settled.is_steady:
        _say(f"not steady after {phrases.duration(settled.seconds)}; the first trials may be of a cold device")


def _default_journal(name: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    directory = Path(state, "llmpower")
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"profile-{name.replace('/', '--')}.jsonl"


def _say(text: str) -> None:
    print(f"llmpower: {text}", file=sys.stderr)
