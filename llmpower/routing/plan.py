"""The plan: which model every cell goes to, what that comes to, and what it is held against.

:func:`route` is the one way to a plan; the command line, the frontier and the report all take it. A plan carries its
own proof (``optimality_gap``), its prices, and everything that a reader needs to doubt it: the scaling, the queries
beyond the fitted ranges, whether the joules are simulated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing.accuracy import Weighting
from llmpower.routing.baselines import baselines
from llmpower.routing.choices import Choice
from llmpower.routing.costs import Costs, Outcome, Scaling, predict_costs
from llmpower.routing.shares import Share, query_limits
from llmpower.routing.solver import solve
from llmpower.routing.workload import IntArray, Workload


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model's part of a plan: queries, tokens, joules, seconds, and its accuracy where known."""

    queries: int
    tokens: int
    energy_j: float
    runtime_s: float
    accuracy: float | None


@dataclass(frozen=True, slots=True, eq=False)
class RoutingPlan(Outcome):
    """An outcome with the assignment that leads to it.

    ``assigned`` has shape (n_cells, n_models): queries of each of the workload's cells on each of ``model_names``, the
    names of ``choices``; ``limits`` are the lowest and highest numbers of queries asked for, each (n_models,).
    ``prices`` by model name, in the unit of the objective, as :class:`~llmpower.routing.solver.Solution` has them:
    a query goes to the least of ζ·ê − (1−ζ)·â + price. ``extrapolated_queries`` lie outside the fitted range of at
    least one model. ``solve_s`` is the wall time of the solver alone.
    """

    workload: Workload
    model_names: tuple[str, ...]
    choices: tuple[Choice, ...]
    assigned: IntArray
    limits: tuple[IntArray, IntArray]
    zeta: float
    accuracy_weighting: Weighting
    scaling: Scaling
    prices: Mapping[str, float]
    optimality_gap: float
    solve_s: float
    models: Mapping[str, ModelLoad]
    baselines: Mapping[str, Outcome]
    extrapolated_queries: int
    simulated: bool
    boundary: str | None

    def to_json(self) -> dict[str, Any]:
        """Everything but the assignment, as JSON types."""
        return {
            "simulated": self.simulated,
            **_outcome_json(self),
            "accuracy_weighting": self.accuracy_weighting,
            "zeta": self.zeta,
            "prices": dict(self.prices),
            "scaling": asdict(self.scaling),
            "boundary": self.boundary,
            "optimality_gap": self.optimality_gap,
            "baselines": {name: _outcome_json(outcome) for name, outcome in self.baselines.items()},
            "models": {name: asdict(load) for name, load in self.models.items()},
            "solve_s": self.solve_s,
            "queries": self.workload.n_queries,
            "cells": self.workload.n_cells,
            "extrapolated_queries": self.extrapolated_queries,
            "extrapolated_share": self.extrapolated_queries / self.workload.n_queries,
        }


def route(
    models: Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | None = None,
    *,
    zeta: float = 0.5,
    shares: Mapping[str, Share] | None = None,
    only: Collection[str] = (),
    accuracy_weighting: Weighting = "tokens",
) -> RoutingPlan:
    """Assign every query to exactly one model at least Σ ζ·ê − (1−ζ)·â (Wilkins, Keshav and Mortier, HotCarbon 2024).

    Args:
        models: what :func:`llmpower.fit` returns or ``models.json`` holds.
        workload: the queries, all known in advance.
        accuracy: A_K in 0..1 by model name; may be left out where ``zeta`` is 1.
        zeta: ζ, from 0 (accuracy alone) to 1 (energy alone).
        shares: by model name, the fraction of the queries to send there, or a pair (low, high); models without one
            are free. Fractions become whole numbers of queries by largest remainder and are met exactly.
        only: route to these models alone.
        accuracy_weighting: whether a query's accuracy counts by its tokens, as in the paper, or once.

    Raises:
        InputError: an argument is out of range, models cannot be compared, or a form predicts ≤ 0.
        InfeasibleError: no division of the queries meets the shares.
    """
    check_zeta(zeta, accuracy)
    costs = predict_costs(models, workload, accuracy, only=only, weighting=accuracy_weighting)
    limits = query_limits(shares or {}, costs.model_names, workload.n_queries)
    return make_plan(costs, limits, zeta)


def check_zeta(zeta: float, accuracy: Mapping[str, float] | None) -> None:
    """Refuse a ζ outside 0..1, and one below 1 where there are no accuracies to weigh against energy."""
    if not 0 <= zeta <= 1:
        raise InputError("--zeta", zeta, "is from 0 (accuracy alone) to 1 (energy alone)")
    if accuracy is None and zeta != 1:
        raise InputError("--accuracy", "none given", f"ζ = {zeta} weighs accuracy; give a file, or --zeta 1")


def make_plan(costs: Costs, limits: tuple[IntArray, IntArray], zeta: float) -> RoutingPlan:
    """Solve for one ζ; ``limits`` are the lowest and highest numbers of queries, each of shape (n_models,)."""
    workload, names = costs.workload, costs.model_names
    started = perf_counter()
    solution = solve(costs.per_query(zeta), workload.count, *limits)
    solve_s = perf_counter() - started
    outcome = costs.outcome(solution.assigned, zeta)
    return RoutingPlan(
        objective=outcome.objective,
        energy_j=outcome.energy_j,
        runtime_s=outcome.runtime_s,
        accuracy_token_weighted=outcome.accuracy_token_weighted,
        accuracy_query_mean=outcome.accuracy_query_mean,
        shares=outcome.shares,
        workload=workload,
        model_names=names,
        choices=costs.choices,
        assigned=solution.assigned,
        limits=limits,
        zeta=zeta,
        accuracy_weighting=costs.weighting,
        scaling=costs.scaling,
        prices=dict(zip(names, solution.prices.tolist(), strict=True)),
        optimality_gap=solution.optimality_gap,
        solve_s=solve_s,
        models=dict(zip(names, _loads(costs, solution.assigned), strict=True)),
        baselines=baselines(costs, outcome, zeta),
        extrapolated_queries=int(workload.count[costs.extrapolated].sum()),
        simulated=costs.choices[0].model.simulated,
        boundary=costs.choices[0].model.boundary,
    )


def _loads(costs: Costs, assigned: IntArray) -> list[ModelLoad]:
    accuracy = [None] * len(costs.choices) if costs.accuracy is None else costs.accuracy.tolist()
    return [
        ModelLoad(*figures)
        for figures in zip(
            assigned.sum(axis=0).tolist(),
            (costs.workload.tokens @ assigned).tolist(),
            (assigned * costs.energy_j).sum(axis=0).tolist(),
            (assigned * costs.runtime_s).sum(axis=0).tolist(),
            accuracy,
            strict=True,
        )
    ]


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "objective": outcome.objective,
        "energy_j": outcome.energy_j,
        "runtime_s": outcome.runtime_s,
        "accuracy_token_weighted": outcome.accuracy_token_weighted,
        "accuracy_query_mean": outcome.accuracy_query_mean,
        "shares": dict(outcome.shares),
    }
