"""Intervals of energy and savings against what drawn coefficients show, and how often a plan would be another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling import WorkloadModel, fit
from llmpower.routing import Workload, route

Models = list[WorkloadModel]
rng = np.random.default_rng(3)
WORKLOAD = Workload.from_tokens(rng.integers(8, 2000, 400), rng.integers(8, 900, 400))
ACCURACY = {"small": 0.5, "large": 0.6}


def measured(noise: float, factor: float = 2.0) -> Models:
    """Two servers, one ``factor`` times as expensive, with measurements that scatter."""
    scatter = np.random.default_rng(1)
    rows = [
        (name, τin, τout, (5 + p1 * τin + d0 * τout) * scatter.normal(1, noise), (p1 * τin + d0 * τout) / 300)
        for name, p1, d0 in (("small", 0.1, 4.0), ("large", 0.1 * factor, 4.0 * factor))
        for τin in (8, 64, 512, 2048)
        for τout in (8, 64, 512, 1024)
        for _ in range(2)
    ]
    columns = ["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"]
    return fit(pd.DataFrame(rows, columns=columns), form="cached")


def drawn_energy(models: Models, plan_assigned: np.ndarray, draws: int) -> np.ndarray:
    """The plan's energy under coefficients drawn from each model's covariance."""
    by_name = sorted(models, key=lambda model: model.model_name)
    generator = np.random.default_rng(0)
    total = np.zeros(draws)
    for column, model in enumerate(by_name):
        energy = model.energy
        w = generator.multivariate_normal(energy.coefficients, np.nan_to_num(energy.covariance), draws)
        design = energy._form().design(WORKLOAD.input_tokens, WORKLOAD.output_tokens)
        total += w @ (plan_assigned[:, column] @ design)
    return total


def test_the_interval_is_what_drawn_coefficients_show() -> None:
    models = measured(0.1)
    plan = route(models, WORKLOAD, ACCURACY, zeta=0.3)
    assert len({name for name, load in plan.models.items() if load.queries}) == 2
    energies = drawn_energy(models, plan.assigned, 40_000)
    assert plan.energy.value_j == pytest.approx(plan.energy_j)
    assert plan.energy.std_j == pytest.approx(energies.std(), rel=0.02)
    assert plan.energy.low_j < energies.mean() - 1.95 * energies.std()
    assert plan.energy.high_j > energies.mean() + 1.95 * energies.std()
    document = plan.to_json()
    assert document["energy_low_j"] < document["energy_j"] < document["energy_high_j"]


def test_a_saving_is_known_better_than_the_energies() -> None:
    models = measured(0.1)
    plan = route(models, WORKLOAD, ACCURACY, zeta=0.3)
    mix = plan.baselines["best_blind_mix"]
    assert plan.saving.against == "best_blind_mix"
    assert plan.saving.energy_j == pytest.approx(mix.energy_j - plan.energy_j)
    assert plan.saving.fraction == pytest.approx(1 - plan.energy_j / mix.energy_j)
    assert plan.saving.interval.value_j == pytest.approx(plan.saving.energy_j)
    weights = np.array([mix.shares[name] for name in plan.model_names])
    both = drawn_energy(models, np.outer(WORKLOAD.count, weights) - plan.assigned, 40_000)
    assert plan.saving.interval.std_j == pytest.approx(both.std(), rel=0.02)


def test_a_saving_inside_the_noise_is_called_so() -> None:
    # Two models that cost nearly the same: which one is cheaper for what, only the scatter says.
    noisy = route(measured(0.3, factor=1.01), WORKLOAD, {"small": 0.5, "large": 0.5}, zeta=0.5)
    assert noisy.saving.energy_j > 0
    assert noisy.saving.inside_noise is True
    precise = route(measured(0.01, factor=4.0), WORKLOAD, ACCURACY, zeta=0.3)
    assert precise.saving.inside_noise is False


def test_the_plan_that_is_the_mix_saves_nothing_and_is_not_noise() -> None:
    plan = route(measured(0.1), WORKLOAD, ACCURACY, zeta=0)
    assert plan.saving.energy_j == pytest.approx(0, abs=1e-6)
    assert plan.saving.inside_noise is False


def test_no_degree_of_freedom_is_no_interval() -> None:
    models = measured(0.1)
    exact = [replace(model, energy=replace(model.energy, n_obs=2, n_cells=2)) for model in models]
    plan = route(exact, WORKLOAD, ACCURACY, zeta=0.3)
    assert (plan.energy, plan.saving.interval, plan.saving.inside_noise) == (None, None, None)
    assert plan.to_json()["energy_std_j"] is None


def test_without_accuracies_the_saving_is_against_the_cheapest_model() -> None:
    plan = route(measured(0.05), WORKLOAD, zeta=1)
    assert plan.saving.against == "single:small"
    assert plan.saving.energy_j >= -1e-6


def test_the_bootstrap_moves_more_queries_the_noisier_the_models() -> None:
    plans = [
        route(measured(noise), WORKLOAD, ACCURACY, zeta=0.2, shares={"large": 0.4}, draws=12)
        for noise in (1e-6, 0.05, 0.3)
    ]
    moved = [plan.bootstrap.reassigned_share for plan in plans]
    assert moved[0] < moved[1] < moved[2] < 0.5
    assert moved[0] < 1e-3
    assert all(plan.bootstrap.reassigned_share <= plan.bootstrap.reassigned_share_p95 for plan in plans)
    assert all(0 <= plan.bootstrap.regret < 0.2 for plan in plans)
    again = route(measured(0.3), WORKLOAD, ACCURACY, zeta=0.2, shares={"large": 0.4}, draws=12)
    assert again.bootstrap == plans[2].bootstrap


def test_a_large_workload_is_represented(monkeypatch: pytest.MonkeyPatch) -> None:
    models = measured(0.1)
    whole = route(models, WORKLOAD, ACCURACY, zeta=0.3, draws=20)
    monkeypatch.setattr("llmpower.routing.plans.bootstrap.QUERIES", 100)
    part = route(models, WORKLOAD, ACCURACY, zeta=0.3, draws=20)
    assert part.bootstrap.reassigned_share == pytest.approx(whole.bootstrap.reassigned_share, abs=0.05)
    shared = route(models, WORKLOAD, ACCURACY, zeta=0.3, shares={"small": 1 / 3, "large": 2 / 3}, draws=3)
    assert 0 <= shared.bootstrap.reassigned_share < 0.5


def test_plans_of_any_number_of_queries_are_drawn_alike() -> None:
    generator = np.random.default_rng(8)
    lengths = generator.integers(8, 900, (2, 6000))
    few, many = (
        route(measured(0.3, 1.1), Workload.from_tokens(*lengths, np.full(6000, n)), ACCURACY, zeta=0.3, shares=shares)
        for n, shares in ((1, {"large": 0.4}), (10**12, {"large": 0.4}))
    )
    assert few.bootstrap.reassigned_share > 0.01
    assert many.bootstrap == few.bootstrap


def test_where_energy_counts_for_nothing_no_measurement_moves_a_query() -> None:
    small, large = measured(0.3, 1.1)
    models = [replace(model, model_name=name) for name, model in (("a", small), ("b", large), ("c", small))]
    # Queries of as many tokens tie, and which of them go where is arbitrary: not what measurements would change.
    lengths = np.random.default_rng(2).integers(5, 60, (2, 40))
    shares = {"a": 0.2, "b": 0.75, "c": 0.05}
    plan = route(models, Workload.from_tokens(*lengths), {"a": 0.56, "b": 0.65, "c": 0.51}, zeta=0, shares=shares)
    assert plan.bootstrap.reassigned_share_p95 == 0
