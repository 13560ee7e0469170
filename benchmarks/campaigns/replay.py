"""A grid that was measured in full, replayed: a campaign that asks for a cell is given one of that cell's trials."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from campaigns.grids import LENGTHS, Grid
from campaigns.judging import Errors, anew, errors, held_out, one_factor
from llmpower.modelling.forms import make_form
from llmpower.profiling import Cell, Design, Joules, Readings
from llmpower.profiling.design import SHARE

POINT = 0.01


@dataclass(frozen=True)
class Outcome:
    """One model of one grid over all seeds; errors are MAPE as fractions, each of a fit on cells that it has not seen.

    ``share`` is the campaign's part of the grid's trials. ``error`` and ``grid_error`` are on all cells, ``excess`` is
    their difference, ``within`` the part of the seeds in which it is at most a point. ``error_new`` is on the cells
    that the campaign has not measured, ``grid_error_new`` the grid's own on the same. ``anew_excess`` is the campaign's
    on every trial of the grid, which it has mostly not seen, and ``factor_excess`` on the same that of whoever
    knows the grid's model but for one factor.
    """

    source: str
    model_name: str
    form: str
    grid_trials: int
    trials: float
    share: float
    error: float
    grid_error: float
    excess: float
    worst_excess: float
    within: float
    plain_excess: float
    chance_excess: float
    worst_chance_excess: float
    chance_within: float
    error_new: float
    grid_error_new: float
    anew_excess: float
    factor_excess: float


def replay_all(grid: Grid, seeds: int) -> Outcome:
    """The grid's own error, and that of a campaign for each seed."""
    of_grid = held_out(grid)
    whole = float(of_grid.mean())
    found = [replay(grid, of_grid, seed) for seed in range(seeds)]
    excess = [each.chosen.everywhere - whole for each in found]
    chances = [each.chance.everywhere - whole for each in found]
    trials = fmean(each.trials for each in found)
    return Outcome(
        source=grid.source,
        model_name=grid.model_name,
        form=grid.form,
        grid_trials=len(grid.rows),
        trials=trials,
        share=trials / len(grid.rows),
        error=fmean(each.chosen.everywhere for each in found),
        grid_error=whole,
        excess=fmean(excess),
        worst_excess=max(excess),
        within=fmean(each <= POINT for each in excess),
        plain_excess=fmean(each.plain.everywhere for each in found) - whole,
        chance_excess=fmean(chances),
        worst_chance_excess=max(chances),
        chance_within=fmean(each <= POINT for each in chances),
        error_new=fmean(each.chosen.new for each in found),
        grid_error_new=fmean(each.chosen.grid_new for each in found),
        anew_excess=fmean(each.anew for each in found) - whole,
        factor_excess=fmean(each.one_factor for each in found) - whole,
    )


@dataclass(frozen=True)
class Replayed:
    """One campaign: its trials, its errors with ``--robust`` and without, and of as many trials on cells by chance.

    ``anew`` and ``one_factor`` are on every trial of the grid.
    """

    trials: int
    chosen: Errors
    plain: Errors
    chance: Errors
    anew: float
    one_factor: float


def replay(grid: Grid, of_grid: Any, seed: int) -> Replayed:
    """One campaign over the grid's trials; ``of_grid`` are the grid's own errors by trial."""
    random = np.random.default_rng(seed)
    shuffled = grid.rows.iloc[random.permutation(len(grid.rows))]
    queues = {Cell(int(lengths[0]), int(lengths[1])): list(rows.index) for lengths, rows in shuffled.groupby(LENGTHS)}
    cells = sorted(queues)
    per_cell = max(map(len, queues.values()))
    rows = make_form(grid.form).design([cell.input_tokens for cell in cells], [cell.output_tokens for cell in cells])
    design = Design(cells, rows, seed=seed, per_cell=per_cell, most_per_cell=per_cell, budget=budget(grid))
    readings = {cell: Readings() for cell in cells}
    given: list[Any] = []
    energy_j = grid.rows["gpu_energy_j"]
    exhausted: list[Cell] = []
    while wanted := design.wanted(readings, exhausted if per_cell > 1 else ()):
        cell = design.choose(wanted, readings)
        label = queues[cell].pop()
        given.append(label)
        readings[cell].runtimes_s.append(float(grid.rows["runtime_s"][label]))
        readings[cell].joules.append(Joules(float(energy_j[label])))
        if not queues[cell]:
            exhausted.append(cell)
    by_chance = [rows.index[0] for _, rows in shuffled.groupby(LENGTHS)]
    random.shuffle(by_chance)
    return Replayed(
        trials=len(given),
        chosen=errors(grid, of_grid, given),
        plain=errors(grid, of_grid, given, robust=False),
        chance=errors(grid, of_grid, by_chance[: len(given)]),
        anew=anew(grid, given),
        one_factor=one_factor(grid, given),
    )


def leaves_cells(grid: Grid) -> bool:
    """Whether a campaign cannot measure every cell."""
    return budget(grid) < len(grid.rows[LENGTHS].drop_duplicates())


def budget(grid: Grid) -> int:
    """A quarter of the trials."""
    return int(SHARE * len(grid.rows))
