"""What ``route --json`` prints of a plan: everything but the assignment."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from llmpower.routing.costing.outcome import Outcome
from llmpower.routing.problem.rates import PER_POINT, UNITS

if TYPE_CHECKING:
    from llmpower.routing.plans.plan import RoutingPlan


def plan_json(plan: RoutingPlan) -> dict[str, Any]:
    """As JSON types."""
    return {
        "simulated": plan.simulated,
        **_outcome_json(plan),
        "energy_std_j": None if plan.energy is None else plan.energy.std_j,
        "energy_low_j": None if plan.energy is None else plan.energy.low_j,
        "energy_high_j": None if plan.energy is None else plan.energy.high_j,
        "accuracy_weighting": plan.accuracy_weighting,
        "max_runtime_s": plan.max_runtime_s,
        "zeta": plan.zeta,
        "weighs": plan.weighs,
        "joules_per_point": plan.joules_per_point,
        **{name: plan.amount_per_point if plan.weighs == kind else None for kind, name in PER_POINT.items()},
        "bound": None if plan.bound is None else asdict(plan.bound),
        "second_limits": None
        if plan.second_limits is None
        else {name: asdict(limit) for name, limit in plan.second_limits.items()},
        "prices": dict(plan.prices),
        "scaling": asdict(plan.scaling),
        "rates": {
            UNITS[kind].column: {"dearest": rate.dearest, "mean": rate.mean_per_kwh}
            for kind, rate in plan.workload.rates.by_kind.items()
        },
        "boundary": plan.boundary,
        "optimality_gap": plan.optimality_gap,
        "saving": asdict(plan.saving),
        "bootstrap": None if plan.bootstrap is None else asdict(plan.bootstrap),
        "baselines": {name: _outcome_json(outcome) for name, outcome in plan.baselines.items()},
        "threshold": None if plan.threshold is None else asdict(plan.threshold),
        "models": {name: asdict(load) for name, load in plan.models.items()},
        "never_chosen": list(plan.never_chosen),
        "unloaded": list(plan.unloaded),
        "solve_s": plan.solve_s,
        "queries": plan.workload.n_queries,
        "cells": plan.workload.n_cells,
        "extrapolated_queries": plan.extrapolated_queries,
        "extrapolated_share": plan.extrapolated_share,
        "extrapolated_energy_j": plan.extrapolated_energy_j,
        "extrapolated_energy_share": plan.extrapolated_energy_share,
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "objective": outcome.objective,
        "energy_j": outcome.energy_j,
        "cost_eur": outcome.cost_eur,
        "carbon_g": outcome.carbon_g,
        "runtime_s": outcome.runtime_s,
        "accuracy_token_weighted": outcome.accuracy_token_weighted,
        "accuracy_query_mean": outcome.accuracy_query_mean,
        "shares": dict(outcome.shares),
        "idle_energy_j": outcome.idle_energy_j,
        "late_queries": outcome.late_queries,
        "gpu_seconds": None if outcome.gpu_seconds is None else dict(outcome.gpu_seconds),
    }
