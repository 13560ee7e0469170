"""Models to route to, and the published formulation (one binary per query and model) as an oracle."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pulp
import pytest
from numpy.typing import NDArray

from llmpower.modelling import WorkloadModel, fit
from llmpower.routing import AccuracyTable, Workload, read_accuracy, read_workload

LENGTHS = (8, 64, 512, 2048)
LLAMAS = ("Llama-2-7B", "Llama-2-13B", "Llama-2-70B")

Oracle = Callable[..., float]


@pytest.fixture(scope="session")
def models() -> list[WorkloadModel]:
    """Three servers with a KV cache, each costlier than the one before but by different factors in τin and τout."""
    rows = [
        (name, τin, τout, p1 * τin + d0 * τout, (p1 * τin + d0 * τout) / 300)
        for name, p1, d0 in (("small", 0.1, 4.0), ("medium", 0.3, 6.0), ("large", 0.5, 40.0))
        for τin in LENGTHS
        for τout in LENGTHS
    ]
    columns = ["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"]
    return fit(pd.DataFrame(rows, columns=columns), form="cached")


@pytest.fixture(scope="session")
def accuracy() -> dict[str, float]:
    return {"small": 0.5, "medium": 0.6, "large": 0.7}


@pytest.fixture(scope="session")
def llamas(paper_data: Path) -> list[WorkloadModel]:
    grid = pd.read_csv(paper_data / "paper" / "grid.csv")
    return fit(grid[grid["model_name"].isin(LLAMAS)], form="auto")


@pytest.fixture(scope="session")
def leaderboard(paper_data: Path) -> AccuracyTable:
    return read_accuracy(paper_data / "paper" / "accuracy.csv")


@pytest.fixture(scope="session")
def azure(paper_data: Path) -> Workload:
    columns = {"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"}
    return read_workload(paper_data / "azure" / "AzureLLMInferenceTrace_conv.csv", columns)


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """Least cost by CBC: ``costs`` has shape (n_queries, n_models), ``low`` and ``high`` limit queries a model."""

    def solve(costs: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64]) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of names that PuLP 4 will replace and PuLP 2 needs
            return _solve_binary(costs, low, high)

    return solve


def _solve_binary(costs: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64]) -> float:
    queries, models = (range(length) for length in costs.shape)
    problem = pulp.LpProblem(sense=pulp.LpMinimize)
    x = [[pulp.LpVariable(f"x_{q}_{k}", cat="Binary") for k in models] for q in queries]
    # CBC's tolerances are absolute; costs of the order of 1 give them the meaning that they were made for.
    scale = np.abs(costs).max() or 1.0
    problem += pulp.lpSum(costs[q, k] / scale * x[q][k] for q in queries for k in models)
    for q in queries:
        problem += pulp.lpSum(x[q]) == 1
    for k in models:
        problem += pulp.lpSum(x[q][k] for q in queries) >= int(low[k])
        problem += pulp.lpSum(x[q][k] for q in queries) <= int(high[k])
    # Of 1e-7 each, a tolerance would let costs that differ by a ζ as small pass for equal.
    tight = [f"{side}Tolerance 1e-10" for side in ("primal", "dual")]
    status = problem.solve(pulp.PULP_CBC_CMD(msg=False, gapRel=0, gapAbs=0, options=tight))
    assert pulp.LpStatus[status] == "Optimal"
    return float(sum(costs[q, k] * round(x[q][k].value()) for q in queries for k in models))
