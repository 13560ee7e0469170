"""The optimum against one binary per query in CBC, and what must hold of every answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from llmpower.exceptions import InfeasibleError
from llmpower.routing.solving import solver
from llmpower.routing.solving.solver import GAP_LIMIT, Solution, solve

Oracle = Callable[..., float]
Limits = NDArray[np.int64]
Instance = tuple[NDArray[np.float64], Limits, Limits, Limits]


def make_instance(seed: int) -> Instance:
    """Costs with and without ties, of mixed sign and magnitude; limits exact, banded, or one-sided."""
    rng = np.random.default_rng(seed)
    n_cells, n_models = int(rng.integers(1, 12)), int(rng.integers(2, 5))
    costs = (
        rng.uniform(-1, 1, (n_cells, n_models)),
        rng.integers(-2, 3, (n_cells, n_models)).astype(float),
        rng.lognormal(-3, 3, (n_cells, n_models)),
        np.outer(rng.integers(1, 50, n_cells), -np.sort(rng.random(n_models))),
    )[seed % 4]
    count = rng.integers(1, 4, n_cells)
    feasible = rng.multinomial(count.sum(), rng.dirichlet(np.ones(n_models)))
    if seed % 3 == 0:
        return costs, count, feasible, feasible
    slack = rng.integers(0, 4, (2, n_models))
    low, high = np.maximum(feasible - slack[0], 0), np.minimum(feasible + slack[1], count.sum())
    if seed % 3 == 1:
        low[rng.integers(n_models)], high[rng.integers(n_models)] = 0, count.sum()
    return costs, count, low, high


def check(solution: Solution, instance: Instance) -> None:
    costs, count, low, high = instance
    queries = solution.assigned.sum(axis=0)
    assert (solution.assigned >= 0).all()
    assert (solution.assigned.sum(axis=1) == count).all()
    assert (low <= queries).all()
    assert (queries <= high).all()
    assert 0 <= solution.optimality_gap <= GAP_LIMIT
    # A query goes where cost plus price is least, and a price points the way its share pulls.
    charged = costs + solution.prices
    assert charged[solution.assigned > 0] == pytest.approx(
        np.broadcast_to(charged.min(axis=1, keepdims=True), costs.shape)[solution.assigned > 0], abs=1e-8
    )
    if (low < high).any():
        assert (np.where(queries < high, solution.prices, 0) <= 1e-8).all()
        assert (np.where(queries > low, solution.prices, 0) >= -1e-8).all()
    elif low.max() < count.sum():
        assert solution.prices.min() == 0


@pytest.mark.parametrize("seed", range(200))
def test_one_binary_per_query_costs_the_same(oracle: Oracle, seed: int) -> None:
    instance = costs, count, low, high = make_instance(seed)
    solution = solve(*instance)
    check(solution, instance)
    best = oracle(np.repeat(costs, count, axis=0), low, high)
    assert (solution.assigned * costs).sum() == pytest.approx(best, rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32))
def test_every_instance_has_a_proven_answer(seed: int) -> None:
    instance = make_instance(seed)
    check(solve(*instance), instance)


def relaxed(costs: NDArray[np.float64], count: Limits, low: Limits, high: Limits) -> float | None:
    """Least cost in fractions of queries, by HiGHS; ``None`` where there is no assignment."""
    n_cells, n_models = costs.shape
    loads = np.kron(np.ones((1, n_cells)), np.eye(n_models))
    result = linprog(
        np.where(np.isfinite(costs), costs, 0).ravel(),
        A_ub=np.vstack([loads, -loads]),
        b_ub=np.concatenate([high, -low]),
        A_eq=np.kron(np.eye(n_cells), np.ones((1, n_models))),
        b_eq=count,
        bounds=[(0, None if np.isfinite(cost) else 0) for cost in costs.ravel()],
    )
    return None if result.status == 2 else float(result.fun)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.floats(0, 0.8))
def test_what_is_forbidden_is_avoided_or_cannot_be(seed: int, forbidden: float) -> None:
    costs, count, low, high = make_instance(seed)
    costs[np.random.default_rng(seed).random(costs.shape) < forbidden] = np.inf
    best = relaxed(costs, count, low, high)
    if best is None:
        with pytest.raises(InfeasibleError):
            solve(costs, count, low, high)
        return
    solution = solve(costs, count, low, high)
    check(solution, (costs, count, low, high))
    taken = solution.assigned > 0
    assert (solution.assigned[taken] * costs[taken]).sum() == pytest.approx(best, rel=1e-7, abs=1e-7)


def make_trace(n_cells: int, seed: int) -> Instance:
    """Costs as forms give them: nearly collinear, so that most cells have a border close by."""
    rng = np.random.default_rng(seed)
    n_models = 5
    τin, τout = rng.lognormal(6, 1, n_cells), rng.lognormal(5, 1, n_cells)
    w = np.sort(rng.random(n_models)) + 0.1
    e = np.outer(τin, w) + 20 * np.outer(τout, w**1.3)
    costs = e / e.max() - np.outer(τin + τout, 0.4 + 0.3 * np.sqrt(w)) / (τin + τout).max()
    count = rng.geometric(0.5, n_cells)
    queries = rng.multinomial(count.sum(), rng.dirichlet(np.ones(n_models)))
    return costs, count, queries, queries


def test_samples_and_borders_lead_to_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    instance = make_trace(3000, 1)
    whole = solve(*instance)
    monkeypatch.setattr(solver, "SAMPLES", (2**6, 2**9))
    monkeypatch.setattr(solver, "LEAST_EXCHANGED", 4)
    monkeypatch.setattr(solver, "EXCHANGED_PER_MOVE", 1)
    sampled = solve(*instance)
    check(sampled, instance)
    assert (sampled.assigned * instance[0]).sum() == pytest.approx((whole.assigned * instance[0]).sum(), rel=1e-12)


def test_any_prices_to_start_from_lead_to_the_optimum() -> None:
    for seed in range(20):
        costs, count, low, high = instance = make_trace(400, seed)
        if seed % 2:
            low, high = low // 2, np.minimum(high * 2, count.sum())
        best = (solve(costs, count, low, high).assigned * costs).sum()
        start = np.random.default_rng(seed).normal(size=5) * 10.0 ** (seed % 7 - 5)
        warm = solve(costs, count, low, high, prices=start)
        check(warm, (costs, count, low, high))
        assert (warm.assigned * costs).sum() == pytest.approx(best, rel=1e-12), instance


def test_without_shares_each_cell_takes_its_cheapest_model() -> None:
    costs = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 9.0]])
    solution = solve(costs, np.array([4, 7]), np.zeros(3, int), np.full(3, 11))
    assert solution.assigned.tolist() == [[0, 4, 0], [7, 0, 0]]
    assert solution.prices.tolist() == [0, 0, 0]
    assert solution.optimality_gap == 0


def test_a_share_of_nothing_and_a_share_of_everything() -> None:
    costs, count = np.array([[1.0, 2.0], [1.0, 5.0]]), np.array([2, 3])
    assert solve(costs, count, np.array([0, 0]), np.array([0, 5])).assigned.tolist() == [[0, 2], [0, 3]]
    assert solve(costs, count, np.array([0, 5]), np.array([5, 5])).assigned.tolist() == [[0, 2], [0, 3]]


def test_prices_are_what_a_share_costs() -> None:
    # Of three queries one must go to the second model: the one that loses least by it, 0.5.
    costs = np.array([[0.0, 0.5], [0.0, 2.0], [0.0, 3.0]])
    solution = solve(costs, np.ones(3, int), np.array([0, 1]), np.array([3, 3]))
    assert solution.assigned.tolist() == [[0, 1], [1, 0], [1, 0]]
    assert solution.prices[0] == 0
    assert -2.0 <= solution.prices[1] <= -0.5


def test_no_answer_is_an_error_and_no_guess() -> None:
    with pytest.raises(InfeasibleError, match="the models that are allowed cannot meet the shares"):
        solve(np.array([[1.0, 2.0]]), np.array([3]), np.array([1, 1]), np.array([1, 1]))
    with pytest.raises(InfeasibleError, match="cell = 1: no model may take it"):
        solve(np.array([[1.0, 2.0], [np.inf, np.inf]]), np.array([3, 1]), np.array([0, 0]), np.array([4, 4]))


def test_costs_that_cancel_to_a_last_digit_are_proven() -> None:
    costs = np.array([[-5.551115123125783e-17, -0.16891891891891891, -0.04618473895582329]])
    solution = solve(costs, np.array([1]), np.array([1, 0, 0]), np.array([1, 0, 0]))
    assert (solution.assigned.tolist(), solution.optimality_gap) == ([[1, 0, 0]], 0.0)
