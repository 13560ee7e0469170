"""What ``llmpower profile`` shows: the plan before, the progress during, the table after."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from llmpower import phrases
from llmpower.cli.layout import aligned, compact

if TYPE_CHECKING:
    from llmpower.profiling import Campaign, CellResult, Event, Plan, Settled

DIFFERENT = 0.05
"""Idle power after the trials that differs by more from that before is worth a word."""

IDLE_BEFORE, IDLE_AFTER = "idle_before_w", "idle_after_w"
SETTLED_S, SETTLED_W, SETTLED_C = "settled_s", "settled_w", "settled_temperature_c"
SETTLED_DRIFT_C, SETTLED_STEADY = "settled_drift_c", "settled_steady"
CONDITIONS = (IDLE_BEFORE, IDLE_AFTER, SETTLED_S, SETTLED_W, SETTLED_C, SETTLED_DRIFT_C, SETTLED_STEADY)
"""Notes of a campaign's journal that say under which conditions its trials were run."""


def plan_text(plan: Plan, around_s: float) -> str:
    """One line; ``around_s`` is what goes into idle power and warming up, at most."""
    done = f", {plan.done} done" if plan.done else ""
    trials = f"{phrases.plural(plan.expected_trials, 'trial')} expected, {plan.most_trials:,} at most"
    if plan.expected_trials == plan.most_trials:
        trials = phrases.plural(plan.most_trials, "trial")
    time = ""
    if plan.expected_s is not None and plan.most_s is not None:
        most = f", at most {phrases.duration(plan.most_s + around_s)}" if plan.most_s > plan.expected_s else ""
        time = f"; about {phrases.duration(plan.expected_s + around_s)}{most}"
    return f"{phrases.plural(plan.cells, 'cell')}{done}; {trials}{time}"


@contextmanager
def progress(campaign: Campaign, pause_s: float) -> Iterator[Callable[[Event], None]]:
    """What shows an event on stderr: a bar of trials on a terminal, else a line whenever a cell is done.

    Where cells are chosen one by one, each trial is a line.
    """
    if not sys.stderr.isatty():
        cells, done = len(campaign.results()), _done(campaign)

        def show_line(event: Event) -> None:
            nonlocal done
            now = _done(campaign)
            if now > done or campaign.is_choosing:
                done = now
                said = f"{_said(event)}, {done} of {phrases.plural(cells, 'cell')}, {_left(campaign, pause_s)}"
                print(f"llmpower: {said}", file=sys.stderr)

        yield show_line
        return

    plan = campaign.plan()
    bar: Any = click.progressbar(
        length=plan.done + plan.expected_trials,
        label="profile",
        file=sys.stderr,
        show_eta=False,
        show_pos=True,
        item_show_func=lambda event: "" if event is None else f"{_said(event)}, {_left(campaign, pause_s)}",
        # A warm-up moves nothing, and is shown all the same.
        update_min_steps=0,
    )

    def show_bar(event: Event) -> None:
        now = campaign.plan()
        bar.length = now.done + now.expected_trials
        bar.update(now.done - bar.pos, event)

    with bar:
        bar.update(plan.done)
        yield show_bar


def record(result: CellResult) -> dict[str, Any]:
    """A cell of the JSON document."""
    return {
        "input_tokens": result.cell.input_tokens,
        "output_tokens": result.cell.output_tokens,
        "batch_size": result.cell.batch_size,
        "concurrency": result.cell.concurrency,
        "trials": result.trials,
        "mean_runtime_s": result.mean_runtime_s,
        "ci_half_width_s": result.half_width_s,
        "mean_energy_j": result.mean_energy_j,
        "ci_half_width_j": result.half_width_j,
        "ci_reached": result.is_narrow,
        "skipped": result.skipped,
    }


def summary(results: Sequence[CellResult], *, chosen: bool) -> list[str]:
    """The table of all cells that were measured or left out; of chosen ones no interval is promised."""
    shown = [result for result in results if result.trials or result.skipped]
    if not shown:
        return []
    cells = [result.cell for result in shown]
    # What is one everywhere is no news.
    sides = {
        name: values
        for name, values in (
            ("BATCH", [cell.batch_size for cell in cells]),
            ("AT A TIME", [cell.concurrency for cell in cells]),
        )
        if set(values) != {1}
    }
    rows = [
        (
            str(result.cell.input_tokens),
            str(result.cell.output_tokens),
            *map(str, side_by_side),
            str(result.trials),
            compact(result.mean_runtime_s, 4),
            compact(result.half_width_s, 2),
            compact(result.mean_energy_j, 4),
            compact(result.half_width_j, 2),
            result.skipped or ("" if chosen or result.is_narrow else "still wide"),
        )
        for result, *side_by_side in zip(shown, *sides.values(), strict=True)
    ]
    header = ("τin", "τout", *sides, "TRIALS", "RUNTIME [s]", "± 95 % [s]", "ENERGY [J]", "± 95 % [J]")
    return aligned((*header, "NOTE"), rows, right=header)


def idle_text(before_w: float | None, after_w: float | None) -> str | None:
    """Idle power on both sides of the trials; ``None`` where neither is known."""
    if before_w is None and after_w is None:
        return None
    if before_w is None or after_w is None:
        return f"idle power {before_w or after_w:.1f} W {'after' if before_w is None else 'before'} the trials"
    drift = after_w / before_w - 1
    word = "" if abs(drift) <= DIFFERENT else ": conditions changed, or something else ran"
    return f"idle power {before_w:.1f} W before and {after_w:.1f} W after ({100 * drift:+.1f} %){word}"


def settled_text(settled: Settled) -> str:
    """How warm the devices are by now, and how steady."""
    power = "power not known" if settled.power_w is None else f"{settled.power_w:.1f} W"
    warmth = "" if settled.temperature_c is None else f", {settled.temperature_c:.0f} °C"
    moved = "" if settled.drift_c is None else f", moved by {settled.drift_c:.0f} °C lately"
    return f"{power}{warmth}{moved} after {phrases.duration(settled.seconds)}"


def settled_notes(settled: Settled) -> dict[str, float | None]:
    """The same for the campaign's journal."""
    return {
        SETTLED_S: settled.seconds,
        SETTLED_W: settled.power_w,
        SETTLED_C: settled.temperature_c,
        SETTLED_DRIFT_C: settled.drift_c,
        SETTLED_STEADY: float(settled.is_steady),
    }


def warmth_text(notes: Mapping[str, float | None]) -> str | None:
    """How the devices were when trials began, of a campaign's notes; ``None`` where it did not warm them up."""
    power_w, seconds = notes.get(SETTLED_W), notes.get(SETTLED_S)
    if seconds is None:
        return None
    from llmpower.profiling import Settled

    steady = bool(notes.get(SETTLED_STEADY))
    settled = Settled(seconds, power_w, steady, notes.get(SETTLED_C), notes.get(SETTLED_DRIFT_C))
    return f"trials began at {settled_text(settled)} of work{'' if steady else ', not yet steady'}"


def _done(campaign: Campaign) -> int:
    wanted = set(campaign.unfinished())
    return sum(
        result.skipped is not None or (result.trials > 0 and result.cell not in wanted) for result in campaign.results()
    )


def _said(event: Event) -> str:
    from llmpower.profiling import Skipped, Trial

    match event:
        case Trial():
            return f"{event.cell}: trial {event.number}, {event.span.runtime_s:.3g} s"
        case Skipped():
            return f"{event.cell}: left out, {event.reason}"
        case _:
            return f"{event.cell}: warm-up"


def _left(campaign: Campaign, pause_s: float) -> str:
    left_s = campaign.plan(pause_s).expected_s
    return "time left not known yet" if left_s is None else f"about {phrases.duration(left_s)} left"
