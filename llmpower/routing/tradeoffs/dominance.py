"""Choices that no price of accuracy ever picks: costlier than they are good, for every single query.

At r joules for a unit of accuracy a query goes to the least e_K − r·a_K. K is picked at some r ≥ 0 when

    max_{L: a_L < a_K} (e_K − e_L)/(a_K − a_L)  ≤  min_{L: a_L > a_K} (e_L − e_K)/(a_L − a_K),

the left side no less than 0 and the right side no less than 0, and no choice as accurate costs less: K is a corner of
the query's own frontier of energy and accuracy. A choice that is a corner for no query is used only because a share
says so, and an operator wants to know that before paying for its GPUs. A limit on latency takes choices out of a
query's frontier: e = ∞ where it would be late.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs

# Most choices are a corner for some of the first queries already; only those that are none need all of them.
FIRST_CHUNK, CHUNK = 2**9, 2**14


def never_chosen(costs: Costs) -> tuple[str, ...]:
    """Names of the choices that no ζ sends any query to while shares do not force it."""
    workload, names = costs.workload, costs.model_names
    missing = set(range(len(names)))
    cells = slice(0, FIRST_CHUNK)
    while missing and cells.start < workload.n_cells:
        e = costs.energy_j[cells]
        if costs.max_runtime_s is not None:
            assert costs.runtime_s is not None
            e = np.where(costs.runtime_s[cells] > costs.max_runtime_s, np.inf, e)
        # How long a query is scales all of its accuracies alike and moves no corner.
        a = np.zeros_like(e) if costs.accuracy is None else costs.accuracy[workload.cell_class[cells]]
        missing -= {K for K in missing if _corner(e, a, K).any()}
        cells = slice(cells.stop, cells.stop + min(2 * (cells.stop - cells.start), CHUNK))
    return tuple(names[K] for K in sorted(missing))


def _corner(e: FloatArray, a: FloatArray, K: int) -> NDArray[np.bool_]:
    """For which queries some r ≥ 0 picks K, of energies and accuracies of shape (n_queries, n_choices)."""
    least_r, most_r = np.zeros(len(e)), np.full(len(e), np.inf)
    possible = np.isfinite(e[:, K])
    for L in range(e.shape[1]):
        if L == K:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            costlier, better = e[:, K] - e[:, L], a[:, K] - a[:, L]
            r = costlier / better
        least_r = np.where(better > 0, np.maximum(least_r, r), least_r)
        most_r = np.where(better < 0, np.minimum(most_r, r), most_r)
        possible &= (better != 0) | (costlier <= 0)
    return possible & (least_r <= most_r)
