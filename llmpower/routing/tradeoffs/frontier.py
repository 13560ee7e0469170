"""The front from end to end: what efficient plans of a workload come to, under the same shares.

Nobody knows in advance which ζ they want; they know it when they see energy beside accuracy. Predictions are made once;
then points are found where the front bends, each an exact optimum: by solving at the slopes of chords
(:mod:`~llmpower.routing.tradeoffs.tradeoff`), or, without shares, among all breakpoints that there are
(:mod:`~llmpower.routing.tradeoffs.corners`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing.costing.costs import predict_costs
from llmpower.routing.costing.latency import refuse_late
from llmpower.routing.costing.outcome import Outcome
from llmpower.routing.problem.accuracy import AccuracyTable, Weighting
from llmpower.routing.problem.rates import AMOUNTS, PER_POINT, Weigh
from llmpower.routing.problem.shares import Share, query_limits
from llmpower.routing.problem.workload import Workload, check_workload
from llmpower.routing.tradeoffs.corners import CornerFront
from llmpower.routing.tradeoffs.goals import Knee, check_goal
from llmpower.routing.tradeoffs.tradeoff import Tradeoff
from llmpower.tables import number_of

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class FrontierPoint(Outcome):
    """What the optimum at ``zeta`` comes to, and what a percentage point of mean accuracy is worth there.

    In joules, or in euros or grams where those are pursued, as ``weighs`` says.
    """

    zeta: float
    weighs: Weigh
    joules_per_point: float | None
    amount_per_point: float | None


def trace_frontier(
    models: WorkloadModel | Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | AccuracyTable | None,
    *,
    tolerance: float = TOLERANCE,
    shares: Mapping[str, Share] | None = None,
    only: str | Collection[str] = (),
    accuracy_weighting: Weighting = "tokens",
    max_runtime_s: float | None = None,
    weigh: Weigh | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[FrontierPoint]:
    """Optimal plans by rising ζ, so that the front is nowhere further from the line through them than ``tolerance``.

    ``tolerance`` is a fraction of the front's extent in energy or in accuracy. ``progress`` is called with the number
    of points found and of those looked for so far. Other arguments and errors as :func:`llmpower.route`.
    """
    if not 0 < number_of(tolerance) < 1:
        raise InputError("tolerance", tolerance, "is a fraction above 0")
    tolerance = float(tolerance)
    check_goal(Knee(), accuracy)
    check_workload(workload)
    costs = predict_costs(
        models, workload, accuracy, only=only, weighting=accuracy_weighting, max_runtime_s=max_runtime_s, weigh=weigh
    )
    limits = query_limits(shares, costs.model_names, workload.n_queries)
    refuse_late(costs, limits)
    if (limits[0] <= 0).all() and (limits[1] >= workload.n_queries).all():
        corners = CornerFront(costs, limits)
        return [_point(corners, *found) for found in reversed(list(corners.points(tolerance, progress)))]
    tradeoff = Tradeoff(costs, limits)
    return [_point(tradeoff, point.zeta, point.outcome) for point in reversed(tradeoff.front(tolerance, progress))]


def _point(tradeoff: Tradeoff, zeta: float, outcome: Outcome) -> FrontierPoint:
    costs, worth = tradeoff.costs, tradeoff.joules_per_point(zeta)
    return FrontierPoint(
        **{field.name: getattr(outcome, field.name) for field in fields(Outcome)},
        zeta=zeta,
        weighs=costs.weighs,
        joules_per_point=worth if costs.rate is None else None,
        amount_per_point=None if costs.rate is None else costs.amount(worth),
    )


def frontier_table(points: Sequence[FrontierPoint]) -> pd.DataFrame:
    """A row a point: ``zeta, joules_per_point, energy_j, runtime_s``, accuracies, and ``share:<model>`` for each.

    With a tariff ``cost_eur`` and ``carbon_g``, as far as it says them, and what a point is worth of what is pursued.
    """
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "zeta": point.zeta,
                "joules_per_point": point.joules_per_point,
                "energy_j": point.energy_j,
                **_amounts(point),
                "runtime_s": point.runtime_s,
                "accuracy_token_weighted": point.accuracy_token_weighted,
                "accuracy_query_mean": point.accuracy_query_mean,
                **{f"share:{name}": share for name, share in point.shares.items()},
            }
            for point in points
        ]
    )


def _amounts(point: FrontierPoint) -> dict[str, float]:
    found = {} if point.amount_per_point is None else {PER_POINT[point.weighs]: point.amount_per_point}
    return found | {name: amount for name in AMOUNTS.values() if (amount := getattr(point, name)) is not None}
