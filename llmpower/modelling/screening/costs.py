"""Checks of what trials cost against what similar ones cost: slow starts, first calls, longer queries, replicates.

Costs are compared on the logarithm, energy and runtime each. How much replicates of a cell scatter is learnt from the
data, from consecutive ones: the median of |ln Eᵢ − ln Eⱼ| over pairs is 0.954 σ where the noise is normal, and a few
outliers do not move it. Rows in which another check has found something are not compared with, so that one wrong row
does not implicate others; neither are shares of energy (``allocated``), which depend on what else ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.screening.marks import Checked, Mark, Unasked
from llmpower.modelling.screening.order import Codes, Mask, Medians, by_code, first_of
from llmpower.modelling.screening.rows import Rows
from llmpower.modelling.screening.sessions import in_time, sessions_of
from llmpower.modelling.screening.settling import check_settling
from llmpower.phrases import plural

COSTLIER = 1.2
"""A first call costs 1.2 to 17.7 times as much in published trials."""

DISAGREE = 1.25
SIGMAS = 6.0
STATED_SIGMAS = 5.0
MEDIAN_OF_PAIRS = 0.954  # √2 · 0.6745
MIN_PAIRS = 5
ENOUGH_PAIRS = 100_000
"""Of more, this many or half of them, evenly chosen."""

MAX_CELLS = 1000
"""Each is compared with each. A grid has a hundred; what has more is traffic, which differs by more than length."""


@dataclass(frozen=True)
class _Cost:
    """One cost: ``log`` is NaN in rows that are not usable, ``noise`` the σ of its logarithm by group."""

    name: str
    unit: str
    values: FloatArray
    log: FloatArray
    noise: FloatArray
    medians: Medians

    def limit(self, times: float) -> FloatArray:
        """How far beyond its like a row must lie, on the logarithm, by group."""
        return np.maximum(np.log(times), SIGMAS * self.noise)


@dataclass(frozen=True)
class _Excess:
    """Of some ``rows``, by how much (logarithm) each is costlier than what it is compared with: 0 within the limits.

    ``than`` is the row of another cell, or −1 for the cell's own other trials; ``cost`` which of the costs it is.
    """

    rows: Codes
    log: FloatArray
    cost: Codes
    than: Codes

    def spread(self, n: int) -> FloatArray:
        """The excess of all n rows, 0 where there is none."""
        everywhere = np.zeros(n)
        everywhere[self.rows] = self.log
        return everywhere

    def says(self, rows: Rows, costs: list[_Cost], at: int) -> str:
        """The excess of one row, for people."""
        (number,) = np.flatnonzero(self.rows == at)
        cost, other = costs[int(self.cost[number])], int(self.than[number])
        against = "the most expensive other trial" if other < 0 else _lengths(rows, other)
        figure = f"{cost.values[at]:.4g} {cost.unit}"
        return (
            f"{cost.name} of {_lengths(rows, at)} is {figure}, {np.exp(self.log[number]):.2f} times that of {against}"
        )


def check_costs(rows: Rows, sound: Mask) -> Iterator[Checked]:
    """Slow starts, first calls, queries costlier than longer ones, replicates that disagree."""
    n = len(rows)
    usable = sound & ~rows.allocated
    sessions = sessions_of(rows)
    first, first_of_cell = (
        _mask(chosen, n) & usable for chosen in (sessions.first, first_of(rows.cell, in_time(rows)))
    )
    costs = _costs(rows, usable)
    unsettled = check_settling(rows, sessions, usable, first, [cost.log for cost in costs])
    yield unsettled
    if isinstance(unsettled, Mark) and unsettled.rows.any():
        usable = usable & ~unsettled.rows
        first, first_of_cell = first & usable, first_of_cell & usable
        costs = _costs(rows, usable)
    suspects = first | first_of_cell
    fellows = _over_fellows(rows, costs, suspects)
    longer, too_many = _over_longer(rows, costs, first)

    by_fellows, by_longer = fellows.spread(n), longer.spread(n)
    warm = (by_fellows > 0) | (first & (by_longer > 0))
    yield Mark(
        "warm_up",
        warm,
        np.maximum(by_fellows, np.where(first, by_longer, 0.0)),
        lambda at: (fellows if by_fellows[at] else longer).says(rows, costs, at),
    )
    yield Mark(
        "dearer_than_longer", usable & ~warm & (by_longer > 0), by_longer, lambda at: longer.says(rows, costs, at)
    )
    if too_many:
        yield Unasked("dearer_than_longer", f"{plural(too_many, 'group')} of rows with more than {MAX_CELLS} cells")
    yield _replicates(rows, usable & ~warm, costs)


def _costs(rows: Rows, usable: Mask) -> list[_Cost]:
    order = by_code(rows.cell)
    costs = []
    for name, unit, values in (("energy", "J", rows.main_energy_j), ("runtime", "s", rows.runtime_s)):
        with np.errstate(invalid="ignore", divide="ignore"):
            log = np.where(usable & (values > 0), np.log(values), np.nan)
        costs.append(_Cost(name, unit, values, log, _noise(rows, log, order), Medians(log, rows.cell)))
    return costs


def _noise(rows: Rows, log: FloatArray, order: Codes) -> FloatArray:
    """σ by group, from consecutive trials of a cell; 0 where there are too few to tell."""
    order = order[~np.isnan(log[order])]
    cell = rows.cell[order]
    pairs = np.flatnonzero(cell[1:] == cell[:-1])
    pairs = pairs[:: len(pairs) // ENOUGH_PAIRS + 1]
    apart = np.abs(log[order[pairs + 1]] - log[order[pairs]])
    n_groups = int(rows.group.max()) + 1
    group = rows.group[order[pairs]]
    noise = np.zeros(n_groups)
    if len(pairs):
        median = Medians(apart, group).of()
        enough = np.flatnonzero(np.bincount(group) >= MIN_PAIRS)
        noise[enough] = median[enough] / MEDIAN_OF_PAIRS
    return noise


def _mask(chosen: Codes, n: int) -> Mask:
    mask = np.zeros(n, dtype=bool)
    mask[chosen] = True
    return mask


def _over_fellows(rows: Rows, costs: list[_Cost], suspects: Mask) -> _Excess:
    """Suspects above the most expensive of those trials of their cell that are not suspects themselves."""
    at = np.flatnonzero(suspects)
    cell, group = rows.cell[at], rows.group[at]
    found = []
    for cost in costs:
        fellows = np.flatnonzero(~suspects & ~np.isnan(cost.log))
        highest = np.full(int(rows.cell.max()) + 1, -np.inf)
        np.maximum.at(highest, rows.cell[fellows], cost.log[fellows])
        over = cost.log[at] - np.where(np.isfinite(highest), highest, np.nan)[cell]
        found.append(np.where(over > cost.limit(COSTLIER)[group], over, 0.0))
    return _largest(at, found, [np.full(len(at), -1)] * len(found))


def _over_longer(rows: Rows, costs: list[_Cost], first: Mask) -> tuple[_Excess, int]:
    """Above the least of those cells of a group that are at least as long both ways; first calls implicate no others.

    A cell stands for itself by the median of its trials, a first call by its own cost. Returns too how many groups
    have too many cells to be compared.
    """
    at = first_of(rows.cell)
    counts = np.bincount(rows.group[at])
    compared = []
    costly = np.zeros(len(at), dtype=bool)
    for cost in costs:
        usual = cost.medians.of(~first)
        least, than = _cheapest_longer(rows, at, usual, np.flatnonzero((counts > 1) & (counts <= MAX_CELLS)))
        compared.append((cost, usual, least, than))
        costly |= usual - least > cost.limit(COSTLIER)[rows.group[at]]
    chosen = np.flatnonzero(costly[rows.cell] | first) if costly.any() else np.flatnonzero(first)
    cell, group = rows.cell[chosen], rows.group[chosen]
    found, others = [], []
    for cost, usual, least, than in compared:
        over = np.where(first[chosen], cost.log[chosen], usual[cell]) - least[cell]
        found.append(np.where(over > cost.limit(COSTLIER)[group], over, 0.0))
        others.append(than[cell])
    return _largest(chosen, found, others), int(np.count_nonzero(counts > MAX_CELLS))


def _cheapest_longer(rows: Rows, at: Codes, log: FloatArray, groups: Codes) -> tuple[FloatArray, Codes]:
    """Of each cell, by a row ``at`` it: the least of those at least as long both ways, and a row of that one."""
    least, than = np.full(len(at), np.inf), np.full(len(at), -1, dtype=np.intp)
    for number in groups:
        own = np.flatnonzero(rows.group[at] == number)
        τin, τout = rows.input_tokens[at[own]], rows.output_tokens[at[own]]
        longer = (τin >= τin[:, np.newaxis]) & (τout >= τout[:, np.newaxis])
        np.fill_diagonal(longer, val=False)
        candidates = np.where(longer & ~np.isnan(log[own]), log[own], np.inf)
        cheapest = candidates.argmin(axis=1)
        least[own] = candidates[np.arange(len(own)), cheapest]
        than[own] = at[own][cheapest]
    return least, than


def _largest(at: Codes, found: list[FloatArray], than: list[Codes]) -> _Excess:
    """Of the excesses of two costs, the greater."""
    second = found[1] > found[0]
    return _Excess(at, np.where(second, found[1], found[0]), second.astype(np.intp), np.where(second, *than[::-1]))


def _replicates(rows: Rows, usable: Mask, costs: list[_Cost]) -> Checked:
    usual = [cost.medians.of(usable)[rows.cell] for cost in costs]
    if not (np.bincount(rows.cell[usable], minlength=1) > 1).any():
        return Unasked("replicates_disagree", "no cell has a second trial")
    energy, runtime = costs
    limits = [cost.limit(DISAGREE)[rows.group] for cost in costs]
    if not np.isnan(rows.main_std_j).all():
        with np.errstate(invalid="ignore", divide="ignore"):
            stated = np.log1p(STATED_SIGMAS * rows.main_std_j / rows.main_energy_j)
        limits[0] = np.fmax(limits[0], stated)
    off = [np.abs(cost.log - each) for cost, each in zip(costs, usual, strict=True)]
    apart = [usable & (each > limit) for each, limit in zip(off, limits, strict=True)]
    worst = np.maximum(np.where(apart[0], off[0], 0.0), np.where(apart[1], off[1], 0.0))

    def says(at: int) -> str:
        cost, median = (energy, usual[0]) if apart[0][at] and off[0][at] == worst[at] else (runtime, usual[1])
        figure, middle = (f"{value:.4g} {cost.unit}" for value in (cost.values[at], np.exp(median[at])))
        return f"{cost.name} {figure}, while the median of cell {_lengths(rows, at)} is {middle}"

    return Mark("replicates_disagree", apart[0] | apart[1], worst, says)


def _lengths(rows: Rows, at: int) -> str:
    return f"({rows.input_tokens[at]:.0f}, {rows.output_tokens[at]:.0f})"
