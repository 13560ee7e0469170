"""The optimum against one binary per query in CBC, and what must hold of every answer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmpower.exceptions import LlmpowerError
from llmpower.routing.solver import GAP_LIMIT, METHODS, Solution, solve

Oracle = Callable[..., float]
Instance = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


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


@pytest.mark.parametrize("seed", range(60))
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


@pytest.mark.parametrize("seed", range(12))
def test_both_methods_agree(seed: int) -> None:
    instance = make_instance(seed)
    first, second = (float((solve(*instance, methods=[name]).assigned * instance[0]).sum()) for name in METHODS)
    assert first == pytest.approx(second, rel=1e-9, abs=1e-12)


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
    impossible = np.array([[1.0, 2.0]]), np.array([3]), np.array([1, 1]), np.array([1, 1])
    with pytest.raises(LlmpowerError, match="could not be proven optimal: no solution from highs-ipm, highs-ds"):
        solve(*impossible)
