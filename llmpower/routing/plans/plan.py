"""The plan: which model every cell goes to, what that comes to, and what it is held against.

A plan carries its own proof (``optimality_gap``), its prices, and everything that a reader needs to doubt it: the
scaling, the queries beyond the fitted ranges, whether the joules are simulated. :mod:`~llmpower.routing.plans.planning`
makes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmpower.routing.costing.loads import ModelLoad
from llmpower.routing.costing.outcome import Outcome, Scaling
from llmpower.routing.plans.bootstrap import Bootstrap
from llmpower.routing.plans.document import plan_json
from llmpower.routing.plans.thresholds import ThresholdRule
from llmpower.routing.plans.uncertainty import Interval, Saving
from llmpower.routing.problem.accuracy import Weighting
from llmpower.routing.problem.choices import Choice
from llmpower.routing.problem.gpu_seconds import SecondLimit
from llmpower.routing.problem.rates import AMOUNTS, Weigh
from llmpower.routing.problem.workload import IntArray, Workload
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.tradeoffs.goals import Bound


@dataclass(frozen=True, slots=True, eq=False)
class RoutingPlan(Outcome):
    """An outcome with the assignment that leads to it.

    ``assigned`` has shape (n_cells, n_models): queries of each of the workload's cells on each of ``model_names``, the
    names of ``choices``, kept as ``assignment``; ``limits`` are the lowest and highest numbers of queries asked for,
    each (n_models,); ``max_runtime_s`` is the longest that a query was allowed to take, if anything was asked.
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
    limits: tuple[IntArray, IntArray]
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
        """Fraction of the plan's energy that those queries take."""
        return self.extrapolated_energy_j / self.energy_j

    @property
    def saved_share(self) -> float:
        """What is saved of what is pursued, as a fraction of the baseline's."""
        if (name := AMOUNTS.get(self.weighs)) is None:
            return self.saving.fraction
        saved, of_all = getattr(self.saving, name), getattr(self.baselines[self.saving.against], name)
        return float(saved / of_all)

    def to_json(self) -> dict[str, Any]:
        """Everything but the assignment, as JSON types."""
        return plan_json(self)
