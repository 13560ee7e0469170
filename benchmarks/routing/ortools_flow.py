"""OR-Tools' network simplex on cells, in the benchmarks' environment: costs.npy, count.npy, queries.npy → seconds.

    .venv-bench/bin/python benchmarks/routing/ortools_flow.py DIRECTORY

One arc per cell and model, costs as whole numbers of a 10⁻⁹th of the largest. Building and solving are timed together,
as the arrays that it wants are part of asking it.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from ortools.graph.python import min_cost_flow


def main() -> None:
    """Solve, and print seconds and the objective."""
    directory = Path(sys.argv[1])
    costs, count, queries = (np.load(directory / f"{name}.npy") for name in ("costs", "count", "queries"))
    n_cells, n_models = costs.shape
    start_s = time.perf_counter()
    flow = min_cost_flow.SimpleMinCostFlow()
    cells, models = np.repeat(np.arange(n_cells), n_models), np.tile(np.arange(n_models), n_cells)
    relative = costs - costs.min(axis=1, keepdims=True)
    whole = np.rint(relative.ravel() * (1e9 / relative.max())).astype(np.int64)
    arcs = flow.add_arcs_with_capacity_and_unit_cost(cells, n_cells + models, np.repeat(count, n_models), whole)
    flow.set_nodes_supplies(np.arange(n_cells + n_models), np.concatenate([count, -queries]))
    status = flow.solve()
    solve_s = time.perf_counter() - start_s
    assigned = flow.flows(arcs).reshape(costs.shape)
    print(json.dumps({"solved": status == flow.OPTIMAL, "s": solve_s, "objective": float((assigned * costs).sum())}))


if __name__ == "__main__":
    main()
