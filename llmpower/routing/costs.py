"""What every cell would cost on every model: the arrays that plans, baselines and frontiers are computed from.

A published form predicts negative joules for short queries and anything at all beyond the lengths it was fitted on,
and an optimiser seeks out exactly those cells. So a prediction at or below zero stops the plan, and queries outside
the fitted ranges are counted.

Scaling, over all queries and models, with the least taken as 0:

    ê = e / max e,   â = a / max a,   cost = ζ·ê − (1−ζ)·â

so ζ = 1 is energy alone and ζ = 0 accuracy alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import Fit, WorkloadModel
from llmpower.modelling.forms import FloatArray
from llmpower.routing.accuracy import WEIGHTINGS, Weighting, check_accuracy, query_accuracy
from llmpower.routing.choices import Choice, candidates, find
from llmpower.routing.workload import IntArray, Workload


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

    ``objective`` is Σ ζ·ê − (1−ζ)·â; ``energy_j`` and ``runtime_s`` are sums of what the models predict (seconds of
    all queries one after the other). ``accuracy_token_weighted`` is Σ A_K·(τin+τout) / Σ (τin+τout),
    ``accuracy_query_mean`` Σ A_K / N; both ``None`` where no accuracy was given. ``shares`` are fractions of the
    queries by model name.
    """

    objective: float
    energy_j: float
    runtime_s: float
    accuracy_token_weighted: float | None
    accuracy_query_mean: float | None
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Costs:
    """Predictions for every cell and choice, in the order of ``choices`` (by name).

    ``energy_j`` and ``runtime_s`` have shape (n_cells, n_models), ``accuracy`` (n_models,) or ``None``;
    ``extrapolated`` (n_cells,) marks cells outside the fitted range of at least one model.
    """

    choices: tuple[Choice, ...]
    workload: Workload
    energy_j: FloatArray
    runtime_s: FloatArray
    accuracy: FloatArray | None
    weighting: Weighting
    extrapolated: NDArray[np.bool_]

    @property
    def model_names(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return tuple(choice.name for choice in self.choices)

    @property
    def scaling(self) -> Scaling:
        """What ê and â are scaled by."""
        a = self._query_accuracy()
        return Scaling(float(self.energy_j.max()), None if a is None else float(a.max()))

    def per_query(self, zeta: float) -> FloatArray:
        """ζ·ê − (1−ζ)·â of one query of each cell on each model, shape (n_cells, n_models)."""
        ζ, e, a = zeta, self.energy_j, self._query_accuracy()
        ê = e / e.max()
        â = np.zeros_like(e) if a is None else a / (a.max() or 1.0)
        return np.asarray(ζ * ê - (1 - ζ) * â)

    def outcome(self, assigned: IntArray | FloatArray, zeta: float) -> Outcome:
        """What ``assigned`` (n_cells, n_models) comes to: queries of each cell on each model, fractions allowed."""
        tokens, queries = self.workload.tokens, assigned.sum(axis=0)
        token_weighted = query_mean = None
        if self.accuracy is not None:
            token_weighted = float((tokens @ assigned) @ self.accuracy / (tokens @ self.workload.count))
            query_mean = float(queries @ self.accuracy / self.workload.n_queries)
        return Outcome(
            objective=float((assigned * self.per_query(zeta)).sum()),
            energy_j=float((assigned * self.energy_j).sum()),
            runtime_s=float((assigned * self.runtime_s).sum()),
            accuracy_token_weighted=token_weighted,
            accuracy_query_mean=query_mean,
            shares=dict(zip(self.model_names, (queries / self.workload.n_queries).tolist(), strict=True)),
        )

    def _query_accuracy(self) -> FloatArray | None:
        if self.accuracy is None:
            return None
        return query_accuracy(self.accuracy, self.workload.tokens, self.weighting)


def predict_costs(
    models: Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | None,
    *,
    only: Collection[str] = (),
    weighting: Weighting = "tokens",
) -> Costs:
    """Predict the workload on the models of ``only``, or on all.

    Raises:
        InputError: no model, an unknown one in ``only`` or ``accuracy``, one without an accuracy, models that cannot
            be compared, or a prediction at or below zero.
    """
    if weighting not in WEIGHTINGS:
        raise InputError("--accuracy-weighting", weighting, f"unknown; use one of {', '.join(WEIGHTINGS)}")
    choices = candidates(models, only)
    names = [choice.name for choice in choices]
    if accuracy is not None:
        check_accuracy(accuracy)
        known = {known for choice in choices for known in (choice.name, choice.model.model_name)}
        for name in accuracy:
            if name not in known and not only:
                advice = (
                    f"has an accuracy but no fit; fit it, or name the models to use with --only: {', '.join(names)}"
                )
                raise InputError("--accuracy", name, advice)
        for choice in choices:
            if find(accuracy, choice) is None:
                advice = "has a fit but no accuracy; add its row, or leave it out by --only"
                raise InputError("--accuracy", choice.name, advice)
    tokens = (workload.input_tokens, workload.output_tokens)
    inside = [fit.inside(*tokens) for choice in choices for fit in (choice.model.energy, choice.model.runtime)]
    return Costs(
        choices=choices,
        workload=workload,
        energy_j=np.column_stack([_predict(f"energy of {c.name} [J]", c.model.energy, workload) for c in choices]),
        runtime_s=np.column_stack([_predict(f"runtime of {c.name} [s]", c.model.runtime, workload) for c in choices]),
        accuracy=None if accuracy is None else np.array([find(accuracy, choice) for choice in choices]),
        weighting=weighting,
        extrapolated=~np.logical_and.reduce(inside),
    )


def _predict(what: str, fit: Fit, workload: Workload) -> FloatArray:
    """Predictions for the workload's cells, shape (n_cells,), every one of them positive."""
    predicted = fit.predict(workload.input_tokens, workload.output_tokens)
    wrong = ~((predicted > 0) & np.isfinite(predicted))
    if wrong.any():
        example = int(np.argmax(wrong))
        queries = 100 * workload.count[wrong].sum() / workload.n_queries
        advice = (
            f"the form {fit.form} predicts nothing positive for {wrong.sum()} of {workload.n_cells} cells"
            f" ({queries:.2g} % of the queries), here for {workload.input_tokens[example]} input and"
            f" {workload.output_tokens[example]} output tokens; fit again with another form (llmpower fit --form auto),"
            " or leave those queries out"
        )
        raise InputError(what, f"{predicted[example]:.4g}", advice)
    return predicted
