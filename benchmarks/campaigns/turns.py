"""Two campaigns over the same cells, interleaved trial by trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmpower.modelling.forms import make_form
from llmpower.profiling import Campaign, Cell, Design, Event, EveryCell, Order, StoppingRule, Workload

FORM = "cached"
"""What cells are chosen for."""


def orders(cells: Sequence[Cell], trials: int, seed: int) -> dict[str, Order]:
    """Every cell this many times, and a quarter of that on chosen cells."""
    rows = make_form(FORM).design([cell.input_tokens for cell in cells], [cell.output_tokens for cell in cells])
    return {
        "grid": EveryCell(cells, rule_of(trials), seed),
        "chosen": Design(cells, rows, seed=seed, per_cell=trials, most_per_cell=trials),
    }


def rule_of(trials: int) -> StoppingRule:
    """This many trials of each cell, however wide their interval is."""
    return StoppingRule(ci_half_width_s=None, energy_precision=0.0, max_trials=trials, min_trials=trials)


def in_turns(campaigns: Mapping[str, Campaign], workload: Workload) -> Iterator[tuple[str, Event]]:
    """The events of all campaigns; the next trial is of the one that has the smaller part of its own behind it."""
    plans = {name: campaign.plan() for name, campaign in campaigns.items()}
    # What is over was not planned at all; half a trial more puts each of the few in the middle of its part of the many.
    planned = {name: plan.done + max(plan.expected_trials, 1) for name, plan in plans.items()}
    running = {name: campaign.run(workload) for name, campaign in campaigns.items()}
    while running:
        name = min(running, key=lambda name: (campaigns[name].trials + 0.5) / planned[name])
        event = next(running[name], None)
        if event is None:
            del running[name]
        else:
            yield name, event
