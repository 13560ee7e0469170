"""What a plan is compared with: dispatchers that do not look at the query, and one that looks at one of its lengths.

``single:<model>`` sends everything to one model; ``round_robin`` the i-th query in input order to the i-th model in
turn; ``random`` each query to any model with equal chance, as an expected value and not as one draw. The comparison
that matters is ``best_blind_mix``: the cheapest way to reach the plan's accuracy by sending each query to model K with
a fixed probability, whatever its length. ``same_shares_blind`` is that mix at the plan's own shares.
``hybrid_threshold`` is :mod:`~llmpower.routing.plans.thresholds`' best rule at the plan's ζ; like the singles it knows
no shares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.outcome import Loads, Outcome
from llmpower.routing.pointers import Choices
from llmpower.routing.problem import row_kernels
from llmpower.routing.problem.workload import IntArray, Workload

# What 16 bits count.
TURNS_END = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class Baselines:
    """``outcomes`` by name, in the order above; and the mix's probabilities by choice, where there is one."""

    outcomes: dict[str, Outcome]
    best_blind_mix: FloatArray | None


def baselines(
    costs: Costs, plan: Outcome, zeta: float, everything: Loads, turns: Loads, threshold: Loads | None = None
) -> Baselines:
    """All of them, from the loads with everything on each choice, in turns, and by the best threshold, if there is one.

    There is no ``best_blind_mix`` where there are no accuracies.
    """
    n_models = len(costs.choices)

    def blind(weights: FloatArray) -> Outcome:
        return costs.summed(everything.weighted(weights), zeta)

    found = {
        f"single:{name}": blind(weights) for name, weights in zip(costs.model_names, np.eye(n_models), strict=True)
    }
    found["round_robin"] = costs.summed(turns, zeta)
    found["random"] = blind(np.full(n_models, 1 / n_models))
    accuracy = plan.accuracy_token_weighted if costs.weighting == "tokens" else plan.accuracy_query_mean
    mix = None
    if accuracy is not None:
        of_single = np.array([_accuracy(found[f"single:{name}"], costs) for name in costs.model_names])
        charges = costs.charges_j if costs.unloadable else None
        mix = best_blind_mix(costs.weighed_loads(everything), of_single, accuracy, charges)
        found["best_blind_mix"] = blind(mix)
    found["same_shares_blind"] = blind(np.array(list(plan.shares.values())))
    if threshold is not None:
        found["hybrid_threshold"] = costs.summed(threshold, zeta)
    return Baselines(found, mix)


def _accuracy(outcome: Outcome, costs: Costs) -> float:
    """The mean that is pursued."""
    pursued = outcome.accuracy_token_weighted if costs.weighting == "tokens" else outcome.accuracy_query_mean
    assert pursued is not None
    return pursued


def round_robin(workload: Workload, n_models: int) -> IntArray | Choices:
    """Queries of each cell on each model, shape (n_cells, n_models); a row of n queries takes n turns."""
    n_cells = workload.n_cells
    if workload.n_queries == len(workload.row_cells) and workload.count.max() < TURNS_END:
        return row_kernels.turns(workload.row_cells, n_cells, n_models)
    rounds, rest = np.divmod(workload.row_counts, n_models)
    # Whole rounds are as many turns for each; what is left of a row goes to the next models in turn.
    assigned = np.zeros((n_cells, n_models), np.int64)
    if rounds.any():
        assigned += np.bincount(workload.row_cells, rounds, n_cells).astype(np.int64)[:, np.newaxis]
    turn = (np.cumsum(workload.row_counts) - workload.row_counts) % n_models
    for step in range(int(rest.max())):
        rows = slice(None) if (rest > step).all() else rest > step
        places = workload.row_cells[rows].astype(np.int64) * n_models + (turn[rows] + step) % n_models
        assigned += np.bincount(places, minlength=assigned.size).reshape(assigned.shape)
    return assigned


def best_blind_mix(
    energy_j: FloatArray, accuracy: FloatArray, least_accuracy: float, charges: FloatArray | None = None
) -> FloatArray:
    """Probabilities w (n_models,) of the mix of least energy with at least that accuracy.

        minimise Σ w_K·E_K   subject to Σ w_K·A_K ≥ A,  Σ w_K = 1,  w ≥ 0

    Two constraints, so at most two models have w > 0: all singles and pairs are looked at. ``energy_j`` (n_models,) is
    the whole workload's on each model; ``least_accuracy`` is some average of the models' own. ``charges`` (n_models,)
    are paid for each model with w > 0.
    """
    charges = np.zeros_like(energy_j) if charges is None else charges
    # Rounding may put an average above the best of what it averages.
    target = min(least_accuracy, float(accuracy.max()))
    best, least_j = np.zeros(len(accuracy)), np.inf
    for above in np.flatnonzero(accuracy >= target):
        for other in range(len(accuracy)):
            w = 1.0
            if accuracy[other] < target:
                w = (target - accuracy[other]) / (accuracy[above] - accuracy[other])
            mix_j = w * energy_j[above] + (1 - w) * energy_j[other]
            mix_j += (charges[above] if w > 0 else 0) + (charges[other] if w < 1 and other != above else 0)
            if mix_j < least_j:
                best, least_j = np.zeros(len(accuracy)), mix_j
                best[other] = 1 - w
                best[above] += w
    return best
