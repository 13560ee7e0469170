"""The exact assignment of cells to models, with its proof.

    minimise   Σ_c Σ_K c_cK·x_cK
    subject to Σ_K x_cK = n_c                        every query of cell c goes somewhere
               low_K ≤ s_K ≤ high_K, s_K = Σ_c x_cK  model K gets its share
               x_cK ≥ 0

This is a transportation problem: its matrix is totally unimodular, so with whole n, low and high every vertex is
whole, and a linear program that ends on a vertex needs no binaries. HiGHS' interior point method ends on one by
crossover. Its answer is not taken on trust. With the prices p_K (the duals of the shares) the Lagrangian

    L(p) = Σ_c n_c·min_K (c_cK + p_K) − Σ_K max_{low_K ≤ s ≤ high_K} p_K·s

is a lower bound whatever p is, so its distance to the cost of the whole-numbered assignment, which is

    Σ_cK x_cK·(c_cK + p_K − min_L (c_cL + p_L)) + Σ_K (max_s p_K·s − p_K·s_K),

terms that are each ≥ 0, proves the optimum in a sum that cancels nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmpower.exceptions import LlmpowerError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.workload import IntArray

# Interior point first: ten times faster here than the dual simplex, which stands by. Presolve is left out, as it
# takes minutes where the solution takes half a second (docs/decisions/007-highs-on-cells.md has the figures).
METHODS = ("highs-ipm", "highs-ds")
TOLERANCE = 1e-10
# Relative to the costs that the plan pays, taken as magnitudes: the objective itself may cancel to nothing.
GAP_LIMIT = 1e-9
WHOLE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """``assigned`` has shape (n_cells, n_models), whole numbers of queries; ``prices`` (n_models,).

    A price is in the unit of the costs: sending each query to the least of c_cK + p_K gives the assignment back, up
    to ties. It is positive where a model's share holds queries off, negative where it draws them in, and 0 where the
    share does not bind. Where all shares are exact only differences count, and the lowest price is 0.
    ``optimality_gap`` is relative to Σ x_cK·|c_cK|.
    """

    assigned: IntArray
    prices: FloatArray
    optimality_gap: float


def solve(
    costs: FloatArray, count: IntArray, low: IntArray, high: IntArray, methods: Sequence[str] = METHODS
) -> Solution:
    """Assign ``count`` (n_cells,) queries to models at least cost.

    ``costs`` has shape (n_cells, n_models); ``low`` and ``high`` (n_models,) are whole numbers of queries with
    Σ low ≤ Σ count ≤ Σ high. Ties go to the first model where shares do not decide. ``methods`` are tried in turn.

    Raises:
        LlmpowerError: no method gave a whole-numbered assignment whose gap is within :data:`GAP_LIMIT`.
    """
    if (low <= 0).all() and (high >= count.sum()).all():
        return _cheapest(costs, count)
    found = "no solution"
    for method in methods:
        solution = _linear_program(costs, count, low, high, method)
        if solution is None:
            continue
        if solution.optimality_gap <= GAP_LIMIT:
            return solution
        found = f"a gap of {solution.optimality_gap:.1e}"
    raise LlmpowerError(f"the plan could not be proven optimal: {found} from {', '.join(methods)}")


def _cheapest(costs: FloatArray, count: IntArray) -> Solution:
    """Without shares every cell has its own answer."""
    n_cells, n_models = costs.shape
    assigned = np.zeros((n_cells, n_models), np.int64)
    assigned[np.arange(n_cells), costs.argmin(axis=1)] = count
    return Solution(assigned, np.zeros(n_models), 0.0)


def _linear_program(costs: FloatArray, count: IntArray, low: IntArray, high: IntArray, method: str) -> Solution | None:
    """Columns are x_cK cell by cell, then s_K; rows are the cells, then Σ_c x_cK − s_K = 0 for each model."""
    from scipy.optimize import linprog
    from scipy.sparse import block_array, eye_array, kron

    n_cells, n_models = costs.shape
    # A constant within a cell decides nothing; without it, and at a mean of 1, the solver's tolerances mean something.
    relative = costs - costs.min(axis=1, keepdims=True)
    scale = float(relative.mean()) or 1.0
    rows = block_array(
        [
            [kron(eye_array(n_cells), np.ones((1, n_models))), None],
            [kron(np.ones((1, n_cells)), eye_array(n_models)), -eye_array(n_models)],
        ],
        format="csc",
    )
    # x ≥ 0 and Σ x = N say already what a limit of 0 or N would say; as a bound it could draw a price of its own.
    bounds_low = np.where(low <= 0, -np.inf, low)
    bounds_high = np.where(high >= count.sum(), np.inf, high)
    result = linprog(  # type: ignore[call-overload]  # it takes sparse matrices, which its stubs do not know
        np.concatenate([relative.ravel() / scale, np.zeros(n_models)]),
        A_eq=rows,
        b_eq=np.concatenate([count, np.zeros(n_models)]),
        bounds=np.column_stack(
            [
                np.concatenate([np.zeros(costs.size), bounds_low]),
                np.concatenate([np.full(costs.size, np.inf), bounds_high]),
            ]
        ),
        method=method,
        options={
            "presolve": False,
            "primal_feasibility_tolerance": TOLERANCE,
            "dual_feasibility_tolerance": TOLERANCE,
        },
    )
    if result.x is None:
        return None
    x = result.x[: costs.size].reshape(costs.shape)
    assigned = np.rint(x).astype(np.int64)
    queries = assigned.sum(axis=0)
    whole = np.abs(x - assigned).max() <= WHOLE_TOLERANCE and assigned.min() >= 0
    if not (whole and (assigned.sum(axis=1) == count).all() and (low <= queries).all() and (queries <= high).all()):
        return None
    prices = -scale * np.asarray(result.eqlin.marginals[n_cells:])
    prices = np.clip(prices, np.where(np.isinf(bounds_low), 0.0, -np.inf), np.where(np.isinf(bounds_high), 0.0, np.inf))
    if (low == high).all():
        prices -= prices.min()
    return Solution(assigned, prices, _gap(costs, assigned, prices, low, high))


def _gap(costs: FloatArray, assigned: IntArray, prices: FloatArray, low: IntArray, high: IntArray) -> float:
    charged = costs + prices
    regret = float((assigned * (charged - charged.min(axis=1, keepdims=True))).sum())
    slack = float((np.where(prices > 0, high, low) * prices - assigned.sum(axis=0) * prices).sum())
    paid = float((assigned * np.abs(costs)).sum())
    return (regret + slack) / paid if paid else regret + slack
