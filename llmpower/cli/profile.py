"""``llmpower profile``: the measuring campaign, from options to a summary."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import aligned

if TYPE_CHECKING:
    from llmpower.profiling import Campaign, CellResult, Event

PAPER_LENGTHS = "8..2048"
DTYPES = ("auto", "float32", "float16", "bfloat16")


@click.command()
@click.argument("model")
@click.option("--model-name", metavar="N", help="Name of the measurements.  [default: MODEL's own]")
@click.option("--input-tokens", metavar="L", default=PAPER_LENGTHS, show_default=True, help="Prompt lengths.")
@click.option("--output-tokens", metavar="L", default=PAPER_LENGTHS, show_default=True, help="Output lengths.")
@click.option("--batch-size", "batch_sizes", metavar="L", default="1", show_default=True, help="Sequences per call.")
@click.option("--max-trials", type=click.IntRange(min=1), default=25, show_default=True, help="Of one cell, at most.")
@click.option("--min-trials", type=click.IntRange(min=1), default=3, show_default=True, help="Of one cell, at least.")
@click.option(
    "--ci-half-width",
    metavar="S",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="A cell stops when the mean runtime's 95 % confidence interval is ± this many seconds.",
)
@click.option("--pause", metavar="S", type=click.FloatRange(min=0), default=0.25, show_default=True, help="Rest, s.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order and of the prompts.")
@click.option(
    "--journal", type=click.Path(path_type=Path), help="Progress file.  [default: by model, in the state dir]"
)
@click.option("--resume", is_flag=True, help="Go on with the campaign in the journal.")
@click.option("--no-kv-cache", is_flag=True, help="Read the whole context again at each step, as the paper's runs did.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to run it."
)
@click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True, help="Of the weights.")
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), help="The daemon's.  [default: where it is]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    model: str,
    model_name: str | None,
    input_tokens: str,
    output_tokens: str,
    batch_sizes: str,
    max_trials: int,
    min_trials: int,
    ci_half_width: float,
    pause: float,
    seed: int,
    journal: Path | None,
    resume: bool,
    no_kv_cache: bool,
    device: str,
    dtype: str,
    socket_path: Path | None,
    as_json: bool,
) -> None:
    """Measure a model over a grid of input and output lengths.

    MODEL is a name on the Hugging Face hub, a model's folder, or a .gguf file. Every combination of the lengths is a
    cell; L is a list (8,16,32) or a range by doubling (8..2048). Cells are measured in rounds of random order until
    their mean runtime is known well enough. The daemon must run: it stores the joules, and 'llmpower export' gives
    them out. A campaign that was broken off goes on with --resume.

    \b
    Example:
      llmpower profile meta-llama/Llama-2-7b-hf --input-tokens 8..1024 --output-tokens 8..1024
      llmpower profile model.gguf --input-tokens 16,64 --output-tokens 16,64 --max-trials 5
      llmpower profile ./my-model --resume
    """
    from llmpower.profiling import StoppingRule, make_grid, parse_lengths
    from llmpower.spans import SpanClient, default_socket_path, request_status

    cells = make_grid(
        parse_lengths("--input-tokens", input_tokens),
        parse_lengths("--output-tokens", output_tokens),
        parse_lengths("--batch-size", batch_sizes),
    )
    rule = StoppingRule(ci_half_width_s=ci_half_width, max_trials=max_trials, min_trials=min_trials)
    socket_path = socket_path or default_socket_path()
    simulated = bool(request_status(socket_path).get("simulated"))
    if simulated:
        print("llmpower: SIMULATED: the daemon's GPU is a model of one; no joule below is real", file=sys.stderr)

    if not sys.stderr.isatty():
        # The libraries' own progress bars; tqdm reads it when it is imported.
        os.environ.setdefault("TQDM_DISABLE", "1")
    # From here on torch is needed, and with it seconds: whatever can be refused without it has been.
    from llmpower.profiling import (
        Campaign,
        Generation,
        Journal,
        check_lengths,
        find_model,
        load_model,
        quieten_transformers,
        read_config,
    )

    quieten_transformers()
    source = find_model(model)
    check_lengths(cells, read_config(source))
    # Without the cache a token costs otherwise: the two must not end up in one fit because they share a name.
    name = model_name or (f"{source.name} (no KV cache)" if no_kv_cache else source.name)
    settings = {"model_name": name, "kv_cache": not no_kv_cache, "device": device, "dtype": dtype}
    with Journal(journal or _default_journal(name), settings, resume=resume) as kept:
        campaign = Campaign(cells, rule, seed=seed, journal=kept)
        if campaign.unfinished():
            generation = Generation(
                load_model(source, device=device, dtype=dtype),
                SpanClient(socket_path),
                model_name=name,
                use_cache=not no_kv_cache,
                pause_s=pause,
                seed=seed,
            )
            with generation, _progress(campaign, len(cells)) as show:
                for event in campaign.run(generation):
                    show(event)
        results = campaign.results()
    if as_json:
        document = {"model_name": name, "simulated": simulated, "kv_cache": not no_kv_cache, "journal": str(kept.path)}
        document["cells"] = [_record(result) for result in results]
        print(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        print("\n".join(_summary(name, results)))


def _default_journal(name: str) -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    directory = Path(state, "llmpower")
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"profile-{name.replace('/', '--')}.jsonl"


@contextmanager
def _progress(campaign: Campaign, cells: int) -> Iterator[Callable[[Event], None]]:
    """What shows an event on stderr: a bar on a terminal, else a line whenever a cell is done."""
    if not sys.stderr.isatty():
        done = cells - len(campaign.unfinished())

        def show_line(event: Event) -> None:
            nonlocal done
            now = cells - len(campaign.unfinished())
            if now > done:
                done = now
                print(f"llmpower: {_said(event)}, {done} of {cells} cells, {_left(campaign)}", file=sys.stderr)

        yield show_line
        return

    bar: Any = click.progressbar(
        length=cells,
        label="profile",
        file=sys.stderr,
        show_eta=False,
        show_pos=True,
        item_show_func=lambda event: "" if event is None else f"{_said(event)}, {_left(campaign)}",
        # A trial that does not finish its cell moves nothing, and is shown all the same.
        update_min_steps=0,
    )
    with bar:
        bar.update(cells - len(campaign.unfinished()))
        yield lambda event: bar.update(cells - len(campaign.unfinished()) - bar.pos, event)


def _said(event: Event) -> str:
    from llmpower.profiling import Skipped, Trial

    match event:
        case Trial():
            return f"{event.cell}: trial {event.number}, {event.span.runtime_s:.3g} s"
        case Skipped():
            return f"{event.cell}: left out, {event.reason}"
        case _:
            return f"{event.cell}: warm-up"


def _left(campaign: Campaign) -> str:
    left_s = campaign.expected_left_s()
    if left_s is None:
        return "time left not known yet"
    return f"about {left_s / 60:.0f} min left" if left_s >= 90 else f"about {left_s:.0f} s left"


def _record(result: CellResult) -> dict[str, Any]:
    return {
        "input_tokens": result.cell.input_tokens,
        "output_tokens": result.cell.output_tokens,
        "batch_size": result.cell.batch_size,
        "trials": result.trials,
        "mean_runtime_s": result.mean_runtime_s,
        "ci_half_width_s": result.half_width_s,
        "ci_reached": result.is_narrow,
        "skipped": result.skipped,
    }


def _summary(name: str, results: Sequence[CellResult]) -> list[str]:
    rows = [
        (
            str(result.cell.input_tokens),
            str(result.cell.output_tokens),
            str(result.cell.batch_size),
            str(result.trials),
            "–" if result.mean_runtime_s is None else f"{result.mean_runtime_s:.4g}",
            "–" if result.half_width_s is None else f"{result.half_width_s:.2g}",
            result.skipped or ("" if result.is_narrow else "interval still wide"),
        )
        for result in results
    ]
    header = ("τin", "τout", "BATCH", "TRIALS", "RUNTIME [s]", "± 95 % [s]", "NOTE")
    trials = sum(result.trials for result in results)
    return [
        *aligned(header, rows, right="τin τout BATCH TRIALS"),
        f"{name}: {trials} trials of {len(results)} cells. Their joules are in the daemon's store:",
        f"  llmpower export --model {name!r} -o measurements.csv && llmpower fit measurements.csv",
    ]
