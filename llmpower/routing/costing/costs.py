"""What every cell would cost on every choice: the arrays that plans, baselines and frontiers are computed from.

Scaling, over all queries and choices, with the least taken as 0:

    ê = e / max e,   â = a / max a,   cost = ζ·ê − (1−ζ)·â

so ζ = 1 is energy alone and ζ = 0 accuracy alone. Where money or carbon is pursued, e is weighted by the rate at which
the query came (:mod:`~llmpower.routing.problem.rates`), here and in the maximum. One query sets each maximum, so a ζ
means another exchange of joules for accuracy in every workload. A pair of query and choice that a limit on latency
forbids costs infinity, and still counts in the scaling, so that a ζ means the same with a limit and without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.idle import Idle
from llmpower.routing.costing.outcome import Loads, Outcome, Scaling
from llmpower.routing.costing.predictions import extrapolated, predict
from llmpower.routing.costing.sums import Assigned, Sums, add_up
from llmpower.routing.problem.accuracy import WEIGHTINGS, AccuracyTable, Weighting, accuracies
from llmpower.routing.problem.choices import Choice, candidates
from llmpower.routing.problem.gpu_seconds import GpuSeconds, SecondRows
from llmpower.routing.problem.rates import AMOUNTS, Rate, Weigh
from llmpower.routing.problem.workload import Workload
from llmpower.routing.solving import kernels
from llmpower.routing.stretches import in_stretches
from llmpower.tables import number_of

# As many as a processor's cache holds with what is computed from them.
CELLS_AT_ONCE = 2**13


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Predictions for every cell and choice, in the order of ``choices`` (by name).

    ``energy_j`` and ``runtime_s`` have shape (n_cells, n_choices), the latter ``None`` where nothing limits it;
    ``accuracy`` (n_classes, n_choices) or ``None``; ``extrapolated`` (n_cells,) marks cells outside the fitted range
    of at least one choice; ``n_tokens`` are those of all queries. ``idle_j`` (n_choices,) is what each is charged while
    it is loaded, or ``None``; all are, unless they are ``unloadable`` and given no query. No
    query may go where it is predicted to take longer than ``max_runtime_s``, if that is given. ``second_rows`` are
    limits on GPU-seconds, if any; where a second on a choice has its price in them it stands in ``second_prices``
    (n_choices,), in the unit of the objective. ``weighs`` is what is pursued; ``energy_j`` are joules all the same.
    """

    choices: tuple[Choice, ...]
    workload: Workload
    energy_j: FloatArray
    runtime_s: FloatArray | None
    accuracy: FloatArray | None
    weighting: Weighting
    extrapolated: NDArray[np.bool_]
    scaling: Scaling
    n_tokens: float
    idle_j: FloatArray | None = None
    unloadable: bool = False
    max_runtime_s: float | None = None
    second_rows: SecondRows | None = None
    second_prices: FloatArray | None = None
    weighs: Weigh = "energy"

    @property
    def rate(self) -> Rate | None:
        """What joules are weighted by; ``None`` where they count as they are."""
        return self.workload.rates.by_kind.get(self.weighs)

    def weighed(self, values: FloatArray, cells: slice = slice(None)) -> FloatArray:
        """``values`` of these cells (n_cells, …), in joules or proportional to them, as the objective counts them."""
        if (rate := self.rate) is None:
            return values
        assert self.workload.cell_rate is not None
        return values * rate.part[self.workload.cell_rate[cells]][:, np.newaxis]

    def amount(self, weighed_j: float) -> float:
        """Joules, euros or grams, whichever are pursued."""
        return weighed_j if (rate := self.rate) is None else rate.amount(weighed_j)

    def weighed_loads(self, loads: Loads) -> FloatArray:
        """What the joules of each choice count in the objective (n_choices,)."""
        return loads.energy_j if (rate := self.rate) is None else rate.part @ loads.rate_energy_j

    @property
    def charges_j(self) -> FloatArray | None:
        """What waiting counts in the objective (n_choices,), ``None`` where it is not charged."""
        return self.idle_j if self.idle_j is None or (rate := self.rate) is None else self.idle_j * rate.mean_part

    @property
    def late(self) -> NDArray[np.bool_] | None:
        """Where a query would take longer than it may (n_cells, n_choices); ``None`` where nothing is asked."""
        if self.max_runtime_s is None:
            return None
        assert self.runtime_s is not None
        return self.runtime_s > self.max_runtime_s

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the choices, in the order of the columns."""
        return tuple(choice.name for choice in self.choices)

    def per_query(self, zeta: float) -> FloatArray:
        """ζ·ê − (1−ζ)·â of one query of each cell on each choice (n_cells, n_choices); ∞ where it would be late."""
        return self.scaled(self.energy_j, zeta)

    def scaled(self, energy_j: FloatArray, zeta: float) -> FloatArray:
        """As :meth:`per_query` with other joules (n_cells, n_choices) than the predicted ones, scaled alike."""
        ζ = zeta
        costs = np.empty_like(energy_j)
        workload, accuracy, late = self.workload, self.accuracy, self.late

        def fill(cells: slice) -> None:
            joules, a_joule = self.weighed(energy_j[cells], cells), ζ / self.scaling.energy_max_j
            if accuracy is None or ζ == 1:
                np.multiply(joules, a_joule, out=costs[cells])
            else:
                tokens = (workload.input_tokens[cells], workload.output_tokens[cells])
                kernels.weigh(
                    (joules, a_joule),
                    tokens if self.weighting == "tokens" else None,
                    (accuracy, (1 - ζ) / (self.scaling.accuracy_max or 1.0)),
                    workload.cell_class[cells],
                    costs[cells],
                )
            if self.second_prices is not None and self.runtime_s is not None:
                costs[cells] += self.runtime_s[cells] * self.second_prices
            if late is not None:
                costs[cells][late[cells]] = np.inf

        in_stretches(fill, len(costs), CELLS_AT_ONCE)
        return costs

    def query_accuracy(self, cells: slice = slice(None)) -> FloatArray:
        """a_K of one query of each of these cells on each choice, shape (n_cells, n_choices); needs accuracies."""
        assert self.accuracy is not None
        workload = self.workload
        of_cell = self.accuracy if len(self.accuracy) == 1 else self.accuracy[workload.cell_class[cells]]
        if self.weighting == "queries":
            return np.array(np.broadcast_to(of_cell, (len(workload.count[cells]), of_cell.shape[1])))
        tokens = workload.input_tokens[cells] + workload.output_tokens[cells]
        return np.asarray(tokens[:, np.newaxis] * of_cell)

    def loads(self, assigned: Assigned) -> Loads:
        """What ``assigned``, in whole queries, gives each choice."""
        return self._summed_loads((assigned,))[0]

    def all_loads(self, *assignments: Assigned) -> list[Loads]:
        """Of several, in one go; and after them, what each choice would be given if everything went there."""
        return self._summed_loads((*assignments, None))

    def _summed_loads(self, assignments: tuple[Assigned | None, ...]) -> list[Loads]:
        """Of each assignment, ``None`` standing for everything on each choice."""
        sums = add_up(self.workload, self.choices, self.energy_j, self.late, assignments)
        return [self._loads(each) for each in sums]

    def _loads(self, sums: Sums) -> Loads:
        accuracy_tokens, accuracy_queries = np.zeros(len(self.choices)), np.zeros(len(self.choices))
        if self.accuracy is not None:
            for accuracy, queries, tokens in zip(self.accuracy, sums.queries, sums.tokens, strict=True):
                accuracy_tokens += accuracy * tokens
                accuracy_queries += accuracy * queries
        return Loads(
            queries=sums.queries.sum(axis=0).astype(np.float64),
            tokens=sums.tokens.sum(axis=0).astype(np.float64),
            energy_j=sums.energy_j,
            runtime_s=sums.runtime_s,
            accuracy_tokens=accuracy_tokens,
            accuracy_queries=accuracy_queries,
            late=sums.late.astype(np.float64),
            rate_energy_j=sums.rate_energy_j,
        )

    def summed(self, loads: Loads, zeta: float) -> Outcome:
        """The outcome that loads come to."""
        weighed_j, n_queries = float(self.weighed_loads(loads).sum()), self.workload.n_queries
        loaded = loads.queries > 0 if self.unloadable else np.full(len(self.choices), True)
        idle_j = None if self.idle_j is None else float(self.idle_j[loaded].sum())
        charged_j = 0.0 if self.charges_j is None else float(self.charges_j[loaded].sum())
        objective = zeta * (weighed_j + charged_j) / self.scaling.energy_max_j
        token_weighted = query_mean = None
        if self.accuracy is not None:
            tokens, queries = float(loads.accuracy_tokens.sum()), float(loads.accuracy_queries.sum())
            pursued = tokens if self.weighting == "tokens" else queries
            objective -= (1 - zeta) * pursued / (self.scaling.accuracy_max or 1.0)
            token_weighted = tokens / self.n_tokens
            query_mean = queries / n_queries
        return Outcome(
            objective=objective,
            energy_j=float(loads.energy_j.sum()),
            runtime_s=float(loads.runtime_s.sum()),
            accuracy_token_weighted=token_weighted,
            accuracy_query_mean=query_mean,
            shares=dict(zip(self.model_names, (loads.queries / n_queries).tolist(), strict=True)),
            idle_energy_j=idle_j,
            late_queries=None if self.max_runtime_s is None else float(loads.late.sum()),
            gpu_seconds=None if self.second_rows is None else self.second_rows.used(loads.runtime_s),
            weighed_j=weighed_j,
            **{name: self._amount(kind, loads, idle_j or 0.0) for kind, name in AMOUNTS.items()},
        )

    def _amount(self, kind: Weigh, loads: Loads, idle_j: float) -> float | None:
        rate = self.workload.rates.by_kind.get(kind)
        return None if rate is None else rate.total(loads.rate_energy_j, idle_j)


def predict_costs(
    models: WorkloadModel | Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | AccuracyTable | None,
    *,
    only: str | Collection[str] = (),
    weighting: Weighting = "tokens",
    idle: Idle | None = None,
    allow_unload: bool = False,
    max_runtime_s: float | None = None,
    gpu_seconds: GpuSeconds | None = None,
    weigh: Weigh | None = None,
) -> Costs:
    """Predict the workload on the models of ``only``, or on all; charge what they draw ``idle``, if given.

    ``weigh`` is what is pursued; by default money where the workload came with prices, else carbon, else energy.

    Raises:
        InputError: no model, an unknown one in ``only`` or ``accuracy``, one without an accuracy, models that cannot
            be compared, a prediction at or below zero, models to unload that nothing is charged for, or a limit on a
            query's predicted runtime or a model's GPU-seconds that is not a positive number, or nothing to ``weigh``
            by.
    """
    if max_runtime_s is not None:
        if not 0 < number_of(max_runtime_s) < np.inf:
            raise InputError("--max-runtime", max_runtime_s, "is the longest that a query may take, in seconds above 0")
        max_runtime_s = float(max_runtime_s)
    for name, given, kind, advice in (
        ("idle", idle, Idle, "is not a charge for waiting; give Idle(horizon_s, watts)"),
        ("gpu_seconds", gpu_seconds, GpuSeconds, "are not limits; give GpuSeconds(limits, num_gpus), both by model"),
    ):
        if not (given is None or isinstance(given, kind)):
            raise InputError(name, type(given).__name__, advice)
    if not (accuracy is None or isinstance(accuracy, AccuracyTable) or hasattr(accuracy, "items")):
        advice = "are not accuracies by model; give a dict, or read_accuracy of a file"
        raise InputError("accuracy", type(accuracy).__name__, advice)
    if allow_unload and idle is None:
        advice = "needs what waiting costs to decide what is worth loading; give --idle-watts and --horizon"
        raise InputError("--allow-unload", "no idle energy", advice)
    if weighting not in WEIGHTINGS:
        raise InputError("--accuracy-weighting", weighting, f"unknown; use one of {', '.join(WEIGHTINGS)}")
    choices = candidates(models, only)
    table = accuracy if accuracy is None or isinstance(accuracy, AccuracyTable) else AccuracyTable(dict(accuracy))
    if table is not None and not only:
        known = {known for choice in choices for known in (choice.name, choice.model.model_name)}
        for name in table.models:
            if name not in known:
                names = ", ".join(choice.name for choice in choices)
                advice = f"has an accuracy but no fit; fit it, or name the models to use with --only: {names}"
                raise InputError("--accuracy", name, advice)
    values = None if table is None else accuracies(table, choices, workload.classes)
    second_rows = gpu_seconds.rows(choices) if gpu_seconds is not None and gpu_seconds.limits else None
    energy_j, runtime_s = predict(choices, workload, seconds=max_runtime_s is not None or second_rows is not None)
    costs = Costs(
        choices=choices,
        workload=workload,
        energy_j=energy_j,
        runtime_s=runtime_s,
        accuracy=values,
        weighting=weighting,
        extrapolated=extrapolated(choices, workload),
        scaling=Scaling(float(energy_j.max()), _accuracy_max(values, workload, weighting)),
        weighs=workload.rates.weighed(weigh),
        n_tokens=float(workload.tokens @ workload.count),
        idle_j=None if idle is None else idle.energy_j(choices),
        unloadable=allow_unload,
        max_runtime_s=max_runtime_s,
        second_rows=second_rows,
    )
    if costs.rate is None:
        return costs
    largest = in_stretches(
        lambda cells: float(costs.weighed(energy_j[cells], cells).max()), workload.n_cells, CELLS_AT_ONCE
    )
    return replace(costs, scaling=replace(costs.scaling, energy_max_j=max(largest)))


def _accuracy_max(accuracy: FloatArray | None, workload: Workload, weighting: Weighting) -> float | None:
    if accuracy is None:
        return None
    of_class = accuracy.max(axis=1)
    if weighting == "tokens":
        tokens, classes = workload.tokens, range(len(of_class))
        if len(classes) == 1:
            return float(of_class[0] * tokens.max())
        longest = np.array([tokens.max(where=workload.cell_class == number, initial=0) for number in classes])
        of_class = of_class * longest
    return float(of_class.max())
