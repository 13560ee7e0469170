"""Whether cells chosen for a form do for it what the whole grid does, with a quarter of the trials.

**What is compared**: the held-out errors of both over all cells of the grid, each predicted by a fit without it. The
cells that a campaign has measured are left out of its fit in turn, the ends of the lengths among them, and there it has
less to go by than the grid: the stricter figure. On the cells that it has not measured, its error is shown beside the
grid's own on the same ones (``error_new``, ``grid_error_new``). It is not to be compared with the grid's on all, as
this benchmark once did: those cells are not like the rest, easier where a form is stretched at the ends of the lengths,
as on the paper's grids, or harder, as on ours.

Where trials are noisy, a campaign's own are a small sample to judge by, and it has chosen its form by them. So its
error on every trial of the grid, most of which it has not seen, is shown too (``anew_excess``), and on the same that
of somebody who knows the grid's model but for one factor and has the campaign's trials to find it by
(``factor_excess``): the price of noise where there is one number to learn, and a form has several.

A campaign is fitted as a user should fit it (`llmpower fit --robust`, form auto): of twenty trials one outlier is a
twentieth, and the paper's grids have a first call in their shortest cell, at twice its price. The grid is fitted with
`--robust` or without it, whichever is better. Beside them are the same trials without `--robust` (``plain_excess``),
and as many trials on cells drawn at random.

**Replayed**: a campaign that asks for a cell of a grid that was measured in full is given one of that cell's trials, in
an order drawn by the seed. The grids are the paper's (seven models on A100s without a KV cache, one trial per cell,
energy by the NVML counter), where the reference data is available, and this project's own (examples/, SIMULATED
joules). They are read in place. A grid of which a quarter of the trials reaches every cell is not replayed, since
nothing would be new to the campaign.

**In real runs**: a campaign that chose its cells by what it had measured itself, and a grid alongside it. A campaign of
one minute compared with a grid of another shows how the machine has changed in between, not what its cells were worth:
on the same machine the same trial has taken half and twice as long. So both are made in one session, interleaved trial
by trial (campaigns/together.py), each a quarter of the way through when the other is, so that drift affects both. Every
session that was begun is kept and judged, with the noise of one trial and the standard error of the difference beside
it. Campaigns that were run apart from their grid are shown with how far their model lies from the grid's trials on
average (``drift``), and are not judged.

    python benchmarks/campaign.py            50 seeds (6 minutes)
    python benchmarks/campaign.py --quick    5 seeds

Fails (exit code 1) where the bar does: a quarter of the trials at most, and the campaigns of each model, as their mean
over the seeds and as that over the sessions, at most a point worse than its grid.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import fmean, median
from typing import Any

from campaigns.grids import ROOT, read_grids, read_real
from campaigns.judging import Judged, judge
from campaigns.replay import POINT, Outcome, leaves_cells, replay_all

from llmpower.files import write_text
from llmpower.profiling.design import SHARE

RESULTS = ROOT / "benchmarks" / "results" / "campaign.json"


def main() -> None:
    """Replay, print the table, write the results, and hold them against the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 seeds instead of 50, and no file written")
    parser.add_argument("--seeds", type=int, help="that many")
    arguments = parser.parse_args()
    seeds = arguments.seeds or (5 if arguments.quick else 50)
    grids = list(read_grids())
    with ProcessPoolExecutor() as pool:
        replayed = [grid for grid in grids if leaves_cells(grid)]
        outcomes = list(pool.map(replay_all, replayed, [seeds] * len(replayed)))
    sources = {source: _summary([each for each in outcomes if each.source == source]) for source in _names(outcomes)}
    print(as_text(outcomes))
    for source, summary in sources.items():
        points = {name: f"{100 * summary[name]:+.2f}" for name in summary if "excess" in name}
        print(
            f"{source}: {points['median_excess']} points against the grid as the median over models, "
            f"{points['worst_excess']} as the worst (without --robust {points['worst_plain_excess']}); "
            f"{summary['within']:.0%} of all campaigns within a point, at random {summary['chance_within']:.0%}; "
            f"on cells not measured {points['median_excess_new']} and {points['worst_excess_new']}"
        )
    real = [judge(each) for each in read_real()]
    for each in real:
        print(real_text(each))
    document = {
        "what": "held-out MAPE of energy: cells chosen for the form against the whole grid and cells by chance",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "seeds": seeds,
        "sources": sources,
        "for_real": [asdict(each) for each in real],
        "models": [asdict(each) for each in outcomes],
    }
    if not arguments.quick:
        write_text(RESULTS, json.dumps(_rounded(document), ensure_ascii=False, indent=2) + "\n")
    failed = [each.model_name for each in outcomes if each.excess > POINT or each.share > SHARE]
    sessions = [each for each in real if each.together]
    for name in dict.fromkeys(each.model_name for each in sessions):
        of = [each for each in sessions if each.model_name == name]
        if fmean(each.excess for each in of) > POINT or max(each.share for each in of) > SHARE:
            failed.append(f"{name} for real")
    if failed:
        print(f"the bar fails on {', '.join(failed)}", file=sys.stderr)
        sys.exit(1)


def as_text(outcomes: Sequence[Outcome]) -> str:
    """One line per model, in percent and points."""
    head = (
        f"{'model':28} {'trials':>13} {'grid':>6} {'chosen':>7} {'excess':>7} {'worst':>6} {'within':>7}"
        f" {'chance':>7} {'worst':>6} {'within':>7} {'anew':>6} {'factor':>6}"
    )
    lines = [
        f"{each.model_name:28} {each.trials:5.1f} of {each.grid_trials:4}"
        f" {each.grid_error:6.1%} {each.error:7.1%}"
        f" {100 * each.excess:+7.2f} {100 * each.worst_excess:+6.1f} {each.within:7.0%}"
        f" {100 * each.chance_excess:+7.2f} {100 * each.worst_chance_excess:+6.1f} {each.chance_within:7.0%}"
        f" {100 * each.anew_excess:+6.2f} {100 * each.factor_excess:+6.2f}"
        for each in outcomes
    ]
    return "\n".join([head, *lines])


def real_text(of: Judged) -> str:
    """What became of one campaign that was run."""
    where = (
        "interleaved with its grid" if of.together else f"apart from its grid, {of.drift:+.1%} by drift (not judged)"
    )
    return (
        f"for real, {of.model_name}, {where}: {of.trials} of {of.grid_trials} trials, {of.error:.1%}, the grid"
        f" {of.grid_error:.1%}: {100 * of.excess:+.2f} ± {100 * of.excess_std:.2f} points; where it has not measured"
        f" {of.error_new:.1%}, the grid there {of.grid_error_new:.1%}; a trial's noise {of.noise:.1%}"
    )


def _summary(outcomes: Sequence[Outcome]) -> dict[str, float]:
    new = [each.error_new - each.grid_error_new for each in outcomes]
    return {
        "median_excess": median(each.excess for each in outcomes),
        "worst_excess": max(each.excess for each in outcomes),
        "worst_plain_excess": max(each.plain_excess for each in outcomes),
        "share": max(each.share for each in outcomes),
        "within": fmean(each.within for each in outcomes),
        "median_chance_excess": median(each.chance_excess for each in outcomes),
        "median_excess_new": median(new),
        "worst_excess_new": max(new),
        "chance_within": fmean(each.chance_within for each in outcomes),
    }


def _names(outcomes: Sequence[Outcome]) -> list[str]:
    return list(dict.fromkeys(each.source for each in outcomes))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return round(value, 5) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
