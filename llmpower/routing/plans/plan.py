"""The plan: which model every cell goes to, what that comes to, and what it is compared with.

A plan carries its own proof (``optimality_gap``), its prices, and everything that a reader needs to question it: the
scaling, the queries beyond the fitted ranges, whether the joules are simulated. :mod:`~llmpower.routing.plans.planning`
makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmpower.exceptions import InputError
from llmpower.routing.costing.loads import ModelLoad
from llmpower.routing.costing.outcome import Outcome, Scaling
from llmpower.routing.plans.bootstrap import Bootstrap
from llmpower.routing.plans.thresholds import ThresholdRule
from llmpower.routing.plans.uncertainty import Interval, Saving
from llmpower.routing.problem.accuracy import Weighting
from llmpower.routing.problem.choices import Choice
from llmpower.routing.problem.gpu_seconds import SecondLimit
from llmpower.routing.problem.rates import AMOUNTS, PER_POINT, UNITS, Weigh
from llmpower.routing.problem.workload import IntArray, Workload
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.tradeoffs.goals import Bound


@dataclass(frozen=True, slots=True, eq=False)
class RoutingPlan(Outcome):
    """An outcome with the assignment that leads to it.

    ``assigned`` has shape (n_cells, n_models): queries of each of the workload's cells on each of ``model_names``, the
    names of ``choices``, kept as ``assignment``; ``share_ranges`` are the lowest and highest share of each, as asked
    for; ``max_runtime_s`` is the longest that a query was allowed to take, if anything was asked.
    ``prices`` by model name, in the unit of the objective, as :class:`~llmpower.routing.solving.solver.Solution` has
    them: a query goes to the least of ζ·ê − (1−ζ)·â + price. ``joules_per_point`` is what a percentage point of the
    mean accuracy is worth at ζ; ``None`` where none is known or ζ is 0, and where money or carbon is pursued, as
    ``weighs`` says: then ``amount_per_point`` has it in euros or grams. ``bound`` is what fractions of queries could
    reach where ζ was chosen for a budget or a floor, or GPU-seconds are limited; ``second_limits`` are those limits by
    name, with what a GPU-second adds to the cost of a query there. Models in ``unloaded`` are better not loaded and
    have no price; those in ``never_chosen`` get queries only because shares say so. ``extrapolated_queries`` lie
    outside the fitted range of at least one model, and take ``extrapolated_energy_j``. ``energy`` has the interval of
    ``energy_j``, ``saving`` what the best mix that ignores the query would have cost more, ``threshold`` the rule of
    the baseline ``hybrid_threshold``. ``solve_s`` is the wall time of the solver, beside which baselines begin.
    """

    workload: Workload
    model_names: tuple[str, ...]
    choices: tuple[Choice, ...]
    assignment: Assignment
    share_ranges: Mapping[str, tuple[float, float]]
    max_runtime_s: float | None
    zeta: float
    weighs: Weigh
    joules_per_point: float | None
    amount_per_point: float | None
    bound: Bound | None
    second_limits: Mapping[str, SecondLimit] | None
    accuracy_weighting: Weighting
    scaling: Scaling
    prices: Mapping[str, float]
    optimality_gap: float
    solve_s: float
    models: Mapping[str, ModelLoad]
    baselines: Mapping[str, Outcome]
    threshold: ThresholdRule | None
    energy: Interval | None
    saving: Saving
    bootstrap: Bootstrap | None
    extrapolated_queries: int
    extrapolated_energy_j: float
    never_chosen: tuple[str, ...]
    unloaded: tuple[str, ...]
    simulated: bool
    boundary: str | None

    @property
    def assigned(self) -> IntArray:
        """Queries of each cell on each model."""
        return self.assignment.matrix

    @property
    def extrapolated_share(self) -> float:
        """Fraction of the queries that lie outside the fitted range of at least one model."""
        return self.extrapolated_queries / self.workload.n_queries

    @property
    def extrapolated_energy_share(self) -> float:
        """Fraction of the plan's energy that those queries take, where these are all of them too: sums in two orders
        round differently.
        """
        return min(1.0, self.extrapolated_energy_j / self.energy_j)

    @property
    def saved_share(self) -> float:
        """What is saved of what is pursued, as a fraction of the baseline's."""
        if (name := AMOUNTS.get(self.weighs)) is None:
            return self.saving.fraction
        saved, of_all = getattr(self.saving, name), getattr(self.baselines[self.saving.against], name)
        return float(saved / of_all)

    def to_json(self) -> dict[str, Any]:
        """What ``route --json`` prints: everything but the assignment, as JSON types."""
        return {
            "simulated": self.simulated,
            **_outcome_json(self),
            "energy_std_j": None if self.energy is None else self.energy.std_j,
            "energy_low_j": None if self.energy is None else self.energy.low_j,
            "energy_high_j": None if self.energy is None else self.energy.high_j,
            "accuracy_weighting": self.accuracy_weighting,
            "max_runtime_s": self.max_runtime_s,
            "zeta": self.zeta,
            "weighs": self.weighs,
            "joules_per_point": self.joules_per_point,
            **{name: self.amount_per_point if self.weighs == kind else None for kind, name in PER_POINT.items()},
            "bound": None if self.bound is None else asdict(self.bound),
            "second_limits": None
            if self.second_limits is None
            else {name: asdict(limit) for name, limit in self.second_limits.items()},
            "prices": dict(self.prices),
            "scaling": asdict(self.scaling),
            "rates": {
                UNITS[kind].column: {"highest": rate.highest, "mean": rate.mean_per_kwh}
                for kind, rate in self.workload.rates.by_kind.items()
            },
            "boundary": self.boundary,
            "optimality_gap": self.optimality_gap,
            "saving": asdict(self.saving),
            "bootstrap": None if self.bootstrap is None else asdict(self.bootstrap),
            "baselines": {name: _outcome_json(outcome) for name, outcome in self.baselines.items()},
            "threshold": None if self.threshold is None else asdict(self.threshold),
            "models": {name: asdict(load) for name, load in self.models.items()},
            "never_chosen": list(self.never_chosen),
            "unloaded": list(self.unloaded),
            "solve_s": self.solve_s,
            "queries": self.workload.n_queries,
            "cells": self.workload.n_cells,
            "extrapolated_queries": self.extrapolated_queries,
            "extrapolated_share": self.extrapolated_share,
            "extrapolated_energy_j": self.extrapolated_energy_j,
            "extrapolated_energy_share": self.extrapolated_energy_share,
        }


def check_plan(plan: object) -> None:
    """Refuse what is no plan.

    Raises:
        InputError: it is something else, such as the file that its rows were written to.
    """
    if not isinstance(plan, RoutingPlan):
        raise InputError("plan", plan if isinstance(plan, str) else type(plan).__name__, "is not a plan; give route's")


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
