"""The benchmark of allocation: that its truth is one, and that a small run of it says what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from allocation.engine import WORKLOADS, play
from allocation.laws import LAWS, Law, Members, energy_and_time, exact_values, true_costs
from allocation.replay import Card, settle
from allocation.rules import shared
from hypothesis import given, settings
from hypothesis import strategies as st


def some_step(seed: int, count: int) -> Members:
    chance = np.random.default_rng(seed)
    own_j, memory_s, compute_s = chance.uniform(0, (2.0, 0.004, 0.02), (count, 3)).T
    return Members(own_j, memory_s, compute_s, chance.integers(1, 600, count).astype(float))


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@given(seed=st.integers(0, 1000), count=st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_a_step_costs_its_requests_their_shapley_values(law: Law, seed: int, count: int) -> None:
    step = some_step(seed, count)
    (energy_j,), _ = energy_and_time(law, step)
    exact_j, chance = exact_values(law, step), np.random.default_rng(seed)
    drawn_j = np.array([true_costs(law, step, chance) for _ in range(1 if law.closed else 100)])
    assert exact_j.sum() == pytest.approx(energy_j)
    assert drawn_j.sum(axis=1) == pytest.approx(energy_j)
    # Drawn orders scatter around it, so that the mean of many comes near; where there is a closed form it is the same.
    assert np.abs(drawn_j.mean(axis=0) - exact_j).mean() <= (1e-9 if law.closed else 0.05) * exact_j.mean()


@pytest.mark.parametrize("law", [LAWS[0], LAWS[3], LAWS[7], LAWS[8]], ids=lambda law: law.name)
def test_what_requests_truly_cost_is_what_the_card_used(law: Law) -> None:
    played = play(law, WORKLOADS[1], 4, 4.0, seed=5)
    true_j = sum(request.true_j for request in played.requests)
    assert true_j == pytest.approx(sum(played.energy_j))
    card = Card.of(played, idle_w=60.0)
    idle_s = card.moments_s[-1] - sum(played.time_s)
    assert card.energies_j[-1] == pytest.approx(true_j + 60.0 * idle_s)
    for request in played.requests:
        assert request.arrival_s <= request.start_s < request.token_s <= request.end_s
        assert (request.prompt, request.decoded) == (request.inputs, request.outputs)
    for name, shares_j in shared(played, 60.0).items():
        assert shares_j.sum() == pytest.approx(true_j), name


def test_a_small_run_meets_the_bars_and_covers_the_truth() -> None:
    covered, errors, best = [], [], []
    for seed, law in enumerate((LAWS[1], replace(LAWS[3], noise=0.02))):
        played = play(law, WORKLOADS[0], 12, 18.0, seed)
        true_j = np.array([request.true_j for request in played.requests])
        joules, ledger = settle(played, 80.0, seed)
        energy_j = np.array([each.gpu_energy_j for each in joules])
        std_j = np.array([each.gpu_energy_std_j for each in joules])
        assert energy_j.sum() == pytest.approx(ledger.totals["GPU-0"].inference_j, abs=1e-6)
        others = {name: np.abs(each - true_j).sum() for name, each in shared(played, 80.0).items()}
        errors.append(np.abs(energy_j - true_j).sum())
        best.append(min(others[name] for name in ("equal", "tokens", "time overlap")))
        covered += (np.abs(energy_j - true_j) <= 1.96 * std_j).tolist()
        assert any(each.allocated for each in joules)
    assert sum(errors) <= sum(best) / 3
    assert np.mean(covered) > 0.9
