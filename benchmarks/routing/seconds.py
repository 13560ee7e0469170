"""Limits on GPU-seconds, against HiGHS on the same cells, which may divide queries."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from llmpower.routing import Workload, route
from llmpower.routing.costing.costs import predict_costs
from llmpower.routing.problem.gpu_seconds import GpuSeconds
from routing.problem import ACCURACY, make_models, make_tokens

PROGRAM = Path(__file__).parents[1] / "routing.py"
# Of the GPU-seconds that a model would take: what it may.
LIMITED, LIMITED_ZETA = 0.6, 0.3
HIGHS_LIMIT_S = 60


def against_highs(n_queries: int) -> dict[str, Any]:
    """Limits on GPU-seconds: whole queries with a bound, beside a linear program over all cells.

    HiGHS is stopped after a while; its seconds and the ratio are then the least that they can be.
    """
    workload, models = Workload.from_tokens(*make_tokens(n_queries)), make_models()
    free = route(models, workload, ACCURACY, zeta=LIMITED_ZETA, draws=0).models
    taken_s = sorted(((load.runtime_s, name) for name, load in free.items()), reverse=True)
    limits = {name: LIMITED * runtime_s for runtime_s, name in taken_s[:2]}
    plan = route(models, workload, ACCURACY, zeta=LIMITED_ZETA, gpu_seconds=asked(limits), draws=0)
    command = [sys.executable, str(PROGRAM), "--highs-once", str(n_queries), "--limits", json.dumps(limits)]
    start_s = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HIGHS_LIMIT_S)
        theirs: dict[str, Any] = {"solved": True, **json.loads(done.stdout)}
    except subprocess.TimeoutExpired:
        theirs = {"solved": False, "s": time.perf_counter() - start_s}
    row = {
        "queries": n_queries,
        "cells": workload.n_cells,
        "models": len(models),
        "limits": len(limits),
        "ours_s": plan.solve_s,
        "optimality_gap": plan.optimality_gap,
        "fractional_gap": None if plan.bound is None else plan.bound.fractional_gap,
        "highs": theirs,
        "ratio": theirs["s"] / plan.solve_s,
    }
    if theirs["solved"] and plan.bound is not None and plan.bound.objective is not None:
        row["bound_difference"] = abs(plan.bound.objective - theirs["objective"]) / abs(theirs["objective"])
    print(json.dumps(row), file=sys.stderr)
    return row


def asked(limits: dict[str, float]) -> GpuSeconds:
    """Those limits, of models on one GPU each."""
    return GpuSeconds(limits, dict.fromkeys(ACCURACY, 1))


def highs_once(n_queries: int, limits: dict[str, float]) -> dict[str, Any]:
    """The linear program alone, without presolve, which takes longer than it saves."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, eye_array, kron

    workload = Workload.from_tokens(*make_tokens(n_queries))
    costs = predict_costs(make_models(), workload, ACCURACY, gpu_seconds=asked(limits))
    assert costs.runtime_s is not None
    assert costs.second_rows is not None
    count, n_models = workload.count.astype(np.float64)[:, np.newaxis], len(costs.choices)
    start_s = time.perf_counter()
    # Queries of a cell in parts of it, and limits in parts of them: both are then of the order of 1.
    used = [(parts * costs.runtime_s * count).ravel() for parts in costs.second_rows.parts]
    found = linprog(
        (costs.per_query(LIMITED_ZETA) * count).ravel(),
        A_ub=csr_array(np.stack(used)),
        b_ub=np.ones(len(limits)),
        A_eq=kron(eye_array(workload.n_cells), np.ones((1, n_models)), "csr"),
        b_eq=np.ones(workload.n_cells),
        method="highs-ds",
        options={"presolve": False},
    )
    return {"s": time.perf_counter() - start_s, "objective": float(found.fun)}
