"""The efficient plans of a workload, one after the other: what the page's slider moves along.

Steps of the slider are plans and not steps of ζ. A front of energy and accuracy bends where ζ happens to be 0.98 or
0.9995, since one long query sets the scaling; equal steps of ζ would jump from the first plan to the last
(:mod:`llmpower.routing.tradeoffs.tradeoff`). Each plan says its ζ.

Where money or carbon is pursued by a tariff, plans are efficient in that. Each then stands beside the plan of the same
accuracy that looks at no hours (:mod:`llmpower.report.flat`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FloatArray
from llmpower.report.flat import Mix, least_energy
from llmpower.report.hours import Hours
from llmpower.routing import AccuracyTable, Outcome, Workload
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.costing.latency import refuse_late
from llmpower.routing.plans.uncertainty import interval, summed_designs
from llmpower.routing.problem.accuracy import Weighting
from llmpower.routing.problem.rates import AMOUNTS, Weigh
from llmpower.routing.problem.shares import Share, query_limits
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.tradeoffs.goals import KNEE, check_goal
from llmpower.routing.tradeoffs.tradeoff import Point, Tradeoff

TOLERANCE = 4e-3
"""Of the front's extent, by which it may lie below the line through the plans that are shown."""
PARTS_OF_OCTAVE = 2
MOST_BINS = 400


@dataclass(frozen=True, slots=True)
class Figures:
    """What a division of the queries comes to; a figure that is not known is ``None``."""

    energy_j: float
    runtime_s: float
    accuracy_token_weighted: float | None
    accuracy_query_mean: float | None
    cost_eur: float | None
    carbon_g: float | None


@dataclass(frozen=True, slots=True)
class Step(Figures):
    """One efficient plan. ``shares`` are fractions of the queries by model.

    ``amount_per_point`` is in joules, euros or grams, whichever are pursued. ``intervals`` are lower and upper end at
    95 % of joules, euros and grams, as far as fits and tariff tell. ``flat`` is the plan of least energy that is as
    accurate; ``None`` where energy is pursued.
    """

    zeta: float
    amount_per_point: float | None
    shares: Mapping[str, float]
    intervals: Mapping[Weigh, tuple[float, float]] = field(default_factory=dict)
    flat: Figures | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """Which model most queries of like lengths go to, at each step.

    A bin holds queries whose lengths lie within half an octave; bounds and ``count`` have shape (n_bins,), ``model``
    and ``share`` (that model's part of the bin's queries) shape (n_steps, n_bins).
    """

    input_low: FloatArray
    input_high: FloatArray
    output_low: FloatArray
    output_high: FloatArray
    count: FloatArray
    model: NDArray[np.intp]
    share: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ByHour:
    """Joules at each hour of the day by model at each step, ``energy_j`` (n_steps, 24, n_models).

    ``flat_j`` (n_steps, 24) are those of the plan that looks at no hours, ``None`` where that is the step's.
    ``queries`` (24,) came then, and ``hours`` have the rates.
    """

    hours: Hours
    queries: FloatArray
    energy_j: FloatArray
    flat_j: FloatArray | None

    @property
    def most_j(self) -> float:
        """Of any hour at any step."""
        return float(max(self.energy_j.sum(axis=2).max(), 0.0 if self.flat_j is None else self.flat_j.max()))


@dataclass(frozen=True, slots=True, eq=False)
class Plans:
    """Plans by rising ζ, from most accuracy to least energy, money or carbon, as ``weighs`` says.

    ``chosen`` is the step that is shown first. ``singles`` are each model alone by its accuracy and joules.
    ``weighting`` says which mean accuracy was pursued. ``n_queries`` and ``mapped`` are ``None`` where a front was read
    from a file, which does not know the queries, and ``by_hour`` there and without a tariff.
    """

    steps: Sequence[Step]
    model_names: Sequence[str]
    weighting: Weighting
    chosen: int
    simulated: bool
    singles: Mapping[str, Outcome]
    n_queries: int | None = None
    mapped: Map | None = None
    limited: str = ""
    weighs: Weigh = "energy"
    by_hour: ByHour | None = None

    @property
    def tariff(self) -> tuple[Weigh, ...]:
        """Of what a tariff has the rates."""
        return tuple(kind for kind, name in AMOUNTS.items() if getattr(self.steps[0], name) is not None)

    def amount(self, step: Figures | Outcome) -> float:
        """Joules, euros or grams, whichever are pursued."""
        return float(getattr(step, AMOUNTS.get(self.weighs, "energy_j")))

    def accuracy(self, step: Figures | Outcome) -> float:
        """The mean that was pursued; the other where a file has that alone."""
        first, second = step.accuracy_token_weighted, step.accuracy_query_mean
        if self.weighting == "queries":
            first, second = second, first
        found = first if first is not None else second
        assert found is not None
        return found


def plan_steps(
    models: WorkloadModel | Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | AccuracyTable | None,
    *,
    shares: Mapping[str, Share] | None = None,
    only: Collection[str] = (),
    weighting: Weighting = "tokens",
    max_runtime_s: float | None = None,
    weigh: Weigh | None = None,
    hours: Hours | None = None,
) -> Plans:
    """Find the plans; ``hours`` are those of a workload with rates. Other arguments and errors as
    :func:`llmpower.route`.
    """
    check_goal(KNEE, accuracy)
    costs = predict_costs(
        models, workload, accuracy, only=only, weighting=weighting, max_runtime_s=max_runtime_s, weigh=weigh
    )
    limits = query_limits(shares, costs.model_names, workload.n_queries)
    refuse_late(costs, limits)
    tradeoff = Tradeoff(costs, limits)
    front = list(reversed(tradeoff.front(TOLERANCE)))
    # The front keeps figures alone: what goes where is found again at each ζ, from the neighbours' prices.
    points = [tradeoff.at(point.zeta, point) for point in front]
    knee = tradeoff.knee(front[-1], front[0])
    flat = None if costs.rate is None else list(least_energy(costs, limits, points, TOLERANCE))
    return Plans(
        steps=[_step(point, tradeoff, None if flat is None else flat[place]) for place, point in enumerate(points)],
        model_names=costs.model_names,
        weighting=weighting,
        chosen=int(np.argmin([abs(point.zeta - knee) for point in points])),
        simulated=costs.choices[0].model.simulated,
        singles={name: _alone(costs, number, knee) for number, name in enumerate(costs.model_names)},
        n_queries=workload.n_queries,
        mapped=_map(costs, points),
        limited="" if max_runtime_s is None else f"no query is predicted to take over {max_runtime_s:g} s",
        weighs=costs.weighs,
        by_hour=None
        if hours is None
        else ByHour(
            hours,
            hours.queries(workload.row_counts),
            hours.energy_j(costs, (point.assigned for point in points)),
            None if flat is None else hours.energy_j(costs, (mix.assigned for mix in flat)).sum(axis=2),
        ),
    )


def _step(point: Point, tradeoff: Tradeoff, flat: Mix | None) -> Step:
    costs = tradeoff.costs
    return Step(
        **_figures(partial(getattr, point.outcome)),
        zeta=point.zeta,
        amount_per_point=costs.amount(tradeoff.joules_per_point(point.zeta)),
        shares=point.outcome.shares,
        intervals=_intervals(costs, Assignment.of_matrix(point.assigned)),
        flat=None if flat is None else Figures(**_figures(flat.figure)),
    )


def _figures(of: Callable[[str], float | None]) -> dict[str, Any]:
    return {field.name: of(field.name) for field in fields(Figures)}


def _intervals(costs: Costs, assigned: Assignment) -> dict[Weigh, tuple[float, float]]:
    found: dict[Weigh, tuple[float, float]] = {}
    for kind in ("energy", *costs.workload.rates.by_kind):
        weighed = replace(costs, weighs=kind)
        if (sure := interval(weighed, summed_designs(weighed, assigned, weighed=True).plan)) is not None:
            found[kind] = weighed.amount(sure.low_j), weighed.amount(sure.high_j)
    return found


def _alone(costs: Costs, number: int, zeta: float) -> Outcome:
    """What it comes to when every query goes to one choice."""
    assigned = np.zeros((costs.workload.n_cells, len(costs.choices)), np.int64)
    assigned[:, number] = costs.workload.count
    return costs.summed(costs.loads(assigned), zeta)


def _map(costs: Costs, points: Sequence[Point]) -> Map:
    """Cells gathered into bins of half octaves, or wider ones where they would be too many."""
    workload = costs.workload
    parts = float(PARTS_OF_OCTAVE)
    while True:
        steps = [_octaves(tokens, parts) for tokens in (workload.input_tokens, workload.output_tokens)]
        bins, of_cell = np.unique(np.stack(steps), axis=1, return_inverse=True)
        if bins.shape[1] <= MOST_BINS or parts < 0.5:
            break
        parts /= 2
    of_cell = of_cell.reshape(-1)
    n_bins, n_models = bins.shape[1], len(costs.choices)
    assigned = np.zeros((len(points), n_bins, n_models))
    for step, point in enumerate(points):
        for model in range(n_models):
            assigned[step, :, model] = np.bincount(of_cell, point.assigned[:, model], n_bins)
    count = assigned[0].sum(axis=1)
    bounds = [np.asarray(2.0 ** ((axis + side) / parts)) for axis in bins for side in (-0.5, 0.5)]
    low_in, high_in, low_out, high_out = bounds
    largest = assigned.max(axis=2) / count
    return Map(low_in, high_in, low_out, high_out, count, assigned.argmax(axis=2), largest)


def _octaves(tokens: IntArray, parts: float) -> FloatArray:
    """The bin of each length; none at all goes with one token."""
    return np.asarray(np.rint(parts * np.log2(np.maximum(tokens, 1))))
