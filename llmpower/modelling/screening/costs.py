"""Checks of what trials cost against what their like cost: first calls, longer queries, replicates.

Costs are compared on the logarithm, energy and runtime each. How much replicates of a cell scatter is learnt from the
data, from consecutive ones: the median of |ln Eᵢ − ln Eⱼ| over pairs is 0.954 σ where the noise is normal, and a few
wild trials do not move it. Rows in which another check has found something are not compared with, so that one wrong
row accuses no other; neither are shares of energy (``allocated``), which depend on who ran beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.screening.marks import Checked, Mark, Unasked
from llmpower.modelling.screening.rows import Mask, Rows, combine, typical

DEARER = 1.2
"""A first call is dearer by 1.2 to 17.7 in published trials."""

DISAGREE = 1.25
SIGMAS = 6.0
STATED_SIGMAS = 5.0
MEDIAN_OF_PAIRS = 0.954  # √2 · 0.6745
MIN_PAIRS = 5

MAX_CELLS = 1000
"""Each is compared with each. A grid has a hundred; what has more is traffic, which differs by more than length."""

PAUSE_NS = 1800 * 1_000_000_000
"""After so long a card has cooled and the program may be another."""


@dataclass(frozen=True)
class _Cost:
    """One cost of the usable rows: ``log`` is NaN elsewhere, ``noise`` the σ of its logarithm in the row's group."""

    name: str
    unit: str
    values: FloatArray
    log: FloatArray
    noise: FloatArray

    def limit(self, times: float) -> FloatArray:
        """How far beyond its like a row must lie, on the logarithm."""
        return np.maximum(np.log(times), SIGMAS * self.noise)


@dataclass(frozen=True)
class _Excess:
    """By how much (logarithm) each row is dearer than what it is compared with, and what that is, for people."""

    log: FloatArray
    cost: NDArray[np.intp]
    than: NDArray[np.intp]

    def says(self, rows: Rows, costs: list[_Cost], at: int) -> str:
        """``than`` is the row of another cell, or −1 for the cell's own other trials."""
        cost, other = costs[int(self.cost[at])], int(self.than[at])
        against = "the dearest other trial"
        if other >= 0:
            against = f"({rows.input_tokens[other]:.0f}, {rows.output_tokens[other]:.0f})"
        own = f"({rows.input_tokens[at]:.0f}, {rows.output_tokens[at]:.0f})"
        figure = f"{cost.values[at]:.4g} {cost.unit}"
        return f"{cost.name} of {own} is {figure}, {np.exp(self.log[at]):.2f} times that of {against}"


def check_costs(rows: Rows, sound: Mask) -> Iterator[Checked]:
    """First calls, queries dearer than longer ones, replicates that disagree."""
    usable = sound & ~rows.allocated
    costs = [
        _cost(rows, usable, "energy", "J", rows.main_energy_j),
        _cost(rows, usable, "runtime", "s", rows.runtime_s),
    ]
    first = usable & _session_starts(rows)
    first_of_cell = usable & _cell_starts(rows)
    fellows = _over_fellows(rows, costs, first | first_of_cell)
    longer, too_many = _over_longer(rows, costs, first)

    warm_by_fellows = (first | first_of_cell) & (fellows.log > 0)
    warm = warm_by_fellows | (first & (longer.log > 0))
    severity = np.fmax(np.where(warm_by_fellows, fellows.log, 0.0), np.where(first, longer.log, 0.0))
    yield Mark(
        "warm_up",
        warm,
        severity,
        lambda at: (fellows if warm_by_fellows[at] else longer).says(rows, costs, at),
    )
    yield Mark(
        "dearer_than_longer", usable & ~warm & (longer.log > 0), longer.log, lambda at: longer.says(rows, costs, at)
    )
    if too_many:
        yield Unasked("dearer_than_longer", f"{too_many} groups of rows have more than {MAX_CELLS} cells each")
    yield _replicates(rows, usable & ~warm, costs)


def _cost(rows: Rows, usable: Mask, name: str, unit: str, values: FloatArray) -> _Cost:
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.where(usable & (values > 0), np.log(values), np.nan)
    known = np.flatnonzero(~np.isnan(log))
    order = known[np.argsort(rows.cell[known], kind="stable")]
    pairs = rows.cell[order[1:]] == rows.cell[order[:-1]]
    apart, group = np.abs(np.diff(log[order]))[pairs], rows.group[order[1:]][pairs]
    noise = np.zeros(int(rows.group.max()) + 1)
    enough = np.bincount(group, minlength=len(noise)) >= MIN_PAIRS
    for number in np.flatnonzero(enough):
        noise[number] = np.median(apart[group == number]) / MEDIAN_OF_PAIRS
    return _Cost(name, unit, values, log, noise[rows.group])


def _session_starts(rows: Rows) -> Mask:
    """The first row of each group on each host, program and set of devices, and the first after a long pause.

    In the order of time where the file has times, else in its own.
    """
    session = combine(rows.group, rows.codes("hostname", "pid", "device_uuids"), n=len(rows))
    time_ns = np.arange(len(rows)) if rows.started_ns is None else rows.started_ns
    order = np.lexsort((time_ns, session))
    starts = np.ones(len(rows), dtype=bool)
    starts[1:] = session[order[1:]] != session[order[:-1]]
    if rows.started_ns is not None:
        starts[1:] |= time_ns[order[1:]] - time_ns[order[:-1]] > PAUSE_NS
    return _scattered(starts, order)


def _cell_starts(rows: Rows) -> Mask:
    """The first trial of each cell, in the same order."""
    time_ns = np.arange(len(rows)) if rows.started_ns is None else rows.started_ns
    order = np.lexsort((time_ns, rows.cell))
    starts = np.ones(len(rows), dtype=bool)
    starts[1:] = rows.cell[order[1:]] != rows.cell[order[:-1]]
    return _scattered(starts, order)


def _scattered(flags: Mask, order: NDArray[np.intp]) -> Mask:
    back = np.empty_like(flags)
    back[order] = flags
    return back


def _over_fellows(rows: Rows, costs: list[_Cost], suspects: Mask) -> _Excess:
    """Above the dearest of those trials of a cell that are no suspects themselves."""
    found = []
    for cost in costs:
        fellows = np.flatnonzero(~suspects & ~np.isnan(cost.log))
        dearest = np.full(int(rows.cell.max()) + 1, -np.inf)
        np.maximum.at(dearest, rows.cell[fellows], cost.log[fellows])
        over = cost.log - np.where(np.isfinite(dearest), dearest, np.nan)[rows.cell]
        found.append(np.where(over > cost.limit(DEARER), over, 0.0))
    return _largest(found, [np.full(len(rows), -1, dtype=np.intp)] * len(found))


def _over_longer(rows: Rows, costs: list[_Cost], first: Mask) -> tuple[_Excess, int]:
    """Above the least of those cells of a group that are at least as long both ways; first calls accuse nobody.

    A cell stands for itself by the median of its trials, a first call by its own cost. Returns too how many groups
    have too many cells to be compared.
    """
    cells, at = np.unique(rows.cell, return_index=True)
    group = rows.group[at]
    counts = np.bincount(group)
    found, than = [], []
    for cost in costs:
        usual = typical(np.where(first, np.nan, cost.log), rows.cell)
        least, least_at = np.full(len(cells), np.nan), np.full(len(cells), -1, dtype=np.intp)
        for number in np.flatnonzero((counts > 1) & (counts <= MAX_CELLS)):
            own = np.flatnonzero(group == number)
            τin, τout, log = rows.input_tokens[at[own]], rows.output_tokens[at[own]], usual[at[own]]
            longer = (τin >= τin[:, np.newaxis]) & (τout >= τout[:, np.newaxis])
            np.fill_diagonal(longer, val=False)
            candidates = np.where(longer & ~np.isnan(log), log, np.inf)
            cheapest = candidates.argmin(axis=1)
            least[own] = candidates[np.arange(len(own)), cheapest]
            least_at[own] = at[own][cheapest]
        over = np.where(first, cost.log, usual) - least[rows.cell]
        found.append(np.where(over > cost.limit(DEARER), over, 0.0))
        than.append(least_at[rows.cell])
    return _largest(found, than), int(np.count_nonzero(counts > MAX_CELLS))


def _largest(found: list[FloatArray], than: list[NDArray[np.intp]]) -> _Excess:
    over = np.nan_to_num(np.stack(found))
    cost = over.argmax(axis=0)
    at = np.arange(over.shape[1])
    return _Excess(over[cost, at], cost, np.stack(than)[cost, at])


def _replicates(rows: Rows, usable: Mask, costs: list[_Cost]) -> Checked:
    count = np.bincount(rows.cell[usable], minlength=int(rows.cell.max()) + 1)
    if not (count > 1).any():
        return Unasked("replicates_disagree", "no cell has a second trial")
    with np.errstate(invalid="ignore", divide="ignore"):
        stated = np.nan_to_num(np.log1p(STATED_SIGMAS * rows.main_std_j / rows.main_energy_j))
    found, beyond = [], []
    for cost, own in zip(costs, (stated, np.zeros(len(rows))), strict=True):
        off = np.abs(cost.log - typical(np.where(usable, cost.log, np.nan), rows.cell))
        limit = np.maximum(cost.limit(DISAGREE), own)
        found.append(np.where(usable & (off > limit), off, 0.0))
        beyond.append(np.full(len(rows), -1, dtype=np.intp))
    worst = _largest(found, beyond)

    def says(at: int) -> str:
        cost = costs[int(worst.cost[at])]
        usual = np.exp(typical(np.where(usable, cost.log, np.nan), rows.cell)[at])
        cell = f"({rows.input_tokens[at]:.0f}, {rows.output_tokens[at]:.0f})"
        return (
            f"{cost.name} {cost.values[at]:.4g} {cost.unit}, while the median of cell {cell} is {usual:.4g} {cost.unit}"
        )

    return Mark("replicates_disagree", worst.log > 0, worst.log, says)
