"""The knob turned from end to end: what plans come to along ζ, under the same shares.

Nobody knows in advance which ζ they want; they know it when they see energy beside accuracy. Predictions are made
once, then each ζ is solved exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmpower.modelling import WorkloadModel
from llmpower.routing.accuracy import AccuracyTable, Weighting
from llmpower.routing.costs import predict_costs
from llmpower.routing.plan import RoutingPlan, check_zeta, make_plan
from llmpower.routing.shares import Share, query_limits
from llmpower.routing.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

ZETAS = tuple(step / 20 for step in range(21))


def trace_frontier(
    models: Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | AccuracyTable | None,
    *,
    zetas: Sequence[float] = ZETAS,
    shares: Mapping[str, Share] | None = None,
    only: Collection[str] = (),
    accuracy_weighting: Weighting = "tokens",
    progress: Callable[[int, int], None] | None = None,
) -> list[RoutingPlan]:
    """The optimal plan of each ζ, in the order given; other arguments and errors as :func:`llmpower.route`.

    ``progress`` is called with the number of plans done and to do, before each and at the end.
    """
    for zeta in zetas:
        check_zeta(zeta, accuracy)
    costs = predict_costs(models, workload, accuracy, only=only, weighting=accuracy_weighting)
    limits = query_limits(shares or {}, costs.model_names, workload.n_queries)
    plans = []
    for done, zeta in enumerate(zetas):
        if progress is not None:
            progress(done, len(zetas))
        plans.append(make_plan(costs, limits, zeta))
    if progress is not None:
        progress(len(zetas), len(zetas))
    return plans


def frontier_table(plans: Sequence[RoutingPlan]) -> pd.DataFrame:
    """A row a plan: ``zeta, energy_j, runtime_s``, both accuracies, and ``share:<model>`` for every model."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "zeta": plan.zeta,
                "energy_j": plan.energy_j,
                "runtime_s": plan.runtime_s,
                "accuracy_token_weighted": plan.accuracy_token_weighted,
                "accuracy_query_mean": plan.accuracy_query_mean,
                **{f"share:{name}": share for name, share in plan.shares.items()},
            }
            for plan in plans
        ]
    )
