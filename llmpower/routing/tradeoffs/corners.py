"""The front without shares, in closed form: every query's own corners, sorted by the rate at which they turn.

Where no share couples queries, each goes by itself to the least e_K − r·a_K, with r the joules that a unit of accuracy
is worth. As r rises a query moves along the corners of its own hull in (a, e), from the choice of least energy to the
most accurate one; from K to L at

    r = (e_L − e_K)/(a_L − a_K),     the least of these over all L with a_L > a_K.

All turns of all cells, sorted by r, are all breakpoints of the front, and sums over them are its vertices: no solver,
and no plan in between that was not found. At a rate that cells share they turn together.

Points are picked from the vertices as :mod:`~llmpower.routing.tradeoffs.tradeoff` finds them, by chords and to the same
tolerance: the vertex that lies furthest below a chord is the one where the chord's slope is passed, which is a search
in a sorted array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.outcome import Outcome
from llmpower.routing.pointers import Choices
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.stretches import in_stretches
from llmpower.routing.tradeoffs.tradeoff import EDGE, Tradeoff

CELLS_AT_ONCE = 2**13
# Vertices whose figures are added up in one pass over the cells.
OUTCOMES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """By rising rate [J a unit of accuracy]: the cell that turns, and the choice that it turns to, each (n_turns,).

    ``first`` (n_cells,) is the choice of least energy, of equals the most accurate. ``energy_j`` and ``accuracy`` (the
    unit that is pursued) are what all queries of the cell gain by the turn.
    """

    first: Choices
    rate: FloatArray
    cell: IntArray
    choice: Choices
    energy_j: FloatArray
    accuracy: FloatArray


def turns(costs: Costs) -> Turns:
    """Of every cell; ``costs`` needs accuracies. A choice where a query would be late is none."""
    workload, late = costs.workload, costs.late

    def of(
        cells: slice,
    ) -> tuple[NDArray[np.intp], list[tuple[FloatArray, IntArray, NDArray[np.intp], FloatArray, FloatArray]]]:
        e, a = costs.weighed(costs.energy_j[cells], cells).copy(), costs.query_accuracy(cells)
        if late is not None:
            e[late[cells]] = np.inf
        rows, count = np.arange(len(e)), workload.count[cells]
        a_of_least = np.where(e == e.min(axis=1, keepdims=True), a, -np.inf)
        first = here = a_of_least.argmax(axis=1)
        found = []
        while len(rows):
            Δe, Δa = e[rows] - e[rows, here][:, np.newaxis], a[rows] - a[rows, here][:, np.newaxis]
            r = np.full(Δe.shape, np.inf)
            np.divide(Δe, Δa, out=r, where=Δa > 0)
            least = r.min(axis=1)
            turning = np.isfinite(least)
            # Of corners in one line, the furthest: the query passes the others by.
            there = np.where(r <= least[:, np.newaxis], Δa, -np.inf).argmax(axis=1)[turning]
            rows = rows[turning]
            at = np.flatnonzero(turning)
            n = count[rows]
            found.append((least[turning], rows + cells.start, there, n * Δe[at, there], n * Δa[at, there]))
            here = there
        return first, found

    parts = in_stretches(of, workload.n_cells, CELLS_AT_ONCE)
    found = [step for _, steps in parts for step in steps]
    rate, cell, choice, energy_j, accuracy = (np.concatenate(each) for each in zip(*found, strict=True))
    # Of one cell the turns are found in their order, and stay in it where rounding makes them equal.
    order = np.lexsort((np.arange(len(rate)), rate))
    return Turns(
        first=np.concatenate([first for first, _ in parts]).astype(np.uint16),
        rate=rate[order],
        cell=cell[order],
        choice=choice[order].astype(np.uint16),
        energy_j=energy_j[order],
        accuracy=accuracy[order],
    )


class CornerFront(Tradeoff):
    """The front of a workload whose queries nothing couples."""

    def __init__(self, costs: Costs, limits: tuple[IntArray, IntArray]) -> None:
        super().__init__(costs, limits)
        self.turns = turns(costs)
        rate = self.turns.rate * self.weight  # J for a mean accuracy of 1
        last = np.flatnonzero(np.append(rate[1:] != rate[:-1], True)) if len(rate) else np.zeros(0, np.int64)
        self.rate: FloatArray = rate[last]
        """The breakpoints: joules that a mean accuracy of 1 is worth, ascending."""
        self._passed = np.append(0, last + 1)  # turns that lie before each vertex
        self._energy_j = np.append(0.0, self.turns.energy_j.cumsum())[self._passed]
        self._accuracy = np.append(0.0, self.turns.accuracy.cumsum())[self._passed] / self.weight

    def vertex(self, zeta: float) -> int:
        """The number of the vertex that is the optimum at ζ, 0 being that of least energy."""
        return int(np.searchsorted(self.rate, 100 * self.joules_per_point(zeta)))

    def points(
        self, tolerance: float, progress: Callable[[int, int], None] | None = None
    ) -> Iterator[tuple[float, Outcome]]:
        """ζ and outcome by falling ζ, as :meth:`Tradeoff.front` finds them."""
        ends = ((1 - EDGE, self.vertex(1 - EDGE)), (EDGE, self.vertex(EDGE)))
        E, A = self._energy_j, self._accuracy
        extent_j, extent = (float(values[ends[1][1]] - values[ends[0][1]]) for values in (E, A))
        found, open_ = [ends[0]], [ends]
        while open_:
            lower, upper = open_.pop()
            energy_j, accuracy = (float(values[upper[1]] - values[lower[1]]) for values in (E, A))
            if energy_j > 0 and accuracy > 0:
                rate = energy_j / accuracy
                middle = int(np.searchsorted(self.rate, rate))
                below_j = float((E[lower[1]] - rate * A[lower[1]]) - (E[middle] - rate * A[middle]))
                if lower[1] < middle < upper[1] and below_j > 0:
                    point = (self.zeta(rate / 100), middle)
                    if min(below_j / extent_j, below_j / rate / extent) > tolerance:
                        open_ += [(point, upper), (lower, point)]
                        continue
                    found.append(point)
            if upper[1] > found[-1][1]:
                found.append(upper)
        for number, outcome in enumerate(self._outcomes(found), start=1):
            if progress is not None:
                progress(number, len(found))
            yield outcome

    def _outcomes(self, found: list[tuple[float, int]]) -> Iterator[tuple[float, Outcome]]:
        choice, done = self.turns.first.copy(), 0
        for start in range(0, len(found), OUTCOMES_AT_ONCE):
            these, choices = found[start : start + OUTCOMES_AT_ONCE], []
            for _, vertex in these:
                # Of one cell the later turn comes later, and what is written last stays.
                passed = slice(done, int(self._passed[vertex]))
                choice[self.turns.cell[passed]] = self.turns.choice[passed]
                done = passed.stop
                choices.append(choice.copy())
            for (zeta, _), loads in zip(these, self.costs.all_loads(*choices), strict=False):
                yield zeta, self.costs.summed(loads, zeta)
