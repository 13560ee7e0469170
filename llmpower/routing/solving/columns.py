"""The prices of rows over all cells, by the columns of Dantzig and Wolfe (Operations Research 8, 1960).

A row Σ x_cK·u_cK ≤ S limits no number of queries, so the transportation problem of
:mod:`~llmpower.routing.solving.solver` is one no longer. With a price μ ≥ 0 for each row it is again, at costs c + μ·u,
and

    L(μ) = min_x Σ (c + μ·u)·x − μ·S

is a lower bound at every μ. Each assignment that the solver returns is a column, a linear program of as many rows as
there are limits weighs the columns, and its duals are the next μ, until no assignment improves on them. Before that the
same is done for the excess over the limits, which says whether they can be kept at all.

The columns' mixture is a plan in fractions, so its distance to the bound proves μ, as primal and dual do elsewhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from llmpower.exceptions import LlmpowerError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.gpu_seconds import SecondRows
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving import kernels
from llmpower.routing.solving.solver import solve

MOST_COLUMNS = 500
EXACT = 1e-12


class Columns:
    """Assignments that were found, and ``best``, the cheapest of those within the rows.

    Arguments are those of :func:`~llmpower.routing.solving.side_rows.solve_within`. Rows are counted in parts of their
    limit: 1 is all of it.
    """

    def __init__(
        self,
        paid: FloatArray,
        count: IntArray,
        limits: tuple[IntArray, IntArray],
        runtime_s: FloatArray,
        rows: SecondRows,
        most_columns: int,
    ) -> None:
        self.paid, self.count, self.limits, self.runtime_s, self.rows = paid, count, limits, runtime_s, rows
        self.allowed = np.isfinite(paid)
        self.finite = np.where(self.allowed, paid, 0.0)
        self.parts, self.most_columns = rows.parts, most_columns
        self.prices = np.zeros(paid.shape[1])
        self.best: IntArray | None = None  # of the columns within the limits
        # Of each column; millions of cells leave no room to keep the columns themselves.
        self.costs: list[float] = []
        self.uses: list[FloatArray] = []

    def relative(self, excess: float, x: IntArray) -> float:
        """To what ``x`` pays; sums differ by rounding, which is no excess."""
        paid = float(np.vdot(x, np.abs(self.finite)))
        excess = max(0.0, excess)
        return excess / paid if paid else excess

    def cost(self, x: IntArray) -> float:
        """Σ x·c."""
        return float(np.vdot(x, self.finite))

    def use(self, x: IntArray) -> FloatArray:
        """Σ x·u of each row (n_rows,)."""
        seconds = np.zeros(len(self.prices))
        kernels.add(x, self.runtime_s, seconds)
        return np.asarray(self.parts @ seconds)

    def charged(self, paid: FloatArray, μ: FloatArray) -> FloatArray:
        """Costs with the rows' prices in them, ``paid`` + μ·u."""
        return paid + self.runtime_s * (μ @ self.parts)

    def add(self, paid: FloatArray, μ: FloatArray) -> tuple[float, FloatArray]:
        """The best column at these prices: its cost and its use of each row."""
        solution = solve(self.charged(paid, μ), self.count, *self.limits, prices=self.prices)
        x, self.prices = solution.assigned, solution.prices
        cost, use = self.cost(x), self.use(x)
        self.costs.append(cost)
        self.uses.append(use)
        if (use <= 1).all() and (self.best is None or cost < self.cost(self.best)):
            self.best = x
        return cost, use

    def reach(self) -> tuple[float, FloatArray]:
        """Columns of which a mixture is within the limits: the least t with Σ λ_j·u_j ≤ t, or the first one up to 1,
        and the weights of the rows μ at which nothing reaches less.
        """
        nothing = np.where(self.allowed, 0.0, np.inf)
        n_rows = len(self.parts)
        μ, most = np.full(n_rows, 1 / n_rows), -np.inf
        for _ in range(self.most_columns):
            _, use = self.add(nothing, μ)
            most = max(most, float(μ @ use))
            t, μ = _least_excess(np.column_stack(self.uses))
            if t <= 1:
                self.prices = np.zeros_like(self.prices)
                return t, μ
            if t - most <= EXACT * t:
                return t, μ
        raise LlmpowerError("whether the limits on GPU-seconds can be kept could not be determined")

    def price(self) -> tuple[FloatArray, float, float]:
        """μ, the bound L(μ) = max L, and the cost of a mixture of columns, with what it exceeds rows by at μ."""
        μ = np.zeros(len(self.parts))
        at, best = μ, -np.inf
        gap = mixed = np.inf
        for _ in range(self.most_columns):
            cost, use = self.add(self.paid, μ)
            if (L := cost + float(μ @ (use - 1))) > best:
                at, best = μ, L
            uses = np.column_stack(self.uses)
            # What each column costs above the bound at its price: 0 and up, and in the end next to nothing.
            above = np.maximum(np.array(self.costs) + at @ (uses - 1) - best, 0)
            λ, nearer = _weighed(above, at, uses, gap if np.isfinite(gap) else float(above.max()) or 1.0)
            mixed = float(λ @ self.costs + at @ np.maximum(uses @ λ - 1, 0))
            gap = mixed - best
            if gap <= EXACT * np.abs(self.costs).max() or np.array_equal(nearer, μ):
                break
            μ = nearer
        return at, best, mixed


def _least_excess(uses: FloatArray) -> tuple[float, FloatArray]:
    """The least t with Σ λ_j·u_j ≤ t of columns (n_rows, n_columns), and duals of the rows that add up to 1."""
    n_rows, n_columns = uses.shape
    scale = float(uses.max()) or 1.0
    found = _linear(
        np.append(np.zeros(n_columns), 1.0),
        A_ub=np.column_stack([uses / scale, -np.ones(n_rows)]),
        b_ub=np.zeros(n_rows),
        A_eq=np.append(np.ones(n_columns), 0.0)[np.newaxis],
        b_eq=[1.0],
    )
    μ = np.maximum(-found.ineqlin.marginals, 0)
    return float(found.fun) * scale, μ / (μ.sum() or 1.0)


def _weighed(above: FloatArray, μ: FloatArray, uses: FloatArray, unit: float) -> tuple[FloatArray, FloatArray]:
    """λ ≥ 0 of least Σ λ_j·c_j that adds up to 1 with Σ λ_j·u_j ≤ 1, and the prices of the rows.

    Costs come as r_j = ``above`` = c_j + μ·(u_j − 1) − L, so with s what is left of the rows

        Σ λ_j·c_j − L = Σ λ_j·r_j + μ·s,    Σ λ_j·u_j + s = 1

    HiGHS takes for optimal what is so to 1e-10 of its unit, and costs themselves differ by far more than a proof may
    leave open. Above the bound they are measured in a ``unit`` that is as small as what is left open.
    """
    n_rows, n_columns = uses.shape
    found = _linear(
        np.append(above, μ) / unit,
        A_eq=np.block([[uses, np.eye(n_rows)], [np.ones(n_columns), np.zeros(n_rows)]]),
        b_eq=np.ones(n_rows + 1),
    )
    λ = np.maximum(found.x[:n_columns], 0)
    return λ / λ.sum(), np.maximum(μ - unit * found.eqlin.marginals[:n_rows], 0)


def _linear(costs: FloatArray, **rows: Any) -> Any:
    """The λ ≥ 0 of least costs·λ within ``rows``, as scipy names them."""
    from scipy.optimize import linprog

    found = linprog(
        costs,
        **rows,
        method="highs-ds",
        options={"presolve": False, "primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.status != 0:
        raise LlmpowerError(f"limits on GPU-seconds could not be weighed: {found.message}")
    return found
