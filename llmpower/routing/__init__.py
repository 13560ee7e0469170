"""WorkloadModels and a workload → RoutingPlan: which query goes to which model, exactly and cheaply.

What a query costs depends on its two token counts alone, so queries collapse into cells; the plan is an optimum over
cells, certified by its prices, and is read back into a model per query. The names below load on first use: scipy is
imported only when a plan is made, pandas only for tables.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.routing.costing.outcome import Outcome, Scaling
    from llmpower.routing.online.router import OnlineRouter
    from llmpower.routing.plans.expansion import cells_table, models_per_query, rows_table
    from llmpower.routing.plans.plan import RoutingPlan
    from llmpower.routing.plans.planning import route
    from llmpower.routing.policies.document import load_policy, save_policy
    from llmpower.routing.policies.policy import RoutingPolicy, make_policy
    from llmpower.routing.problem.accuracy import AccuracyTable, read_accuracy
    from llmpower.routing.problem.tariff import read_tariff
    from llmpower.routing.problem.workload import Workload, read_workload
    from llmpower.routing.replaying.replay import Trace
    from llmpower.routing.replaying.simulation import simulate
    from llmpower.routing.tradeoffs.frontier import frontier_table, trace_frontier

_PUBLIC = {
    "AccuracyTable": "problem.accuracy",
    "OnlineRouter": "online.router",
    "Outcome": "costing.outcome",
    "RoutingPlan": "plans.plan",
    "RoutingPolicy": "policies.policy",
    "Scaling": "costing.outcome",
    "Trace": "replaying.replay",
    "Workload": "problem.workload",
    "cells_table": "plans.expansion",
    "frontier_table": "tradeoffs.frontier",
    "load_policy": "policies.document",
    "make_policy": "policies.policy",
    "models_per_query": "plans.expansion",
    "read_accuracy": "problem.accuracy",
    "read_tariff": "problem.tariff",
    "read_workload": "problem.workload",
    "route": "plans.planning",
    "rows_table": "plans.expansion",
    "save_policy": "policies.document",
    "simulate": "replaying.simulation",
    "trace_frontier": "tradeoffs.frontier",
}

__all__ = [
    "AccuracyTable",
    "OnlineRouter",
    "Outcome",
    "RoutingPlan",
    "RoutingPolicy",
    "Scaling",
    "Trace",
    "Workload",
    "cells_table",
    "frontier_table",
    "load_policy",
    "make_policy",
    "models_per_query",
    "read_accuracy",
    "read_tariff",
    "read_workload",
    "route",
    "rows_table",
    "save_policy",
    "simulate",
    "trace_frontier",
]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
