from __future__ import annotations

import numpy as np
import pytest
from devices import SECOND, make_span
from numpy.typing import NDArray

from llmpower.attribution.shares.costs import ALL_OTHERS, MAX_MODELS, PROPORTIONS, SOLVE_SHARE, Costs, Observed
from llmpower.attribution.shares.weights import FEATURES

TRUE_J = np.array([0.03, 2e-6, 3.5, 0.05, 3e-5])


def work(chance: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Rates of prompt tokens, attention, steps, decoded tokens and context as they come about in a server."""
    prompt = np.where(chance.random(count) < 0.4, chance.uniform(500, 6000, count), 0.0)
    steps, batch = chance.uniform(20, 100, count), chance.uniform(1, 30, count)
    columns = (prompt, prompt * chance.uniform(50, 2000, count), steps, steps * batch)
    return np.stack((*columns, steps * batch * chance.uniform(50, 3000, count)), axis=1)


def observed(done: NDArray[np.float64], true_j: NDArray[np.float64], noise: NDArray[np.float64]) -> Observed:
    duration_s = np.full(len(done), 0.1)
    return Observed(duration_s, duration_s, 0.1 * (done @ true_j) * (1 + noise), done)


def slot_of(costs: Costs, name: str) -> int:
    return int(costs.slots([make_span("a", 0, SECOND, model_name=name)])[0])


def test_it_finds_what_the_work_costs_and_how_sure_that_is() -> None:
    inside, deviations = [], []
    for seed in range(12):
        chance, costs = np.random.default_rng(seed), Costs()
        slot_of(costs, "m")
        for _ in range(60):
            costs.learn(observed(work(chance, 10), TRUE_J, chance.normal(0, 0.03, 10)), None)
        (found,) = costs.work
        energy_j, std_j = np.array([*found.energy_j.values()]), np.array([*found.std_j.values()])
        assert energy_j[[0, 2, 3, 4]] == pytest.approx(TRUE_J[[0, 2, 3, 4]], rel=0.25)
        inside.append(np.abs(energy_j - TRUE_J) <= 1.96 * std_j)
        deviations.append(std_j / TRUE_J)
        assert 600 / (1 + SOLVE_SHARE) - 1 <= found.observations <= 600
        assert 0.01 < found.misfit < 0.1
    assert np.mean(inside) > 0.9
    assert np.median(deviations) < 0.2


def test_before_anything_is_seen_the_proportions_are_usual_ones_and_unsure() -> None:
    costs = Costs()
    slot = slot_of(costs, "m")
    own = slice(slot * len(FEATURES), (slot + 1) * len(FEATURES))
    assert costs.beta[own] / costs.beta[own][0] == pytest.approx(PROPORTIONS)
    assert (np.sqrt(np.diag(costs.covariance))[own] >= costs.beta[own]).all()
    assert costs.work == ()


def test_a_coefficient_that_nothing_has_moved_stays_unsure() -> None:
    chance, costs = np.random.default_rng(1), Costs()
    slot_of(costs, "m")
    done = work(chance, 300)
    done[:, :2] = 0.0  # no prompt was ever seen
    costs.learn(observed(done, TRUE_J, chance.normal(0, 0.02, 300)), None)
    (found,) = costs.work
    assert found.std_j["prompt"] >= 0.9 * found.energy_j["prompt"]
    assert found.std_j["decode"] < 0.5 * found.energy_j["decode"]


def test_what_was_idle_is_taken_off_and_where_idle_is_unknown_it_is_left_out() -> None:
    done = np.tile([[0.0, 0.0, 50.0, 50.0, 0.0]], (40, 1))
    energy_j = np.full(40, 0.1 * (50 * 3.0) * 0.6 + 0.04 * 60)
    seen = Observed(np.full(40, 0.1), np.full(40, 0.06), energy_j, 0.6 * done)
    knowing, unknowing = Costs(), Costs()
    for costs, idle_w in ((knowing, 60.0), (unknowing, None)):
        slot_of(costs, "m")
        costs.learn(seen, idle_w)
    (found,) = knowing.work
    assert found.energy_j["step"] + found.energy_j["decode"] == pytest.approx(3.0, rel=0.05)
    assert unknowing.work == ()


def test_old_evidence_fades() -> None:
    chance, costs = np.random.default_rng(2), Costs()
    slot_of(costs, "m")
    for true_j in (TRUE_J, 2 * TRUE_J):
        for _ in range(400):
            costs.learn(observed(work(chance, 100), true_j, chance.normal(0, 0.02, 100)), None)
    (found,) = costs.work
    assert found.energy_j["decode"] == pytest.approx(2 * TRUE_J[3], rel=0.1)


def test_an_observation_that_is_far_off_moves_little() -> None:
    chance, costs, others = np.random.default_rng(6), Costs(), Costs()
    for each in (costs, others):
        slot_of(each, "m")
    for _ in range(60):
        seen = observed(work(chance, 10), TRUE_J, chance.normal(0, 0.02, 10))
        for each in (costs, others):
            each.learn(seen, None)
    strange = work(chance, 10)
    costs.learn(observed(strange, 20 * TRUE_J, np.zeros(10)), None)
    others.learn(observed(strange, TRUE_J, np.zeros(10)), None)
    for each in (costs, others):
        each._solve()
    assert costs.beta == pytest.approx(others.beta, rel=0.3)


def test_models_beside_each_other_are_told_apart() -> None:
    chance, costs = np.random.default_rng(3), Costs()
    assert [slot_of(costs, name) for name in "ab"] == [0, 1]
    for _ in range(50):
        done = np.concatenate((work(chance, 10), work(chance, 10)), axis=1)
        done[chance.random(10) < 0.3, :5] = 0.0
        costs.learn(observed(done, np.concatenate((TRUE_J, 5 * TRUE_J)), chance.normal(0, 0.02, 10)), None)
    small, large = costs.work
    assert (small.model_name, large.model_name) == ("a", "b")
    for feature in ("prompt", "step", "decode"):
        assert large.energy_j[feature] / small.energy_j[feature] == pytest.approx(5, rel=0.4)


def test_more_models_than_there_is_room_for_share_coefficients_until_one_has_been_away_for_long() -> None:
    chance, costs = np.random.default_rng(4), Costs()
    names = "abcdefg"
    slots = [slot_of(costs, name) for name in names]
    assert slots == [0, 1, 2, *[MAX_MODELS - 1] * 4]
    assert [slot_of(costs, name) for name in names] == slots
    done = np.zeros((6500, 5 * MAX_MODELS))
    done[:, -5:] = work(chance, 6500)
    costs.learn(observed(done, np.tile(TRUE_J, MAX_MODELS), np.zeros(6500)), None)
    assert [found.model_name for found in costs.work] == [ALL_OTHERS]
    assert slot_of(costs, "g") == 0  # of a model that has not run for ten minutes of others' work


def test_a_model_in_the_place_of_another_does_not_begin_with_its_coefficients() -> None:
    chance, costs = np.random.default_rng(4), Costs()
    for name in "abc":
        slot_of(costs, name)
    for slot in (0, 1):  # each for more than ten minutes, the second without the first
        done = np.zeros((6500, 10))
        done[:, 5 * slot : 5 * slot + 5] = work(chance, 6500)
        costs.learn(observed(done, np.tile(TRUE_J, 2), np.zeros(6500)), None)
    assert slot_of(costs, "d") == 0
    ratios = costs.beta[:5] / PROPORTIONS
    assert ratios == pytest.approx(ratios[0])


def test_a_spread_among_requests_is_found_where_they_share() -> None:
    chance, found = np.random.default_rng(5), []
    for spread in (0.05, 0.4):
        costs = Costs()
        slot_of(costs, "m")
        for _ in range(300):
            done = work(chance, 10)
            # Eight requests of equal shares, each of its own cost.
            factors = 1 + spread * chance.normal(size=(10, 8)).mean(axis=1)
            seen = observed(done, TRUE_J, factors - 1)
            costs.learn(seen, None)
            costs.judge(seen, seen.energy_j, seen.energy_j / 8)
        found.append(costs.spread)
        assert costs.residual_j == pytest.approx(
            spread / np.sqrt(8) * np.sqrt(2 / np.pi) * 3000 * np.mean(0.1 * (work(chance, 999) @ TRUE_J)), rel=0.25
        )
    assert found == pytest.approx([0.05, 0.4], rel=0.3)


def test_a_spread_that_requests_no_longer_have_fades() -> None:
    chance, costs = np.random.default_rng(5), Costs()
    slot_of(costs, "m")
    for spread in (0.4, 0.05):
        for _ in range(300):
            factors = 1 + spread * chance.normal(size=(100, 8)).mean(axis=1)
            seen = observed(work(chance, 100), TRUE_J, factors - 1)
            costs.learn(seen, None)
            costs.judge(seen, seen.energy_j, seen.energy_j / 8)
    # 3000 s later hardly a hundredth of the earlier squares is left.
    assert costs.spread == pytest.approx(0.05, rel=0.5)
