"""Plans within sums over all cells, which whole queries rarely meet exactly: limits on GPU-seconds.

The prices of such rows come from mixtures of assignments (:mod:`~llmpower.routing.solving.columns`). Those that are
mixed in the end are optimal at the prices and differ in a few cells that tie. Those, and the cells next to a tie, are
divided into whole queries by a mixed-integer program (HiGHS) with all else fixed; more of them where the result is more
than 0.1 % off. Small workloads are solved whole in this way. What whole queries cost more than fractions could is
stated: the bound is L(μ), and its distance to what the plan pays is the gap. The mixture's own distance proves μ; the
rest of the gap is rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Any

import numpy as np

from llmpower.exceptions import InfeasibleError, LlmpowerError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.gpu_seconds import SecondRows
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving import kernels
from llmpower.routing.solving.columns import EXACT, MOST_COLUMNS, Columns
from llmpower.routing.solving.quiet import c_output_dropped
from llmpower.routing.solving.solver import GAP_LIMIT, solve

# Cells that are divided again into whole queries, and when they are more.
FREE_CELLS = 128
MOST_FREE_CELLS = 2048
GROWTH = 4
FAR_OFF = 1e-3
# Of branching: the same answer on every run, which a limit on time would not give. Fewer cells have more nodes in as
# much time, which prove the best plan of a small workload. What would do needs no proof.
NODES = 500
NODES_OF_REFUSAL = 20
# HiGHS's tolerances are absolute, about 1e-6: limits are scaled to the first figure, the highest cost to the second.
WHOLE_LIMIT = 1e4
LARGEST_COST = 1e3
# Less room, where rounding to whole queries overstepped a limit after all.
NARROWER = 1 - 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Within:
    """A plan within the limits: ``assigned`` (n_cells, n_choices), prices of queries (n_choices,) and of a row's unit
    (n_rows,), both in the unit of the costs; ``bound``, what no division of queries costs less than; ``gap``, what
    the plan pays more, relative to Σ x_cK·|c_cK|, and ``fractional_gap``, what the mixture of columns pays more, which
    is how far μ may be from the best: the rest of ``gap`` is due to whole queries.
    """

    assigned: IntArray
    prices: FloatArray
    row_prices: FloatArray
    bound: float
    gap: float
    fractional_gap: float


def solve_within(
    paid: FloatArray,
    count: IntArray,
    limits: tuple[IntArray, IntArray],
    runtime_s: FloatArray,
    rows: SecondRows,
    most_columns: int = MOST_COLUMNS,
) -> Within:
    """Assign queries as :func:`~llmpower.routing.solving.solver.solve` does, within ``rows``.

    ``paid`` and ``runtime_s`` have shape (n_cells, n_choices), ``limits`` are the lowest and highest numbers of
    queries. ``most_columns`` are sought twice: to keep to the rows at all, and for their prices.

    Raises:
        InfeasibleError: no plan is within the rows; the error says what could be kept to. LlmpowerError: the mixture of
        columns is not within :data:`~llmpower.routing.solving.solver.GAP_LIMIT` of the bound.
    """
    search = _Search(paid, count, limits, runtime_s, rows, most_columns)
    t, μ = search.reach()
    if t > 1:
        # Of one row the column itself reaches t; whole queries may need more of several.
        raise search.refusal(t if len(μ) == 1 else search.least(μ))
    μ, bound, mixture = search.price()
    x, prices = search.whole(μ, bound)
    fractional_gap = search.relative(mixture - bound, x)
    if fractional_gap > GAP_LIMIT:
        found = f"divided queries were found to cost {fractional_gap:.1e} of what they pay more"
        raise LlmpowerError(f"the bound under limits on GPU-seconds could not be proven: {found}")
    return Within(x, prices, μ / rows.limit, bound, search.gap(x, bound), fractional_gap)


class _Search(Columns):
    """Whole queries from what columns mix."""

    def gap(self, x: IntArray, bound: float) -> float:
        return self.relative(self.cost(x) - bound, x)

    def whole(self, μ: FloatArray, bound: float) -> tuple[IntArray, FloatArray]:
        """The best plan of whole queries that is found, and the prices of queries at μ.

        Raises:
            InfeasibleError: none is found, though fractions of queries would be within the limits.
        """
        start, prices, nearest = self._nearest(self.charged(self.paid, μ))
        size = FREE_CELLS
        while self.best is None or self.gap(self.best, bound) > EXACT:
            found = self._divided(start, np.sort(nearest[:size]))
            if found is not None and (self.best is None or self.cost(found) < self.cost(self.best)):
                self.best = found
            near = self.best is not None and self.gap(self.best, bound) <= FAR_OFF
            if near or size >= min(len(nearest), MOST_FREE_CELLS):
                break
            size *= GROWTH
        if self.best is None:
            raise self.refusal(self.least(μ))
        return self.best, prices

    def _nearest(self, charged: FloatArray) -> tuple[IntArray, FloatArray, IntArray]:
        """The assignment at these costs, its prices, and the cells from the nearest to a tie to the furthest."""
        charged = np.ascontiguousarray(charged)
        found = solve(charged, self.count, *self.limits, prices=self.prices)
        _, _, margin, _ = kernels.price(charged, self.count, found.prices)
        return found.assigned, found.prices, np.argsort(margin, kind="stable")

    def least(self, μ: FloatArray) -> float:
        """A t that whole queries are found to keep to, near the least."""
        nothing = np.where(self.allowed, 0.0, np.inf)
        start, _, nearest = self._nearest(self.charged(nothing, μ if μ.any() else np.ones_like(μ)))
        found = self._divide(start, np.sort(nearest[:FREE_CELLS]), None)
        return float(self.use(start if found is None else found).max())

    def refusal(self, t: float) -> InfeasibleError:
        """Says what limits would do: t of each that was asked for."""
        limits = [Context(prec=6, rounding=ROUND_CEILING).create_decimal(t * limit) for limit in self.rows.limit]
        least = ", ".join(f"{name}={float(limit):.6g}" for name, limit in zip(self.rows.names, limits, strict=True))
        asked = ", ".join(f"{name}={limit:.6g}" for name, limit in zip(self.rows.names, self.rows.limit, strict=True))
        together = "" if len(limits) == 1 else ", all raised alike"
        return InfeasibleError(
            "--gpu-seconds", asked, f"the queries cannot be served within that; {least} would do{together}"
        )

    def _divided(self, start: IntArray, free: IntArray) -> IntArray | None:
        """As :meth:`_divide`, and the limits are kept in whole queries."""
        for room in (1.0, NARROWER):
            found = self._divide(start, free, room)
            if found is None or (self.use(found) <= 1).all():
                return found
        return None

    def _divide(self, start: IntArray, free: IntArray, room: float | None) -> IntArray | None:
        """``start`` with the ``free`` cells divided again at least cost within ``room`` of each row, ``None`` where
        that cannot be. Without ``room``: with a small t that all rows are within.

            variables   x_cK whole, cell by cell, and t
            rows        Σ_K x_cK = n_c,  low ≤ Σ_c x_cK ≤ high,  Σ u·x − t ≤ 0
        """
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array, eye_array, hstack, kron, vstack

        n_free, n_choices = len(free), len(self.prices)
        rest = start.copy()
        rest[free] = 0
        fixed, (low, high) = rest.sum(axis=0), self.limits
        costs = self.finite[free] - self.paid[free].min(axis=1, keepdims=True)
        costs *= self.allowed[free]
        if room is None:
            objective = np.append(np.zeros(costs.size), 1.0)
        else:
            objective = np.append(costs.ravel() * (LARGEST_COST / (costs.max() or 1.0)), 0.0)
        most = np.where(self.allowed[free], self.count[free][:, np.newaxis], 0).ravel()
        of_cells = kron(eye_array(n_free), np.ones((1, n_choices)))
        of_choices = kron(np.ones((1, n_free)), eye_array(n_choices))
        seconds = (self.parts[:, np.newaxis, :] * self.runtime_s[free]).reshape(len(self.parts), -1) * WHOLE_LIMIT
        of_t = np.append(np.zeros(n_free + n_choices), -np.ones(len(seconds)))[:, np.newaxis]
        matrix: Any = hstack([vstack([of_cells, of_choices, csr_array(seconds)]), csr_array(of_t)])
        with c_output_dropped():
            found = milp(
                objective,
                integrality=np.append(np.ones(costs.size), 0),
                bounds=Bounds(0, np.append(most, np.inf if room is None else room * WHOLE_LIMIT)),
                constraints=LinearConstraint(
                    csr_array(matrix),
                    np.concatenate([self.count[free], low - fixed, np.full(len(seconds), -np.inf)]),
                    np.concatenate([self.count[free], high - fixed, -self.use(rest) * WHOLE_LIMIT]),
                ),
                options={
                    "node_limit": NODES_OF_REFUSAL if room is None else NODES * max(1, FREE_CELLS // n_free),
                    "mip_rel_gap": 0,
                    "presolve": False,
                },
            )
        if found.x is None:
            return None
        rest[free] = np.round(found.x[:-1]).astype(np.int64).reshape(n_free, n_choices)
        return rest
