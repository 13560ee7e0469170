"""What every cell would cost on every choice: the arrays that plans, baselines and frontiers are computed from.

A published form predicts negative joules for short queries and anything at all beyond the lengths it was fitted on,
and an optimiser seeks out exactly those cells. So a prediction at or below zero stops the plan, and queries outside
the fitted ranges are marked.

Scaling, over all queries and choices, with the least taken as 0:

    ê = e / max e,   â = a / max a,   cost = ζ·ê − (1−ζ)·â

so ζ = 1 is energy alone and ζ = 0 accuracy alone. One query sets each maximum, so a ζ means another exchange of joules
for accuracy in every workload. A pair of query and choice that a limit on latency forbids costs infinity, and still
counts in the scaling, so that a ζ means the same with a limit and without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import Fit, WorkloadModel
from llmpower.modelling.forms import FloatArray, make_form
from llmpower.routing.accuracy import WEIGHTINGS, AccuracyTable, Weighting, accuracies
from llmpower.routing.choices import Choice, candidates
from llmpower.routing.idle import Idle
from llmpower.routing.workload import IntArray, Workload

CELLS_AT_ONCE = 2**13
CELLS_NAMED = 3


@dataclass(frozen=True, slots=True)
class Scaling:
    """The largest energy and accuracy of one query on one model; the least of both counts as 0.

    ``accuracy_max`` is in tokens under weighting ``tokens`` (A_K·(τin + τout)) and without unit under ``queries``;
    ``None`` where no accuracy was given.
    """

    energy_max_j: float
    accuracy_max: float | None
    convention: str = "min-max over all queries and models, minimum 0"


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a division of the workload comes to, over all queries.

    ``objective`` is Σ ζ·ê − (1−ζ)·â, and ζ·(idle energy)/max e where that is charged; ``energy_j`` and ``runtime_s``
    are sums of what the models predict (seconds of all queries one after the other). ``idle_energy_j`` is what the
    loaded models are charged for waiting, ``None`` where they are not. ``accuracy_token_weighted`` is
    Σ A_K·(τin+τout) / Σ (τin+τout), ``accuracy_query_mean`` Σ A_K / N; both ``None`` where no accuracy was given.
    ``shares`` are fractions of the queries by model name. ``late_queries`` are predicted to take longer than they may:
    expected queries where chance divides them, ``None`` where nothing is asked.
    """

    objective: float
    energy_j: float
    runtime_s: float
    accuracy_token_weighted: float | None
    accuracy_query_mean: float | None
    shares: Mapping[str, float]
    idle_energy_j: float | None
    late_queries: float | None

    @property
    def total_energy_j(self) -> float:
        """Joules of the queries and of waiting."""
        return self.energy_j + (self.idle_energy_j or 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """What each choice is given, each of shape (n_choices,): queries, J, s, and accuracies summed over queries.

    ``accuracy_tokens`` is Σ A_K·(τin+τout) and ``accuracy_queries`` Σ A_K; both are 0 where there are no accuracies.
    ``late`` are queries that take longer than they may; 0 where nothing is asked.
    """

    queries: FloatArray
    energy_j: FloatArray
    runtime_s: FloatArray
    accuracy_tokens: FloatArray
    accuracy_queries: FloatArray
    late: FloatArray

    def weighted(self, weights: FloatArray) -> Loads:
        """Each choice given the fraction ``weights`` (n_choices,) of this."""
        return Loads(
            self.queries * weights,
            self.energy_j * weights,
            self.runtime_s * weights,
            self.accuracy_tokens * weights,
            self.accuracy_queries * weights,
            self.late * weights,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Predictions for every cell and choice, in the order of ``choices`` (by name).

    ``energy_j`` and ``runtime_s`` have shape (n_cells, n_choices), ``accuracy`` (n_classes, n_choices) or ``None``;
    ``extrapolated`` (n_cells,) marks cells outside the fitted range of at least one choice. ``idle_j`` (n_choices,) is
    what each is charged while it is loaded, or ``None``; all are, unless they are ``unloadable`` and given no query. No
    query may go where it is predicted to take longer than ``max_runtime_s``, if that is given.
    """

    choices: tuple[Choice, ...]
    workload: Workload
    energy_j: FloatArray
    runtime_s: FloatArray
    accuracy: FloatArray | None
    weighting: Weighting
    extrapolated: NDArray[np.bool_]
    scaling: Scaling
    idle_j: FloatArray | None = None
    unloadable: bool = False
    max_runtime_s: float | None = None

    @property
    def late(self) -> NDArray[np.bool_] | None:
        """Where a query would take longer than it may (n_cells, n_choices); ``None`` where nothing is asked."""
        return None if self.max_runtime_s is None else self.runtime_s > self.max_runtime_s

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
        costs = energy_j * (ζ / self.scaling.energy_max_j)
        if self.accuracy is not None and ζ < 1:
            a = self.query_accuracy()
            a *= (1 - ζ) / (self.scaling.accuracy_max or 1.0)
            costs -= a
        if (late := self.late) is not None:
            costs[late] = np.inf
        return costs

    def query_accuracy(self) -> FloatArray:
        """a_K of one query of each cell on each choice, shape (n_cells, n_choices); needs accuracies."""
        assert self.accuracy is not None
        weight = self.workload.tokens if self.weighting == "tokens" else np.ones(self.workload.n_cells)
        of_cell = self.accuracy if len(self.accuracy) == 1 else self.accuracy[self.workload.cell_class]
        return np.asarray(weight[:, np.newaxis] * of_cell)

    def loads(self, assigned: IntArray | FloatArray) -> Loads:
        """What ``assigned`` (n_cells, n_choices) gives each choice; fractions of queries are allowed."""
        queries = assigned.sum(axis=0).astype(np.float64)
        tokens = self.workload.tokens
        accuracy_tokens, accuracy_queries = np.zeros_like(queries), np.zeros_like(queries)
        if self.accuracy is not None:
            for number, accuracy in enumerate(self.accuracy):
                # Nearly always there is one class, and then nothing needs to be picked out.
                here = slice(None) if len(self.accuracy) == 1 else self.workload.cell_class == number
                accuracy_tokens += accuracy * (tokens[here] @ assigned[here])
                accuracy_queries += accuracy * assigned[here].sum(axis=0)
        late = self.late
        return Loads(
            queries=queries,
            energy_j=np.einsum("ck,ck->k", assigned, self.energy_j),
            runtime_s=np.einsum("ck,ck->k", assigned, self.runtime_s),
            accuracy_tokens=accuracy_tokens,
            accuracy_queries=accuracy_queries,
            late=np.zeros_like(queries) if late is None else np.einsum("ck,ck->k", assigned, late).astype(np.float64),
        )

    def all_on_each(self) -> Loads:
        """What each choice would be given if everything went there."""
        count = self.workload.count[:, np.newaxis]
        return self.loads(np.broadcast_to(count, self.energy_j.shape))

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
            token_weighted = tokens / float(self.workload.tokens @ self.workload.count)
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
        )


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
) -> Costs:
    """Predict the workload on the models of ``only``, or on all; charge what they draw ``idle``, if given.

    Raises:
        InputError: no model, an unknown one in ``only`` or ``accuracy``, one without an accuracy, models that cannot
            be compared, a prediction at or below zero, models to unload that nothing is charged for, or a limit
            ``max_runtime_s`` on a query's predicted runtime that is no positive number.
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
    tokens = (workload.input_tokens, workload.output_tokens)
    inside = [fit.inside(*tokens) for choice in choices for fit in (choice.model.energy, choice.model.runtime)]
    energy_j = _predict("energy", "J", choices, [choice.model.energy for choice in choices], workload)
    return Costs(
        choices=choices,
        workload=workload,
        energy_j=energy_j,
        runtime_s=_predict("runtime", "s", choices, [choice.model.runtime for choice in choices], workload),
        accuracy=values,
        weighting=weighting,
        extrapolated=~np.logical_and.reduce(inside),
        scaling=Scaling(float(energy_j.max()), _accuracy_max(values, workload, weighting)),
        idle_j=None if idle is None else idle.energy_j(choices),
        unloadable=allow_unload,
        max_runtime_s=max_runtime_s,
    )


def _accuracy_max(accuracy: FloatArray | None, workload: Workload, weighting: Weighting) -> float | None:
    if accuracy is None:
        return None
    of_class = accuracy.max(axis=1)
    if weighting == "tokens":
        longest = np.zeros(len(of_class), np.int64)
        np.maximum.at(longest, workload.cell_class, workload.tokens)
        of_class = of_class * longest
    return float(of_class.max())


def by_form(fits: Sequence[Fit]) -> list[list[int]]:
    """Which fits share a form, and so the columns of a design."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for number, fit in enumerate(fits):
        groups.setdefault((fit.form, fit.terms), []).append(number)
    return list(groups.values())


def design(fit: Fit, input_tokens: IntArray, output_tokens: IntArray) -> FloatArray:
    """φ of each query, shape (n_queries, n_terms), from token counts of shape (n_queries,)."""
    return make_form(fit.form, intercept="intercept" in fit.terms).design(input_tokens, output_tokens)


def designs(fit: Fit, workload: Workload) -> Iterator[tuple[slice, FloatArray]]:
    """φ of the workload's cells, a stretch of them after the other: as many as a processor's cache holds."""
    for start in range(0, workload.n_cells, CELLS_AT_ONCE):
        cells = slice(start, start + CELLS_AT_ONCE)
        yield cells, design(fit, workload.input_tokens[cells], workload.output_tokens[cells])


def _predict(what: str, unit: str, choices: Sequence[Choice], fits: Sequence[Fit], workload: Workload) -> FloatArray:
    """Predictions for the workload's cells, shape (n_cells, n_choices), every one of them positive."""
    predicted = np.empty((workload.n_cells, len(fits)))
    for columns in by_form(fits):
        coefficients = np.column_stack([fits[column].coefficients for column in columns])
        for cells, φ in designs(fits[columns[0]], workload):
            predicted[cells, columns] = φ @ coefficients
    if not (predicted.min() > 0 and predicted.max() < np.inf):
        for choice, fit, of_choice in zip(choices, fits, predicted.T, strict=True):
            _refuse_nonsense(f"{what} of {choice.name} [{unit}]", fit, of_choice, workload)
    return predicted


def lengths(workload: Workload, cells: IntArray) -> str:
    """The first few of these cells, for a message."""
    shown = ", ".join(f"{workload.input_tokens[cell]} + {workload.output_tokens[cell]}" for cell in cells[:CELLS_NAMED])
    return f"{shown} tokens (input + output)"


def _refuse_nonsense(what: str, fit: Fit, predicted: FloatArray, workload: Workload) -> None:
    wrong = ~((predicted > 0) & np.isfinite(predicted))
    if wrong.any():
        queries = 100 * workload.count[wrong].sum() / workload.n_queries
        worst = np.flatnonzero(wrong)
        worst = worst[np.argsort(predicted[worst], kind="stable")]
        advice = (
            f"the form {fit.form} predicts nothing positive for {wrong.sum()} of {workload.n_cells} cells"
            f" ({queries:.2g} % of the queries), lowest for {lengths(workload, worst)}; fit again with"
            " another form (llmpower fit --form auto), or leave those queries out"
        )
        raise InputError(what, f"{predicted[worst[0]]:.4g}", advice)
