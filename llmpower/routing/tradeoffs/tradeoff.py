"""Energy against accuracy: the efficient plans of a workload, found where they are and not where a ζ happens to fall.

ζ says how many joules a point of accuracy is worth, but through the scaling of ê and â, which one long query sets:

    R = (1−ζ)/ζ · (max e / max a) · Σ w / 100     [J a percentage point of mean accuracy]

with w a query's tokens, or 1 where accuracy is a mean over queries. So equal steps of ζ miss most of the front. Here
points are found by chords instead (Cohon, Church and Sheer, Water Resources Research 15, 1979): between two efficient
points P and Q, solve at the ζ whose exchange rate is the chord's slope. Either that gives a point below the chord, and
by how much is exactly how far the front can be from the chord; or it does not, and P and Q are neighbours, both optimal
at that ζ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.outcome import Outcome
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving.solver import solve

# What the other aim weighs at the ends of the front, so that ties are not left to chance.
EDGE = 1e-6
# Two plans cost the same when they differ by less of what they pay; below the proof's limit, above a sum's rounding.
SAME_COST = 3e-13


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """An optimal plan at ``zeta``: joules of its queries, and the mean accuracy that is pursued, in 0..1.

    Joules are weighted by their rates where money or carbon is pursued, here and all along the front.
    ``assigned`` (n_cells, n_models) is empty where only figures are kept.
    """

    zeta: float
    assigned: IntArray
    prices: FloatArray
    outcome: Outcome
    energy_j: float
    accuracy: float


class Tradeoff:
    """The front of one workload on given choices; ``limits`` as :func:`~llmpower.routing.problem.shares.query_limits`
    gives.
    """

    def __init__(self, costs: Costs, limits: tuple[IntArray, IntArray]) -> None:
        assert costs.accuracy is not None, "a front is of energy and accuracy"
        self.costs, self.limits = costs, limits
        workload = costs.workload
        weight = costs.n_tokens if costs.weighting == "tokens" else float(workload.n_queries)
        self.weight = weight
        """What a mean accuracy is a mean over: tokens, or queries."""
        # Joules that a mean accuracy of 1 is worth at ζ = ½.
        self._joules_at_half = costs.scaling.energy_max_j / (costs.scaling.accuracy_max or 1.0) * weight

    def joules_per_point(self, zeta: float) -> float:
        """What a percentage point of mean accuracy is worth at ζ > 0."""
        return (1 - zeta) / zeta * self._joules_at_half / 100

    def zeta(self, joules_per_point: float) -> float:
        """The ζ at which a percentage point of mean accuracy is worth that much."""
        return self._joules_at_half / (self._joules_at_half + 100 * joules_per_point)

    def at(self, zeta: float, *near: Point) -> Point:
        """The optimum at ζ; points on both sides of it lend their prices."""
        prices = None
        if near:
            before, after = near[0], near[-1]
            t = (zeta - before.zeta) / ((after.zeta - before.zeta) or 1.0)
            prices = (1 - t) * before.prices + t * after.prices
        paid = self.costs.per_query(zeta)
        solution = solve(paid, self.costs.workload.count, *self.limits, prices=prices)
        outcome = self.costs.summed(self.costs.loads(solution.assignment), zeta)
        tokens = self.costs.weighting == "tokens"
        accuracy = outcome.accuracy_token_weighted if tokens else outcome.accuracy_query_mean
        assert accuracy is not None
        return Point(zeta, solution.assigned, solution.prices, outcome, outcome.weighed_j, accuracy)

    def ends(self) -> tuple[Point, Point]:
        """The plan of least energy, and that of most accuracy; of equals the one that is better otherwise."""
        least = self.at(1 - EDGE)
        return least, self.at(EDGE)

    def chord(self, lower: Point, upper: Point) -> float | None:
        """The ζ whose exchange rate is that from one point to the other; ``None`` where ``upper`` is not both costlier
        and more accurate.
        """
        energy_j, accuracy = upper.energy_j - lower.energy_j, upper.accuracy - lower.accuracy
        return self.zeta(energy_j / accuracy / 100) if energy_j > 0 and accuracy > 0 else None

    def knee(self, least: Point, most: Point) -> float:
        """The ζ of the whole front's chord; any where one plan has both the least energy and the most accuracy."""
        return 0.5 if (zeta := self.chord(least, most)) is None else zeta

    def between(self, lower: Point, upper: Point) -> Point | None:
        """An efficient point between two, or ``None`` where they are neighbours or the same.

        ``lower`` is the one of less energy and less accuracy.
        """
        if (zeta := self.chord(lower, upper)) is None:
            return None
        found = self.at(zeta, lower, upper)
        paid_j = found.energy_j + 100 * self.joules_per_point(zeta) * found.accuracy
        return found if self.below(found, lower) > SAME_COST * paid_j else None

    def below(self, point: Point, other: Point) -> float:
        """By how many joules ``point`` is better than ``other`` at the exchange rate of its own ζ."""
        rate_j = 100 * self.joules_per_point(point.zeta)
        return (other.energy_j - rate_j * other.accuracy) - (point.energy_j - rate_j * point.accuracy)

    def front(self, tolerance: float, progress: Callable[[int, int], None] | None = None) -> list[Point]:
        """Points by falling ζ, from least energy to most accuracy, with chords between them that are near the front.

        ``tolerance`` is how far a chord may be from it, as a fraction of the front's extent in energy or in accuracy.
        ``progress`` is called with the number of points found and of those looked for so far.
        """
        least, most = (_figures(end) for end in self.ends())
        extent_j, extent = most.energy_j - least.energy_j, most.accuracy - least.accuracy
        found, open_ = [least], [(least, most)]
        while open_:
            if progress is not None:
                progress(len(found) + 1, len(found) + 1 + len(open_))
            lower, upper = open_.pop()
            if (middle := self.between(lower, upper)) is not None:
                middle = _figures(middle)
                gap_j = self.below(middle, lower)
                near = min(gap_j / extent_j, gap_j / (100 * self.joules_per_point(middle.zeta)) / extent) <= tolerance
                if not near:
                    open_ += [(middle, upper), (lower, middle)]
                    continue
                found.append(middle)
            if upper.energy_j > found[-1].energy_j:
                found.append(upper)
        if progress is not None:
            progress(len(found), len(found))
        return found

    def neighbours(self, inside: Callable[[Point], bool], lower: Point, upper: Point) -> tuple[Point, Point, float]:
        """The two neighbouring points of the front between which ``inside`` ends, and the ζ at which both are optimal.

        It must hold on one side and not on the other.
        """
        inside_lower = inside(lower)
        while (middle := self.between(lower, upper)) is not None:
            if inside(middle) == inside_lower:
                lower = middle
            else:
                upper = middle
        zeta = self.chord(lower, upper)
        return lower, upper, 1.0 if zeta is None else zeta


def _figures(point: Point) -> Point:
    """Without the assignment: hundreds of points may be kept at once."""
    return replace(point, assigned=point.assigned[:0])


def walk(start: IntArray, end: IntArray, value: FloatArray, room: float) -> IntArray:
    """From one assignment toward another by whole exchanges, while Σ x·value grows by no more than ``room``.

    All of shape (n_cells, n_models). The difference of two assignments is a sum of cycles on the graph of the models
    (and the market, through which loads move inside their bands), and each can be taken by itself: loads stay between
    those of the two ends, and if both are optimal at the same ζ, so is every assignment on the way.
    """
    n_models = start.shape[1]
    market = n_models
    arcs: dict[int, list[list[int]]] = {node: [] for node in range(n_models + 1)}  # from → [to, cell, queries]
    difference = end - start
    for cell in np.flatnonzero(difference.any(axis=1)).tolist():
        gains = [[K, int(queries)] for K, queries in enumerate(difference[cell]) if queries > 0]
        for K in np.flatnonzero(difference[cell] < 0).tolist():
            left = -int(difference[cell, K])
            while left:
                queries = min(left, gains[-1][1])
                arcs[K].append([gains[-1][0], cell, queries])
                left -= queries
                gains[-1][1] -= queries
                if not gains[-1][1]:
                    gains.pop()
    for K, change in enumerate(difference.sum(axis=0).tolist()):
        if change > 0:
            arcs[K].append([market, -1, change])
        elif change < 0:
            arcs[market].append([K, -1, -change])

    here = start.copy()
    for origin in arcs:
        while arcs[origin]:
            path: list[tuple[int, list[int]]] = []
            node, seen = origin, dict[int, int]()
            while node not in seen:
                seen[node] = len(path)
                path.append((node, arcs[node][-1]))
                node = arcs[node][-1][0]
            cycle = path[seen[node] :]
            queries = min(arc[2] for _, arc in cycle)
            grows = sum(float(value[arc[1], arc[0]] - value[arc[1], K]) for K, arc in cycle if arc[1] >= 0)
            taken = min(queries, int(max(0.0, room) // grows)) if grows > 0 else 0
            for K, arc in cycle:
                if arc[1] >= 0:
                    here[arc[1], K] -= taken
                    here[arc[1], arc[0]] += taken
                arc[2] -= queries
                if not arc[2]:
                    arcs[K].pop()
            room -= taken * grows
    return here
