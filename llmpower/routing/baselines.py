"""What a plan is held against: dispatchers that do not look at the query.

``single:<model>`` sends everything to one model; ``round_robin`` the i-th query in input order to the i-th model in
turn; ``random`` each query to any model with equal chance, as an expected value and not as one draw. The
comparison that matters is ``best_blind_mix``: the cheapest way to reach the plan's accuracy by sending each query to
model K with a fixed probability, whatever its length. ``same_shares_blind`` is that mix at the plan's own shares.
"""

from __future__ import annotations

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costs import Costs, Outcome
from llmpower.routing.workload import IntArray, Workload


def baselines(costs: Costs, plan: Outcome, zeta: float) -> dict[str, Outcome]:
    """Outcome by the baseline's name, in the order above; no ``best_blind_mix`` where there are no accuracies."""
    count, n_models = costs.workload.count, len(costs.choices)

    def blind(weights: FloatArray) -> Outcome:
        return costs.outcome(np.outer(count, weights), zeta)

    found = {
        f"single:{name}": blind(weights) for name, weights in zip(costs.model_names, np.eye(n_models), strict=True)
    }
    found["round_robin"] = costs.outcome(round_robin(costs.workload, n_models), zeta)
    found["random"] = blind(np.full(n_models, 1 / n_models))
    accuracy = plan.accuracy_token_weighted if costs.weighting == "tokens" else plan.accuracy_query_mean
    if costs.accuracy is not None and accuracy is not None:
        found["best_blind_mix"] = blind(best_blind_mix(count @ costs.energy_j, costs.accuracy, accuracy))
    found["same_shares_blind"] = blind(np.array(list(plan.shares.values())))
    return found


def round_robin(workload: Workload, n_models: int) -> IntArray:
    """Queries of each cell on each model, shape (n_cells, n_models); a row of n queries takes n turns."""
    end = np.cumsum(workload.row_counts)
    start = end - workload.row_counts
    assigned = np.zeros((workload.n_cells, n_models), np.int64)
    for model in range(n_models):
        turns = (end - model + n_models - 1) // n_models - (start - model + n_models - 1) // n_models
        np.add.at(assigned[:, model], workload.row_cells, turns)
    return assigned


def best_blind_mix(energy_j: FloatArray, accuracy: FloatArray, least_accuracy: float) -> FloatArray:
    """Probabilities w (n_models,) of the mix of least energy with at least that accuracy.

        minimise Σ w_K·E_K   subject to Σ w_K·A_K ≥ A,  Σ w_K = 1,  w ≥ 0

    Two constraints, so at most two models have w > 0: all singles and pairs are looked at. ``energy_j`` (n_models,) is
    the whole workload's on each model; ``least_accuracy`` is some average of the models' own.
    """
    # Rounding may put an average above the best of what it averages.
    target = min(least_accuracy, float(accuracy.max()))
    best, least_j = np.zeros(len(accuracy)), np.inf
    for above in np.flatnonzero(accuracy >= target):
        for other in range(len(accuracy)):
            w = 1.0
            if accuracy[other] < target:
                w = (target - accuracy[other]) / (accuracy[above] - accuracy[other])
            if (mix_j := w * energy_j[above] + (1 - w) * energy_j[other]) < least_j:
                best, least_j = np.zeros(len(accuracy)), mix_j
                best[other] = 1 - w
                best[above] += w
    return best
