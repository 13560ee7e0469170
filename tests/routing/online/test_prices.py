"""Prices of a sample, and which way shares answer to them."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.routing.online.prices import FollowingPrices, price_sample, response


@pytest.fixture(scope="module")
def costs() -> np.ndarray:
    return np.random.default_rng(5).normal([0.0, 0.3, 1.0, -0.5], size=(2000, 4))


def test_prices_of_a_sample_give_its_shares(costs: np.ndarray) -> None:
    prices = price_sample(costs, [500, 2000, 1500, 1000], [500, 2000, 1500, 1000], 5000)
    shares = np.bincount((costs + prices).argmin(axis=1), minlength=4) / 2000
    assert shares == pytest.approx([0.1, 0.4, 0.3, 0.2], abs=0.002)


def test_prices_by_the_response_move_shares_as_asked(costs: np.ndarray) -> None:
    """A step of Newton's method: from one division's prices towards those of another one nearby."""
    at = [500, 2000, 1500, 1000]
    prices = price_sample(costs, at, at, 5000)
    step = np.array([0.02, -0.03, 0.02, -0.01])
    moved = prices - response(costs, prices, {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}) @ step
    before, after = (np.bincount((costs + p).argmin(axis=1), minlength=4) / 2000 for p in (prices, moved))
    assert np.sign(after - before).tolist() == np.sign(step).tolist()
    # A share that the sample could meet with a smaller step is overshot by no more than doubt makes of it.
    assert after - before == pytest.approx(step, abs=0.04)


def test_a_period_begins_at_the_mean_of_the_prices_before() -> None:
    prices = FollowingPrices([0.0, 1.0])
    prices.begin_at_mean()
    assert prices.now == [0.0, 1.0], "nothing has been followed yet"
    prices.begin([0.0, 1.0], [[1.0, 0.0], [0.0, 2.0]])
    followed = []
    for deviation in (3.0, -1.0):
        prices.follow([deviation, deviation], 10, 10)
        followed.append(prices.now)
    prices.begin_at_mean()
    assert prices.now == prices.base == pytest.approx(np.mean(followed, axis=0).tolist())
    assert (prices.sum, prices.followed) == ([0.0, 0.0], 0)


def test_models_without_a_share_keep_their_price(costs: np.ndarray) -> None:
    found = response(costs, np.zeros(4), {1: 0.5, 3: 0.2})
    assert (found[[0, 2]] == 0).all()
    assert (found[:, [0, 2]] == 0).all()
    assert (np.diag(found)[[1, 3]] > 0).all()
    assert not response(costs, np.zeros(4), {}).any()


def test_twins_and_loners_break_nothing() -> None:
    twins = np.repeat(np.random.default_rng(1).normal(size=(300, 1)), 3, axis=1)
    assert np.isfinite(response(twins, np.zeros(3), {0: 0.2, 1: 0.3, 2: 0.5})).all()
    assert np.isfinite(response(np.zeros((300, 2)), np.zeros(2), {0: 0.0, 1: 1.0})).all()
    assert response(twins[:, :1], np.zeros(1), {0: 1.0}).tolist() == [[0.0]]
