"""Which queries go where, and to which loaded models: the optimum before any figure of it is computed.

Where waiting is charged and models may be unloaded, every set of them that could be the best is solved for
(:mod:`~llmpower.routing.costing.idle` says which); everywhere else all are loaded. Limits on GPU-seconds are sums,
which :mod:`~llmpower.routing.solving.side_rows` keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.idle import cheapest_set
from llmpower.routing.problem.choices import Choice
from llmpower.routing.problem.gpu_seconds import SecondLimit
from llmpower.routing.problem.workload import IntArray, Workload
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.solving.side_rows import solve_within
from llmpower.routing.solving.solver import Solution, solve


@dataclass(frozen=True, slots=True, eq=False)
class Assigned:
    """What is known of a plan as soon as it is solved: which queries go where, and no figure of it yet."""

    workload: Workload
    model_names: tuple[str, ...]
    choices: tuple[Choice, ...]
    assignment: Assignment


class Solved(NamedTuple):
    """The optimum and the choices that are loaded for it; what limits on GPU-seconds cost, and the bound under them."""

    solution: Solution
    loaded: NDArray[np.intp]
    second_limits: Mapping[str, SecondLimit] | None = None
    second_prices: FloatArray | None = None  # of a second on each choice
    bound: float | None = None
    fractional_gap: float | None = None


def solve_loaded(costs: Costs, limits: tuple[IntArray, IntArray], zeta: float, paid: FloatArray) -> Solved:
    """All choices are loaded, or the set whose waiting is worth its while."""
    count, (low, high) = costs.workload.count, limits
    everything = np.arange(len(costs.choices))
    if (rows := costs.second_rows) is not None:
        assert costs.runtime_s is not None
        found = solve_within(paid, count, limits, costs.runtime_s, rows)
        of_limits = zip(rows.limit.tolist(), found.row_prices.tolist(), strict=True)
        idle = 0.0 if costs.charges_j is None else zeta * float(costs.charges_j.sum()) / costs.scaling.energy_max_j
        return Solved(
            Solution(Assignment.of_matrix(found.assigned), found.prices, found.gap),
            everything,
            {name: SecondLimit(*figures) for name, figures in zip(rows.names, of_limits, strict=True)},
            found.row_prices @ rows.gpus,
            found.bound + idle,
            found.fractional_gap,
        )
    if costs.charges_j is None or not costs.unloadable:
        return Solved(solve(paid, count, low, high), everything)

    def optimum(loaded: NDArray[np.intp]) -> float:
        solution = solve(paid[:, loaded], count, low[loaded], high[loaded])
        taken = solution.assigned > 0  # elsewhere a cost may be infinite
        return float(solution.assigned[taken] @ paid[:, loaded][taken])

    charges = zeta * costs.charges_j / costs.scaling.energy_max_j
    loaded = cheapest_set(charges, low, high, costs.workload.n_queries, optimum)
    solution = solve(paid[:, loaded], count, low[loaded], high[loaded])
    assigned, prices = np.zeros(paid.shape, np.int64), np.zeros(len(everything))
    assigned[:, loaded], prices[loaded] = solution.assigned, solution.prices
    return Solved(Solution(Assignment.of_matrix(assigned), prices, solution.optimality_gap), loaded)
