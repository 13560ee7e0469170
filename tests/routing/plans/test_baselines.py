"""Baselines by hand, and the blind mix against a linear program."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, route
from llmpower.routing.plans.baselines import best_blind_mix, round_robin

Models = list[WorkloadModel]


def test_round_robin_follows_the_rows() -> None:
    workload = Workload.from_tokens([5, 1, 5, 1, 5], [1, 1, 1, 1, 1])
    assert round_robin(workload, 2).tolist() == [[0, 2], [3, 0]]
    # More queries of one length than 16 bits count.
    assert round_robin(Workload.from_tokens(np.full(140_001, 5), np.ones(140_001, int)), 2).tolist() == [
        [70_001, 70_000]
    ]
    # A row of several queries takes as many turns: rows are queries 0–3, 4 and 5–7.
    workload = Workload.from_tokens([5, 1, 5], [1, 1, 1], [4, 1, 3])
    assert round_robin(workload, 3).tolist() == [[0, 1, 0], [3, 2, 2]]


@pytest.mark.parametrize("seed", range(30))
def test_best_blind_mix_is_the_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_models = int(rng.integers(1, 6))
    energy_j, accuracy = rng.lognormal(size=n_models), rng.choice([0.4, 0.5, 0.6, 0.7], n_models)
    least = float(rng.dirichlet(np.ones(n_models)) @ accuracy)
    weights = best_blind_mix(energy_j, accuracy, least)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    assert weights @ accuracy >= least - 1e-12
    best = linprog(energy_j, A_ub=[-accuracy], b_ub=[1e-12 - least], A_eq=[np.ones(n_models)], b_eq=[1])
    assert weights @ energy_j == pytest.approx(best.fun, rel=1e-7)


def test_best_blind_mix_at_an_accuracy_that_rounding_put_above_every_model() -> None:
    assert best_blind_mix(np.array([1.0, 2.0]), np.array([0.5, 0.7]), 0.7 + 1e-16).tolist() == [0, 1]


def test_each_baseline_is_what_it_says(models: Models, accuracy: dict[str, float]) -> None:
    workload = Workload.from_tokens([10, 1000, 10], [500, 20, 500])
    plan = route(models, workload, accuracy, zeta=0.6)
    assert list(plan.baselines) == [
        *("single:large", "single:medium", "single:small"),
        *("round_robin", "random", "best_blind_mix", "same_shares_blind", "hybrid_threshold"),
    ]
    singles = [route(models, workload, accuracy, zeta=0.6, only=[name]) for name in plan.model_names]
    for single in singles:
        baseline = plan.baselines[f"single:{single.model_names[0]}"]
        assert baseline.energy_j == pytest.approx(single.energy_j)
        assert baseline.runtime_s == pytest.approx(single.runtime_s)
        assert baseline.accuracy_token_weighted == pytest.approx(accuracy[single.model_names[0]])
    assert plan.baselines["random"].energy_j == pytest.approx(np.mean([single.energy_j for single in singles]))
    assert plan.baselines["random"].accuracy_query_mean == pytest.approx(0.6)
    assert plan.baselines["round_robin"].shares == pytest.approx(dict.fromkeys(plan.model_names, 1 / 3))
    assert plan.baselines["same_shares_blind"].shares == pytest.approx(plan.shares)
    mix = plan.baselines["best_blind_mix"]
    assert mix.accuracy_token_weighted >= plan.accuracy_token_weighted - 1e-12
    assert mix.energy_j >= plan.energy_j * (1 - 1e-12)
    assert all(baseline.objective >= plan.objective - 1e-12 for baseline in plan.baselines.values())


def test_without_accuracies_there_is_no_equal_accuracy(models: Models) -> None:
    plan = route(models, Workload.from_tokens([10], [10]), zeta=1)
    assert "best_blind_mix" not in plan.baselines
    assert plan.baselines["random"].accuracy_query_mean is None
