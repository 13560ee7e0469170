"""What every cell would cost on every choice: the arrays that plans, baselines and frontiers are computed from.

Scaling, over all queries and choices, with the least taken as 0:

    ê = e / max e,   â = a / max a,   cost = ζ·ê − (1−ζ)·â

so ζ = 1 is energy alone and ζ = 0 accuracy alone. One query sets each maximum, so a ζ means another exchange of joules
for accuracy in every workload. A pair of query and choice that a limit on latency forbids costs infinity, and still
counts in the scaling, so that a ζ means the same with a limit and without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FloatArray
from llmpower.routing import kernels
from llmpower.routing.accuracy import WEIGHTINGS, AccuracyTable, Weighting, accuracies
from llmpower.routing.choices import Choice, candidates
from llmpower.routing.gpu_seconds import GpuSeconds, SecondRows
from llmpower.routing.idle import Idle
from llmpower.routing.kernels import Choices
from llmpower.routing.outcome import Loads, Outcome, Scaling
from llmpower.routing.predictions import RUNTIME, Predictor, extrapolated, predict
from llmpower.routing.stretches import in_stretches
from llmpower.routing.workload import IntArray, Workload

# As many as a processor's nearer cache holds with what is computed from them.
CELLS_AT_ONCE = 2**11


class _Sums:
    """Queries and tokens by class and choice (n_classes, n_choices); J, s and late queries a choice (n_choices,)."""

    def __init__(self, n_classes: int, n_choices: int) -> None:
        self.queries, self.tokens = np.zeros((2, n_classes, n_choices), np.int64)
        self.energy_j, self.runtime_s = np.zeros((2, n_choices))
        self.late = np.zeros(n_choices, np.int64)

    def add(self, other: _Sums) -> None:
        """Take up the sums of other cells."""
        self.queries += other.queries
        self.tokens += other.tokens
        self.energy_j += other.energy_j
        self.runtime_s += other.runtime_s
        self.late += other.late


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Predictions for every cell and choice, in the order of ``choices`` (by name).

    ``energy_j`` and ``runtime_s`` have shape (n_cells, n_choices), the latter ``None`` where nothing limits it;
    ``accuracy`` (n_classes, n_choices) or ``None``; ``extrapolated`` (n_cells,) marks cells outside the fitted range
    of at least one choice; ``n_tokens`` are those of all queries. ``idle_j`` (n_choices,) is what each is charged while
    it is loaded, or ``None``; all are, unless they are ``unloadable`` and given no query. No
    query may go where it is predicted to take longer than ``max_runtime_s``, if that is given. ``second_rows`` are
    limits on GPU-seconds, if any; where a second on a choice has its price in them it stands in ``second_prices``
    (n_choices,), in the unit of the objective.
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
        weighs_accuracy, late = self.accuracy is not None and ζ < 1, self.late

        def fill(cells: slice) -> None:
            np.multiply(energy_j[cells], ζ / self.scaling.energy_max_j, out=costs[cells])
            if weighs_accuracy:
                a = self.query_accuracy(cells)
                a *= (1 - ζ) / (self.scaling.accuracy_max or 1.0)
                costs[cells] -= a
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

    def loads(self, assigned: IntArray) -> Loads:
        """What ``assigned`` (n_cells, n_choices), in whole queries, gives each choice."""
        return self._summed_loads((assigned,))[0]

    def all_loads(self, first: IntArray | Choices, *others: IntArray | Choices) -> list[Loads]:
        """Of several, in one go; and after them, what each choice would be given if everything went there.

        An assignment is of queries (n_cells, n_choices), or says the one choice of each cell (n_cells,).
        """
        return self._summed_loads((first, *others, None))

    def _summed_loads(self, assignments: tuple[IntArray | Choices | None, ...]) -> list[Loads]:
        """Of each assignment, ``None`` standing for everything on each choice; the first is none of these."""
        workload, late, n_choices = self.workload, self.late, len(self.choices)
        predictor = Predictor(self.choices, workload, RUNTIME)

        def add_up(cells: slice) -> list[_Sums]:
            count, classes, energy_j = workload.count[cells], workload.cell_class[cells], self.energy_j[cells]
            tokens = workload.input_tokens[cells] + workload.output_tokens[cells]
            (seconds,) = predictor.of(cells)
            found = []
            for number, assigned in enumerate(assignments):
                sums = _Sums(len(workload.classes), n_choices)
                found.append(sums)
                if assigned is None:
                    queries = count.astype(np.float64)
                    sums.energy_j[:], sums.runtime_s[:] = queries @ energy_j, queries @ seconds
                    sums.queries += _by_class(classes, count, len(workload.classes))
                    sums.tokens += _by_class(classes, count * tokens, len(workload.classes))
                    if late is not None:
                        sums.late += count @ late[cells]
                    continue
                x = _queries(assigned, cells, count, n_choices)
                kernels.count(x, tokens, classes, sums.queries, sums.tokens)
                kernels.add(x, seconds, sums.runtime_s)
                if number:
                    kernels.add(x, energy_j, sums.energy_j)
                if late is not None:
                    sums.late += np.einsum("ck,ck->k", x, late[cells])
            return found

        totals = [_Sums(len(workload.classes), n_choices) for _ in assignments]
        for found in in_stretches(add_up, workload.n_cells, 4 * CELLS_AT_ONCE):
            for total, sums in zip(totals, found, strict=True):
                total.add(sums)
        # The first is the plan, whose joules are added up in the order of the cells, as its objective always was.
        plan = assignments[0]
        assert plan is not None
        kernels.add(_queries(plan, slice(None), workload.count, n_choices), self.energy_j, totals[0].energy_j)
        return [self._loads(sums) for sums in totals]

    def _loads(self, sums: _Sums) -> Loads:
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
        )

    def summed(self, loads: Loads, zeta: float) -> Outcome:
        """The outcome that loads come to."""
        energy_j, n_queries = float(loads.energy_j.sum()), self.workload.n_queries
        idle_j = None
        if self.idle_j is not None:
            idle_j = float(self.idle_j[loads.queries > 0].sum() if self.unloadable else self.idle_j.sum())
        objective = zeta * (energy_j + (idle_j or 0.0)) / self.scaling.energy_max_j
        token_weighted = query_mean = None
        if self.accuracy is not None:
            tokens, queries = float(loads.accuracy_tokens.sum()), float(loads.accuracy_queries.sum())
            pursued = tokens if self.weighting == "tokens" else queries
            objective -= (1 - zeta) * pursued / (self.scaling.accuracy_max or 1.0)
            token_weighted = tokens / self.n_tokens
            query_mean = queries / n_queries
        return Outcome(
            objective=objective,
            energy_j=energy_j,
            runtime_s=float(loads.runtime_s.sum()),
            accuracy_token_weighted=token_weighted,
            accuracy_query_mean=query_mean,
            shares=dict(zip(self.model_names, (loads.queries / n_queries).tolist(), strict=True)),
            idle_energy_j=idle_j,
            late_queries=None if self.max_runtime_s is None else float(loads.late.sum()),
            gpu_seconds=None if self.second_rows is None else self.second_rows.used(loads.runtime_s),
        )


def _queries(assigned: IntArray | Choices, cells: slice, count: IntArray, n_choices: int) -> IntArray:
    """Of these cells, which have ``count`` queries, on each choice; see :meth:`Costs.all_loads`."""
    if assigned.ndim == 1:
        return kernels.assign(cast(Choices, assigned[cells]), count, n_choices)
    return assigned[cells].astype(np.int64, copy=False)


def _by_class(cell_class: IntArray, values: IntArray, n_classes: int) -> IntArray:
    """Sums of whole numbers by class, shape (n_classes, 1)."""
    if n_classes == 1:
        return np.array([[values.sum()]])
    return np.array([[values[cell_class == number].sum()] for number in range(n_classes)])


def predict_costs(
    models: Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | AccuracyTable | None,
    *,
    only: Collection[str] = (),
    weighting: Weighting = "tokens",
    idle: Idle | None = None,
    allow_unload: bool = False,
    max_runtime_s: float | None = None,
    gpu_seconds: GpuSeconds | None = None,
) -> Costs:
    """Predict the workload on the models of ``only``, or on all; charge what they draw ``idle``, if given.

    Raises:
        InputError: no model, an unknown one in ``only`` or ``accuracy``, one without an accuracy, models that cannot
            be compared, a prediction at or below zero, models to unload that nothing is charged for, or a limit on a
            query's predicted runtime or a model's GPU-seconds that is no positive number.
    """
    if max_runtime_s is not None and not 0 < max_runtime_s < np.inf:
        raise InputError("--max-runtime", max_runtime_s, "is the longest that a query may take, in seconds above 0")
    if allow_unload and idle is None:
        advice = "needs what waiting costs to decide what is worth loading; give --idle-watts and --horizon"
        raise InputError("--allow-unload", "no idle energy", advice)
    if weighting not in WEIGHTINGS:
        raise InputError("--accuracy-weighting", weighting, f"unknown; use one of {', '.join(WEIGHTINGS)}")
    choices = candidates(models, only)
    table = AccuracyTable(accuracy) if isinstance(accuracy, Mapping) else accuracy
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
    return Costs(
        choices=choices,
        workload=workload,
        energy_j=energy_j,
        runtime_s=runtime_s,
        accuracy=values,
        weighting=weighting,
        extrapolated=extrapolated(choices, workload),
        scaling=Scaling(float(energy_j.max()), _accuracy_max(values, workload, weighting)),
        n_tokens=float(workload.tokens @ workload.count),
        idle_j=None if idle is None else idle.energy_j(choices),
        unloadable=allow_unload,
        max_runtime_s=max_runtime_s,
        second_rows=second_rows,
    )


def _accuracy_max(accuracy: FloatArray | None, workload: Workload, weighting: Weighting) -> float | None:
    if accuracy is None:
        return None
    of_class = accuracy.max(axis=1)
    if weighting == "tokens":
        tokens, classes = workload.tokens, range(len(of_class))
        longest = np.array([tokens.max(where=workload.cell_class == number, initial=0) for number in classes])
        of_class = of_class * longest
    return float(of_class.max())
