"""WorkloadModels and a workload → RoutingPlan: which query goes to which model, exactly and cheaply.

What a query costs depends on its two token counts alone, so queries collapse into cells; the plan is an optimum over
cells, certified by its prices, and is read back into a model per query. The names below load on first use: scipy
comes along only when a plan is made, pandas only for tables.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.routing.accuracy import AccuracyTable, read_accuracy
    from llmpower.routing.expansion import cells_table, models_per_query, rows_table
    from llmpower.routing.frontier import frontier_table, trace_frontier
    from llmpower.routing.online import OnlineRouter
    from llmpower.routing.outcome import Outcome, Scaling
    from llmpower.routing.plan import RoutingPlan
    from llmpower.routing.planning import route
    from llmpower.routing.policy import RoutingPolicy, make_policy
    from llmpower.routing.policy_document import load_policy, save_policy
    from llmpower.routing.replay import Trace
    from llmpower.routing.simulation import simulate
    from llmpower.routing.tariff import read_tariff
    from llmpower.routing.workload import Workload, read_workload

_PUBLIC = {
    "AccuracyTable": "accuracy",
    "OnlineRouter": "online",
    "Outcome": "outcome",
    "RoutingPlan": "plan",
    "RoutingPolicy": "policy",
    "Scaling": "outcome",
    "Trace": "replay",
    "Workload": "workload",
    "cells_table": "expansion",
    "frontier_table": "frontier",
    "load_policy": "policy_document",
    "make_policy": "policy",
    "models_per_query": "expansion",
    "read_accuracy": "accuracy",
    "read_tariff": "tariff",
    "read_workload": "workload",
    "route": "planning",
    "rows_table": "expansion",
    "save_policy": "policy_document",
    "simulate": "simulation",
    "trace_frontier": "frontier",
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
