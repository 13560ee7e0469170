"""What ``llmpower profile`` is asked for: cells, until when, in which order; and what an earlier run was asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from llmpower.cli.targets import Options
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.profiling import Cell, Design, StoppingRule

PRECISION = 0.05
# What a campaign is asked for and may be asked for otherwise when it is resumed.
ASKED = (
    *("input_tokens", "output_tokens", "batch_size", "concurrency", "cells", "form", "trials"),
    *("max_trials", "min_trials", "energy_precision", "ci_half_width", "pause", "idle", "settle", "seed"),
)


def campaign_of(options: Options) -> tuple[Sequence[Cell], StoppingRule, Design | None]:
    """Which cells, until when, and in which order where they are chosen."""
    from llmpower.profiling import StoppingRule, make_grid, parse_lengths

    for name in ("form", "trials"):
        # A campaign that goes on may be one of chosen cells.
        if options[name] is not None and options["cells"] != "chosen" and not options["resume"]:
            raise InputError(f"--{name}", options[name], "is of cells that are chosen; add --cells chosen")
    cells = make_grid(
        parse_lengths("--input-tokens", options["input_tokens"]),
        parse_lengths("--output-tokens", options["output_tokens"]),
        parse_lengths("--batch-size", options["batch_size"]),
        parse_lengths("--concurrency", options["concurrency"]),
    )
    precision, half_width_s = options["energy_precision"], options["ci_half_width"]
    rule = StoppingRule(
        ci_half_width_s=half_width_s,
        energy_precision=PRECISION if precision is None and half_width_s is None else precision,
        max_trials=options["max_trials"],
        min_trials=min(options["min_trials"], options["max_trials"]),
    )
    return cells, rule, _design(cells, rule, options) if options["cells"] == "chosen" else None


def going_on(context: click.Context, path: Path) -> Options:
    """The options of the campaign in the journal, but for those that the command line has itself; and says so."""
    from llmpower.profiling import asked_before

    known, kept = asked_before(path), {}
    for option in context.command.params:
        name = str(option.name)
        if name in ASKED and name in known and context.get_parameter_source(name) is ParameterSource.DEFAULT:
            kept[name] = option.type_cast_value(context, known[name])
            if kept[name] != context.params[name]:
                print(f"llmpower: resumed: {option.opts[0]} {kept[name]}", file=sys.stderr)
    return kept


def _design(cells: Sequence[Cell], rule: StoppingRule, options: Options) -> Design:
    """The cells that teach the form most."""
    import numpy as np

    from llmpower.modelling.forms import RecomputeCall, make_form
    from llmpower.profiling import Design

    side_by_side = [cell.sequences for cell in cells]
    usual = "batched" if max(side_by_side) > 1 else "cached"
    form = make_form(options["form"] or (RecomputeCall.name if options["no_kv_cache"] else usual))
    lengths = [cell.input_tokens for cell in cells], [cell.output_tokens for cell in cells]
    # A form is of one sequence, a trial's joules are of all of them.
    rows = form.design(*lengths, side_by_side) * np.array(side_by_side)[:, np.newaxis]
    return Design(
        cells,
        rows,
        seed=options["seed"],
        per_cell=rule.min_trials,
        most_per_cell=rule.max_trials,
        budget=options["trials"],
    )
