"""Prices from a sample of queries, and how shares answer to them.

The optimum of a plan sends a query to argmin_K (c_K + λ_K), so a router needs the prices λ of queries that have not
come yet. It takes those of queries that have (:func:`price_sample`, an exact plan for them), and corrects them as it
goes. A step of gradient ascent on the dual adds η·(x_K − γ_K) after each query: models that get more than their share
become more expensive. Summed up, that makes a price proportional to the queries d_K by which a model is ahead of its
line,

    λ = λ₀ + (κ / h)·R·d,    R = (−∂s/∂λ)⁺,    h = the queries left in the period

and the matrix R makes it Newton's method rather than the gradient's: some models differ by so little that a tiny price
moves every query from one to the other, others by so much that nothing moves for ten times that. h says that a
deviation is to be worked off over what is left: gently at first, when it may be a wave that will pass, and completely
at the end.

A sample says little about how far its own prices are from those to come: what lies beyond its ties it has not seen. On
the Azure conversations the prices of the first fifth were off by 0.2 to 0.35 of the typical difference of cost between
models, whatever ζ. So R lets the price of a model that gets nothing of its share fall by ρ such differences at
the least: its diagonal is not below ρ·σ_c/γ_K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add, mul

import numpy as np

from llmpower.exceptions import InfeasibleError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.solving.solver import solve

GAIN = 1.0
"""κ. 1 works a deviation off if the future is the sample; up to 2 does as well on the Azure conversations."""

DOUBT = 0.7
"""ρ, twice the largest of those. 0.3 to 0.7 differ by less than a percent there, but for one case in ten."""

REGULARISATION = 1e-3
"""Of the mean of −∂s/∂λ's diagonal, added to it: prices of models that nobody is near to moving to stay bounded."""

LEAST_SHARE = 1e-3

# Deviations are never worked off over less than this part of the period: the limits themselves see to its end.
LEAST_HORIZON = 1 / 64


class FollowingPrices:
    """λ of a router, by model's number in ``now``: λ₀ and R as they were last solved for, moved by the deviations.

    Not thread-safe, its router is.
    """

    def __init__(self, base: Sequence[float]) -> None:
        # Until a sample says how shares answer to prices, prices stay as the plan had them, and the quotas are kept by
        # closing models alone.
        self.begin(list(base), [[0.0] * len(base) for _ in base])

    def begin(self, base: list[float], answer: list[list[float]]) -> None:
        """From λ₀ (n_models,) and R (n_models, n_models)."""
        self.base, self.response, self.now = base, answer, base.copy()
        self.sum, self.followed = [0.0] * len(base), 0

    def begin_at_mean(self) -> None:
        """The mean of a gradient method's iterates is its best estimate: prices of the next period begin there."""
        if self.followed:
            self.begin([total / self.followed for total in self.sum], self.response)

    def follow(self, deviations: Sequence[float], remaining: int, period: int) -> None:
        """λ = λ₀ + κ/h·R·d for d queries ahead (n_models,), with ``remaining`` queries of a period to come."""
        scale = GAIN / max(remaining, LEAST_HORIZON * period)
        self.now = [
            λ0 + scale * sum(map(mul, row, deviations)) for λ0, row in zip(self.base, self.response, strict=True)
        ]
        self.sum = list(map(add, self.sum, self.now))
        self.followed += 1


def price_sample(costs: FloatArray, low: Sequence[int], high: Sequence[int], period: int) -> FloatArray:
    """λ₀ (n_models,): the prices of an optimal plan for a sample, ``costs`` (n_queries, n_models).

    ``low`` and ``high`` (n_models,) are the limits of ``period`` queries; the sample gets as much of them as it is
    long, rounded so that it can have them. Costs are infinite where a query may not go; should the sample not be
    able to keep the limits then, no price is known and all are 0.
    """
    n = len(costs)
    count = np.ones(n, np.int64)
    scaled_low = np.floor(np.asarray(low) * (n / period) + 1e-9).astype(np.int64)
    scaled_high = np.ceil(np.asarray(high) * (n / period) - 1e-9).astype(np.int64)
    try:
        return solve(costs, count, scaled_low, np.minimum(scaled_high, n)).prices
    except InfeasibleError:
        return np.zeros(costs.shape[1])


def response(costs: FloatArray, prices: FloatArray, shares: Mapping[int, float]) -> FloatArray:
    """R (n_models, n_models): how much prices move for a query more or less, for a sample of ``costs``.

    ``shares`` are γ of the models that have one, by number; the others' prices are 0 and stay there.
    """
    bound, γ = list(shares), np.array(list(shares.values()))
    n_models = costs.shape[1]
    found = np.zeros((n_models, n_models))
    charged = costs + prices
    slope = _slope(charged)[np.ix_(bound, bound)]
    if not slope.any():
        return found
    slope += REGULARISATION * float(np.trace(slope)) / len(bound) * np.eye(len(bound))
    finite = np.isfinite(costs)
    of_query = costs.mean(axis=1, keepdims=True, where=finite)
    σ_c = float(np.std(np.where(finite, costs, of_query) - of_query, where=finite))
    R = np.linalg.inv(slope)
    if len(bound) == n_models:
        # Prices that all rise by the same move nothing: the inverse's part along them means nothing either.
        R -= R.mean(axis=0, keepdims=True)
    R += np.diag(np.maximum(DOUBT * σ_c / np.maximum(γ, LEAST_SHARE) - np.diag(R), 0))
    found[np.ix_(bound, bound)] = R
    return found


def _slope(charged: FloatArray) -> FloatArray:
    """−∂s/∂λ (n_models, n_models), symmetric, rows of sum 0; ``charged`` are costs with prices (n_queries, n_models).

    Between K and L share moves with the density of queries at their tie. It is taken as a secant: over as many of the
    queries nearest to the tie, of those that have K and L as best and second, as the smaller of the two models has,
    or all of them where it has none.
    """
    n_queries, n_models = charged.shape
    if n_models == 1:
        return np.zeros((1, 1))
    best, second = np.argsort(charged, axis=1, kind="stable")[:, :2].T
    rows = np.arange(n_queries)
    margin = charged[rows, second] - charged[rows, best]
    # Models that cost the same are told apart by nothing, and no price is as small as their margin.
    finite = np.isfinite(charged)
    least = 1e-9 * float(np.abs(charged - charged.mean(where=finite)).mean(where=finite)) or 1.0
    served = np.bincount(best, minlength=n_models)
    moved = np.zeros((n_models, n_models))
    for K in range(n_models):
        for L in range(K):
            between = ((best == K) & (second == L)) | ((best == L) & (second == K))
            between &= np.isfinite(margin)
            at_tie = np.sort(margin[between])
            if n := min(len(at_tie), int(min(served[K], served[L])) or len(at_tie)):
                # n queries within ± the n-th margin: this many per unit of price, of the sample.
                moved[K, L] = moved[L, K] = n / (2 * max(float(at_tie[n - 1]), least)) / n_queries
    return np.asarray(np.diag(moved.sum(axis=1)) - moved)
