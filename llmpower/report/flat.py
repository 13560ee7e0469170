"""The same accuracy at a flat rate: what is chosen by a plan that treats all hours alike, but is billed by the hour.

At one rate the least money, and the least carbon, is the least energy. The plan lies between two neighbouring plans of
the front of energy and accuracy, which are optimal at one ζ, and so is every mixture of theirs. The one that has just
the accuracy divides queries into fractions; whole ones come within a single exchange of it
(:mod:`llmpower.routing.tradeoffs.goals`), which no picture shows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.tradeoffs.tradeoff import Point, Tradeoff


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """``part`` of the plan ``upper``, and the rest of ``lower``."""

    lower: Point
    upper: Point
    part: float

    @property
    def assigned(self) -> FloatArray:
        """Queries of each cell on each model (n_cells, n_models), with fractions."""
        return (1 - self.part) * self.lower.assigned + self.part * self.upper.assigned

    def figure(self, name: str) -> float | None:
        """That of the outcomes, which are sums over queries, or means."""
        lower, upper = (getattr(point.outcome, name) for point in (self.lower, self.upper))
        return None if lower is None else float((1 - self.part) * lower + self.part * upper)


def least_energy(
    costs: Costs, limits: tuple[IntArray, IntArray], points: Sequence[Point], tolerance: float
) -> Iterator[Mix]:
    """For each of ``points``, which pursue ``costs``, the plan of least energy that is at least as accurate."""
    energy_max_j = float(costs.energy_j.max())
    of_energy = replace(costs, weighs="energy", scaling=replace(costs.scaling, energy_max_j=energy_max_j))
    tradeoff = Tradeoff(of_energy, limits)
    # Where to begin: prices of what lies near are near, and a few solves find the neighbours.
    front = tradeoff.front(tolerance)
    reached = [point.accuracy for point in front]
    for point in points:
        place = bisect_left(reached, point.accuracy)
        if place in (0, len(front)):
            end = _whole(tradeoff, front[min(place, len(front) - 1)])
            yield Mix(end, end, 0.0)
            continue

        def accurate(found: Point, least: float = point.accuracy) -> bool:
            return found.accuracy >= least

        lower, upper, _ = tradeoff.neighbours(accurate, front[place - 1], front[place])
        lower, upper = _whole(tradeoff, lower), _whole(tradeoff, upper)
        part = (point.accuracy - lower.accuracy) / ((upper.accuracy - lower.accuracy) or 1.0)
        yield Mix(lower, upper, float(np.clip(part, 0, 1)))


def _whole(tradeoff: Tradeoff, point: Point) -> Point:
    """With its assignment, which a front does not keep."""
    return point if len(point.assigned) else tradeoff.at(point.zeta, point)
