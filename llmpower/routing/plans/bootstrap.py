"""Would the plan be the same had the models been measured again? A parametric bootstrap of its assignments.

Each draw takes coefficients w*_K ~ N(w_K, C_K), as another campaign of measurements might have given them, and plans
again at the same ζ, scaling and shares. What counts is the share of the queries that go elsewhere, and what following
the old plan would cost where the new coefficients are the truth: many queries may move and nothing be lost, when
choices are nearly equal. Forms whose terms are costs keep them from falling below zero.

A limit on latency stays as it is: it is the energy that is drawn again.

A large workload is represented by 5,000 of its queries, taken at equal steps through the cells in order: a share is
then known to a fraction of a percent, and the draws take no longer for millions. The draws are the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from llmpower.exceptions import InfeasibleError
from llmpower.modelling import Fit
from llmpower.modelling.forms import FORMS, FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.predictions import design
from llmpower.routing.problem.workload import IntArray, Workload

QUERIES = 5000
SEED = 20240707

Solve = Callable[[FloatArray, IntArray, IntArray, IntArray, FloatArray | None], tuple[IntArray, FloatArray]]
"""Costs (n_cells, n_choices), count, low, high, prices to begin with → queries assigned (as costs), prices."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Over ``draws``: the mean and 95th percentile of the share of queries that would go elsewhere.

    ``regret`` is the mean of what the plan costs more than the draw's own optimum, in units of the objective, over the
    spread of objectives from the draw's best to its worst choice for every query, of those that are allowed: 0 is
    nothing lost, 1 all there is.
    """

    draws: int
    reassigned_share: float
    reassigned_share_p95: float
    regret: float


def bootstrap(costs: Costs, limits: tuple[IntArray, IntArray], zeta: float, draws: int, solve: Solve) -> Bootstrap:
    """Plan ``draws`` times again; ``limits`` (n_choices,) each and ``zeta`` are the plan's own.

    What is unloaded stays so: its highest number of queries is 0.
    """
    costs, limits = _represented(costs, limits)
    count, n_queries = costs.workload.count, costs.workload.n_queries
    paid = costs.per_query(zeta)
    _, prices, limits = _nearly(solve, paid, count, *limits)
    # As every draw begins: of plans that cost the same it depends on the prices which is found.
    plan, _ = solve(paid, count, *limits, prices)
    late = costs.late
    allowed = np.True_ if late is None else ~late
    rng = np.random.default_rng(SEED)
    tokens = (costs.workload.input_tokens, costs.workload.output_tokens)
    designs = [design(choice.model.energy, *tokens) for choice in costs.choices]
    roots = [_root(choice.model.energy) for choice in costs.choices]
    moved, regrets = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        energy_j = np.column_stack(
            [
                φ @ _drawn(choice.model.energy, root, rng)
                for φ, choice, root in zip(designs, costs.choices, roots, strict=True)
            ]
        )
        paid = costs.scaled(energy_j, zeta)
        best, _ = solve(paid, count, *limits, prices)
        moved[draw] = np.abs(best - plan).sum() / 2 / n_queries
        highest, cheapest = paid.max(axis=1, where=allowed, initial=-np.inf), paid.min(axis=1)
        spread = float(count @ (highest - cheapest))
        regrets[draw] = ((plan - best) * np.where(allowed, paid, 0)).sum() / spread if spread else 0.0
    return Bootstrap(draws, float(moved.mean()), float(np.quantile(moved, 0.95)), float(regrets.mean()))


def _represented(costs: Costs, limits: tuple[IntArray, IntArray]) -> tuple[Costs, tuple[IntArray, IntArray]]:
    """The plan's problem on at most :data:`QUERIES` cells; exact shares are then met to one query."""
    workload = costs.workload
    if workload.n_cells <= QUERIES:
        return costs, limits
    N = workload.n_queries
    steps = ((np.arange(QUERIES) + 0.5) * (N / QUERIES)).astype(np.int64)
    cells, count = np.unique(np.searchsorted(np.cumsum(workload.count), steps, side="right"), return_counts=True)
    fewer = Workload(
        input_tokens=workload.input_tokens[cells],
        output_tokens=workload.output_tokens[cells],
        count=count.astype(np.int64),
        row_cells=np.arange(len(cells), dtype=np.uint32),
        row_counts=count.astype(np.int64),
        cell_class=workload.cell_class[cells],
        classes=workload.classes,
        cell_rate=None if workload.cell_rate is None else workload.cell_rate[cells],
        rates=workload.rates,
    )
    represented = replace(
        costs,
        workload=fewer,
        n_tokens=float(fewer.tokens @ fewer.count),
        energy_j=costs.energy_j[cells],
        runtime_s=None if costs.runtime_s is None else costs.runtime_s[cells],
        extrapolated=costs.extrapolated[cells],
    )
    # In Python's own numbers, as 64 bits do not hold 5,000 times any number of queries.
    low, high = ([int(limit) * QUERIES for limit in ends] for ends in limits)
    return represented, (np.array([end // N for end in low]), np.array([-(-end // N) for end in high]))


def _nearly(
    solve: Solve, paid: FloatArray, count: IntArray, low: IntArray, high: IntArray
) -> tuple[IntArray, FloatArray, tuple[IntArray, IntArray]]:
    """The plan, its prices, and the limits that it keeps: those given, or the nearest ones that a sample can keep.

    Where a limit on latency leaves a share just enough queries, a sample may hold a few too few of them.
    """
    slack = 0
    while True:
        # What is unloaded stays so.
        limits = np.maximum(low - slack, 0), np.where(high > 0, high + slack, 0)
        try:
            return *solve(paid, count, *limits, None), limits
        except InfeasibleError:
            if slack > QUERIES:
                raise
            slack = 2 * slack or 1


def _root(fit: Fit) -> FloatArray:
    """R with R·Rᵀ = C, of the covariance as far as it is known; rounding may have put an eigenvalue below zero."""
    values, vectors = np.linalg.eigh(np.nan_to_num(fit.covariance))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def _drawn(fit: Fit, root: FloatArray, rng: np.random.Generator) -> FloatArray:
    w = fit.coefficients + root @ rng.standard_normal(len(fit.coefficients))
    return np.maximum(w, 0.0) if FORMS[fit.form].non_negative else w
