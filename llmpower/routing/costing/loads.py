"""Each model's part of a plan, as it is reported and as a policy is made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.outcome import Loads


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model's part of a plan: queries, tokens, joules, seconds, and its accuracy where known.

    An accuracy that differs by class of query stands in ``accuracy_by_class``; ``accuracy`` is then the mean over the
    whole workload's queries, whoever serves them.
    """

    queries: int
    tokens: int
    energy_j: float
    runtime_s: float
    accuracy: float | None
    accuracy_by_class: Mapping[str, float]


def model_loads(costs: Costs, loads: Loads) -> list[ModelLoad]:
    """Of what a plan comes to, in the order of the choices."""
    classes, workload = costs.workload.classes, costs.workload
    accuracy: list[float | None] = [None] * len(costs.choices)
    by_class: list[dict[str, float]] = [{} for _ in costs.choices]
    if costs.accuracy is not None:
        of_class = np.bincount(workload.cell_class, workload.count, len(classes))
        accuracy = list((of_class @ costs.accuracy / workload.n_queries).tolist())
        by_class = [
            {name: float(value) for name, value in zip(classes, values, strict=True) if name}
            for values in costs.accuracy.T
        ]
    return [
        ModelLoad(*figures)
        for figures in zip(
            loads.queries.astype(np.int64).tolist(),
            loads.tokens.astype(np.int64).tolist(),
            loads.energy_j.tolist(),
            loads.runtime_s.tolist(),
            accuracy,
            by_class,
            strict=True,
        )
    ]
