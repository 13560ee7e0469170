"""Routing at any size against its peers: PuLP with CBC, OR-Tools' network simplex, and pandas as a measure of a file.

    python benchmarks/routing.py [--parts pulp,flow,frontier,file,seconds] [--queries N,…] [--json FILE]

Lengths are lognormal like those of chats, costs those of seven servers with a KV cache; shares are exact. ``pulp``
solves the published formulation, one binary per query and model, at 10,000 × 3. ``flow`` goes from arrays of token
counts in memory to a model for each query, each size in a process of its own, and OR-Tools solves the same cells where
.venv-bench has it. ``frontier`` needs the Azure conversations below LLMPOWER_REFERENCE_DATA. ``file`` is ``llmpower
route`` from Parquet to Parquet, against pandas reading and writing it. ``seconds`` limits what two models may take to
part of what they would, against HiGHS on the same cells, which may divide queries. Parts that are not run stay in FILE
as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from routing.problem import ACCURACY, SHARES, make_models, make_tokens, problem
from routing.seconds import against_highs, highs_once

from llmpower.modelling import save_models
from llmpower.routing import Workload, read_workload, trace_frontier
from llmpower.routing.plans.expansion import choices_of_rows
from llmpower.routing.solving.solver import solve

TIMEOUT_S = 150
RUNS = 7
HERE = Path(__file__)


def main() -> None:
    """Run the parts that are asked for and print their figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="pulp,flow,frontier,file,seconds")
    parser.add_argument("--queries", default="500000,5000000,20000000", help="Sizes for the part flow.")
    parser.add_argument("--seconds-queries", default="20000,1000000", help="Sizes for the part seconds.")
    parser.add_argument("--flow-once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--highs-once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--limits", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--costs-into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ortools", type=Path, default=Path(".venv-bench/bin/python"), help="A Python that has it.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.flow_once:
        print(json.dumps(flow_once(arguments.flow_once, arguments.costs_into)))
        return
    if arguments.highs_once:
        print(json.dumps(highs_once(arguments.highs_once, arguments.limits)))
        return
    parts = arguments.parts.split(",")
    found: dict[str, Any] = {}
    if arguments.json and arguments.json.exists():
        found = json.loads(arguments.json.read_text(encoding="utf-8"))
    found |= {"what": "seconds, each part in one run on one machine", "processors": os.cpu_count()}
    if "pulp" in parts:
        found["pulp"] = against_pulp()
    if "flow" in parts:
        found["flow"] = [against_ortools(int(size), arguments.ortools) for size in arguments.queries.split(",")]
    if "frontier" in parts:
        found["frontier"] = frontier()
    if "file" in parts:
        found["file"] = against_pandas(5_000_000)
    if "seconds" in parts:
        found["seconds"] = [against_highs(int(size)) for size in arguments.seconds_queries.split(",")]
    print(json.dumps(found, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def against_pulp() -> dict[str, Any]:
    """10,000 queries and 3 models, a binary for each pair."""
    import pulp

    workload = Workload.from_tokens(*make_tokens(10_000))
    costs, low, high = problem(workload, make_models(3))
    paid = costs.per_query(0.5)
    ours_s = []
    for _ in range(5):
        start_s = time.perf_counter()
        solution = solve(paid, workload.count, low, high)
        ours_s.append(time.perf_counter() - start_s)
    queries = np.repeat(paid, workload.count, axis=0)
    start_s = time.perf_counter()
    program = pulp.LpProblem(sense=pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x_{q}_{k}", cat="Binary") for k in range(3)] for q in range(len(queries))]
    program += pulp.lpSum(queries[q, k] * x[q][k] for q in range(len(queries)) for k in range(3))
    for of_query in x:
        program += pulp.lpSum(of_query) == 1
    for k in range(3):
        program += pulp.lpSum(of_query[k] for of_query in x) == int(low[k])
    program.solve(pulp.PULP_CBC_CMD(msg=False))
    theirs_s = time.perf_counter() - start_s
    ours, theirs = float((solution.assigned * paid).sum()), float(pulp.value(program.objective))
    return {
        "ours_s": min(ours_s),
        "pulp_cbc_s": theirs_s,
        "ratio": theirs_s / min(ours_s),
        "objective_difference": abs(ours - theirs) / abs(ours),
    }


def flow_once(n_queries: int, costs_into: Path | None) -> dict[str, Any]:
    """From token counts to a model for each query; the peak is of the whole process, imports and counts included."""
    models, tokens = make_models(), make_tokens(n_queries)
    marks = [time.perf_counter()]
    workload = Workload.from_tokens(*tokens)
    marks.append(time.perf_counter())
    costs, low, high = problem(workload, models)
    paid = costs.per_query(0.5)
    marks.append(time.perf_counter())
    solution = solve(paid, workload.count, low, high)
    marks.append(time.perf_counter())
    chosen = choices_of_rows(workload, solution.assignment)
    marks.append(time.perf_counter())
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert np.bincount(chosen).tolist() == low.tolist()
    if costs_into is not None:
        for name, array in (("costs", paid), ("count", workload.count), ("queries", low)):
            np.save(costs_into / f"{name}.npy", array)
    names = ("collapse_s", "predict_s", "solve_s", "read_back_s")
    return {
        "queries": n_queries,
        "cells": workload.n_cells,
        "models": len(models),
        **dict(zip(names, np.diff(marks).round(4).tolist(), strict=True)),
        "total_s": marks[-1] - marks[0],
        "optimality_gap": solution.optimality_gap,
        "objective": float((solution.assigned * paid).sum()),
        "peak_bytes": peak_bytes,
    }


def against_ortools(n_queries: int, python: Path) -> dict[str, Any]:
    """Ours from tokens to models, and theirs on the cells that ours had."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, str(HERE), "--flow-once", str(n_queries), "--costs-into", directory]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        if python.exists():
            flow = [str(python), str(HERE.parent / "routing" / "ortools_flow.py"), directory]
            try:
                theirs = subprocess.run(flow, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
                found["ortools"] = json.loads(theirs.stdout)
            except subprocess.TimeoutExpired:
                found["ortools"] = {"solved": False, "s": None, "more_than_s": TIMEOUT_S}
    print(json.dumps(found), file=sys.stderr)
    return found


def frontier() -> dict[str, Any] | None:
    """The front of the Azure conversations under exact shares, to a thousandth of its extent."""
    trace = Path(os.environ.get("LLMPOWER_REFERENCE_DATA", "")) / "azure" / "AzureLLMInferenceTrace_conv.csv"
    if not trace.is_file():
        return None
    workload = read_workload(trace, {"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"})
    start_s = time.perf_counter()
    points = trace_frontier(make_models(), workload, ACCURACY, shares=SHARES)
    return {"cells": workload.n_cells, "models": 7, "points": len(points), "s": time.perf_counter() - start_s}


def against_pandas(n_queries: int) -> dict[str, Any]:
    """``llmpower route``, its start included, beside reading and writing the same file in a process that has pandas.

    The least of a few runs of each.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        τin, τout = make_tokens(n_queries)
        seconds = np.sort(np.random.default_rng(1).uniform(0, 86400, n_queries))
        when = pd.Timestamp("2026-01-01") + pd.to_timedelta(seconds, unit="s")
        pd.DataFrame({"timestamp": when, "input_tokens": τin, "output_tokens": τout}).to_parquet(
            directory / "in.parquet"
        )
        save_models(make_models(), directory / "models.json")
        pd.DataFrame({"model_name": ACCURACY.keys(), "accuracy": ACCURACY.values(), "share": SHARES.values()}).to_csv(
            directory / "accuracy.csv", index=False
        )
        files = {
            "--models": "models.json",
            "--workload": "in.parquet",
            "--accuracy": "accuracy.csv",
            "-o": "plan.parquet",
        }
        command = [
            sys.executable,
            "-m",
            "llmpower.cli.main",
            "route",
            "--zeta",
            "0.5",
            "--shares-from-accuracy",
            "--json",
        ]
        for option, file in files.items():
            command += [option, str(directory / file)]
        # Installed programs have their bytecode; here the first run writes it.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        pandas_s, route_s, solve_s = [], [], []
        # In turns, as a machine that others use as well is not the same from one to the next.
        for _ in range(RUNS):
            start_s = time.perf_counter()
            pd.read_parquet(directory / "in.parquet").to_parquet(directory / "copy.parquet")
            pandas_s.append(time.perf_counter() - start_s)
            start_s = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            route_s.append(time.perf_counter() - start_s)
            solve_s.append(json.loads(done.stdout)["solve_s"])
    return {
        "rows": n_queries,
        "pandas_s": min(pandas_s),
        "route_s": min(route_s),
        "solve_s": min(solve_s),
        "ratio": min(route_s) / min(pandas_s),
        "ratios": [route / pandas for route, pandas in zip(route_s, pandas_s, strict=True)],
    }


if __name__ == "__main__":
    main()
