"""The exact assignment of cells to models, with its proof, at any size.

    minimise   Σ_c Σ_K c_cK·x_cK
    subject to Σ_K x_cK = n_c                        every query of cell c goes somewhere
               low_K ≤ s_K ≤ high_K, s_K = Σ_c x_cK  model K gets its share
               x_cK ≥ 0

This is a transportation problem with as many sinks as there are models, a handful, whatever the number of cells. Its
matrix is totally unimodular, so with whole n, low and high the optimum is whole; and it is given by a price p_K for
each model, such that every query goes to the least of c_cK + p_K, up to ties. So prices are what is looked for:

1. Among a sample of the cells, every so-many-th in their order, they are found exactly.
2. One pass over all cells sends each to its cheapest model at those prices. Loads are then off by a fraction of a per
   cent, and the few cells that have to move are among those with the least between their best and second best model.
3. Those cells alone are exchanged along shortest paths between models, until the last query is in place
   (``csrc/routing/exchange.c``). Prices move by a little; should they have moved past a cell that was left out, the
   pass is made again at the new ones, with more cells.

The answer is not taken on trust. With any prices p the Lagrangian

    L(p) = Σ_c n_c·min_K (c_cK + p_K) − Σ_K max_{low_K ≤ s ≤ high_K} p_K·s

is a lower bound, so its distance to the cost of the whole-numbered assignment, which is

    Σ_cK x_cK·(c_cK + p_K − min_L (c_cL + p_L)) + Σ_K (max_s p_K·s − p_K·s_K),

terms that are each ≥ 0, proves the optimum in a sum that cancels nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as count_from

import numpy as np

from llmpower.exceptions import InfeasibleError, LlmpowerError
from llmpower.modelling.forms import FloatArray
from llmpower.phrases import plural
from llmpower.routing.pointers import Choices
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving import kernels
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.stretches import in_stretches

# Relative to the costs that the plan pays, taken as magnitudes: the objective itself may cancel to nothing.
GAP_LIMIT = 1e-12
# Of a query's cost + price: what their sum and a comparison round. Where costs cancel to nothing that would be all.
ROUNDING = 2**-50
# Cells of the samples that prices are found from before all cells are looked at.
SAMPLES = (2**13, 2**17)
# Queries to look at between each two models, and for each that has to move; more where that was not enough.
LEAST_EXCHANGED = 2**7
EXCHANGED_PER_MOVE = 4
ROUNDS_OF_ONE_SIZE = 3
GROWTH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """``assigned`` (n_cells, n_models) are whole numbers of queries, kept as ``assignment``; ``prices`` (n_models,).

    A price is in the unit of the costs: sending each query to the least of c_cK + p_K gives the assignment back, up
    to ties. It is positive where a model's share holds queries off, negative where it draws them in, and 0 where the
    share does not bind. Where all shares are exact only differences count, and the lowest price is 0.
    ``optimality_gap`` is relative to Σ x_cK·|c_cK|.
    """

    assignment: Assignment
    prices: FloatArray
    optimality_gap: float

    @property
    def assigned(self) -> IntArray:
        """Queries of each cell on each model."""
        return self.assignment.matrix


def solve(
    costs: FloatArray, count: IntArray, low: IntArray, high: IntArray, *, prices: FloatArray | None = None
) -> Solution:
    """Assign ``count`` (n_cells,) queries to models at least cost.

    ``costs`` has shape (n_cells, n_models), infinite where a cell may not go to a model; ``low`` and ``high``
    (n_models,) are whole numbers of queries with Σ low ≤ Σ count ≤ Σ high. Ties go to the first model where shares do
    not decide. ``prices``, those of a problem much like this one, save most of the work and change neither the
    objective nor the proof.

    Raises:
        InfeasibleError: no assignment that avoids infinite costs has loads within ``low`` and ``high``.
        LlmpowerError: the gap is not within :data:`GAP_LIMIT`, which is an error in this program.
    """
    problem = _problem(costs, count, low, high)
    if prices is None:
        prices = np.zeros(problem.n_models)
        for size in SAMPLES:
            if size * 4 <= problem.n_cells:
                found = _optimum(problem.sample(problem.n_cells // size), prices)
                prices = prices if found is None else found.prices
    # A limit that cannot bind holds no price up.
    n_queries = int(count.sum())
    prices = np.clip(prices, np.where(problem.low < 0, 0, -np.inf), np.where(problem.high > n_queries, 0, np.inf))
    found = _optimum(problem, prices)
    if found is None:
        advice = "the models that are allowed cannot meet the shares"
        raise InfeasibleError("--share", plural(n_queries, "query"), advice)
    if found.optimality_gap > GAP_LIMIT:
        raise LlmpowerError(f"the plan could not be proven optimal: a gap of {found.optimality_gap:.1e}")
    shift = found.prices.min() if (low == high).all() else 0.0
    return Solution(found.assignment, found.prices - shift + 0.0, found.optimality_gap)


def proven(costs: FloatArray, assigned: IntArray, prices: FloatArray, low: IntArray, high: IntArray) -> Solution:
    """An assignment that came about otherwise, within the limits, with its proof by these prices.

    Raises:
        LlmpowerError: the gap is not within :data:`GAP_LIMIT`.
    """
    assignment = Assignment.of_matrix(assigned)
    gap = _gap(_problem(costs, assigned.sum(axis=1), low, high), assignment, prices)
    if gap > GAP_LIMIT:
        raise LlmpowerError(f"the plan could not be proven optimal: a gap of {gap:.1e}")
    return Solution(assignment, prices, gap)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """The arguments of :func:`solve`."""

    costs: FloatArray
    count: IntArray
    low: IntArray
    high: IntArray

    @property
    def n_cells(self) -> int:
        return len(self.costs)

    @property
    def n_models(self) -> int:
        return len(self.low)

    def sample(self, stride: int) -> _Problem:
        """Every so-many-th cell, with its part of the limits."""
        costs, count = self.costs[stride // 2 :: stride].copy(), self.count[stride // 2 :: stride].copy()
        part = count.sum() / self.count.sum()
        return _Problem(costs, count, np.floor(self.low * part).astype(int), np.ceil(self.high * part).astype(int))


def _problem(costs: FloatArray, count: IntArray, low: IntArray, high: IntArray) -> _Problem:
    # x ≥ 0 and Σ x = N say already what a limit of 0 or N would say; as a bound it could draw a price of its own.
    n_queries = int(count.sum())
    low, high = np.where(low <= 0, -1, low), np.where(high >= n_queries, n_queries + 1, high)
    return _Problem(np.ascontiguousarray(costs, np.float64), np.asarray(count, np.int64), low, high)


def _optimum(problem: _Problem, prices: FloatArray) -> Solution | None:
    """The optimum, or as near to it as arithmetic comes, from any prices; ``None`` where there is no assignment.

    Each round sends all cells to their cheapest models, then exchanges those nearest to a border until the limits are
    met. That is the optimum if no other cell has a cheaper model at the new prices, and surely if all were exchanged.
    """
    low, high = problem.low, problem.high
    factor = 1
    for round_ in count_from(1):
        choice, runner_up, margin, loads = kernels.price(problem.costs, problem.count, prices)
        if np.isnan(margin).any():
            raise InfeasibleError("cell", int(np.argmax(np.isnan(margin))), "no model may take it; allow one")
        assignment = Assignment.of_choices(choice, problem.count, loads)
        wanted = np.where(prices > 0, high, np.where(prices < 0, low, np.clip(loads, low, high)))
        to_move = int(np.maximum(loads - wanted, 0).sum())
        all_cells = False
        if (loads != wanted).any():
            queries = (LEAST_EXCHANGED + EXCHANGED_PER_MOVE * to_move) * factor
            border = _border(choice, runner_up, margin, problem.count, problem.n_models, queries)
            all_cells = 2 * len(border) >= problem.n_cells
            if all_cells:
                border = np.arange(problem.n_cells)
            moved = kernels.assign(choice[border], problem.count[border], problem.n_models)
            moved_prices = prices.copy()
            fixed = loads - moved.sum(axis=0)
            if not kernels.exchange(problem.costs[border], low - fixed, high - fixed, moved, moved_prices):
                if all_cells:
                    return None
                factor *= GROWTH
                continue
            assignment, prices = assignment.moved(border, moved), moved_prices
        gap = _gap(problem, assignment, prices)
        if gap <= GAP_LIMIT or all_cells:
            return Solution(assignment, prices, gap)
        factor *= GROWTH if round_ % ROUNDS_OF_ONE_SIZE == 0 else 1
    raise AssertionError("there is always a next round")


def _border(
    choice: Choices, runner_up: Choices, margin: FloatArray, count: IntArray, n_models: int, queries: int
) -> IntArray:
    """Of each pair of best and second best model, the cells with the least between the two: about that many queries.

    In ascending order.
    """
    margins, of_pair = kernels.by_pair(choice, runner_up, margin, count, n_models)
    limits = np.full(len(margins), -np.inf)

    def limit(part: slice) -> None:
        for pair in range(part.start, part.stop):
            if length := len(margins[pair]):
                size = int(min(length, queries * length / of_pair[pair] + 1))
                margins[pair].partition(size - 1)
                limits[pair] = margins[pair][size - 1]

    # Threads are worth starting for many cells alone.
    in_stretches(limit, len(margins), 1 if len(choice) > SAMPLES[-1] else len(margins))
    return kernels.border(choice, runner_up, margin, n_models, limits)


def _gap(problem: _Problem, assignment: Assignment, prices: FloatArray) -> float:
    regret, paid = kernels.regret_of_choices(problem.costs, assignment.choice, assignment.whole, prices)
    if len(divided := assignment.divided):
        further = kernels.regret(problem.costs[divided], assignment.queries, prices)
        regret, paid = regret + further[0], paid + further[1]
    furthest = np.where(prices > 0, problem.high, np.where(prices < 0, problem.low, 0))
    slack = float((furthest * prices - assignment.loads * prices).sum())
    gap = regret + slack
    if gap <= ROUNDING * int(problem.count.sum()) * float(np.abs(prices).max()):
        return 0.0
    return gap / paid if paid else gap
