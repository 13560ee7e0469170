"""The problem: chats to seven servers with a KV cache, each costlier than the one before, at exact shares."""

from __future__ import annotations

import numpy as np
import pandas as pd

from llmpower.modelling import WorkloadModel, fit
from llmpower.routing import Workload
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.problem.shares import query_limits

LENGTHS = (8, 64, 512, 2048, 8192)
SERVERS = ((0.1, 4.0), (0.16, 5.0), (0.2, 8.0), (0.3, 9.0), (0.4, 16.0), (0.5, 25.0), (0.9, 40.0))
ACCURACY = {f"m{number}": 0.50 + 0.03 * number for number in range(7)}
SHARES = dict(zip(ACCURACY, (0.1, 0.1, 0.2, 0.15, 0.15, 0.1, 0.2), strict=True))


def make_models(n_models: int = 7) -> list[WorkloadModel]:
    """Servers with a KV cache, each costlier than the one before, by other factors in τin and τout."""
    rows = [
        (f"m{number}", τin, τout, p1 * τin + d0 * τout + 1e-5 * d0 * τin * τout, (p1 * τin + d0 * τout) / 300)
        for number, (p1, d0) in enumerate(SERVERS[:n_models])
        for τin in LENGTHS
        for τout in LENGTHS
    ]
    columns = ["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"]
    return fit(pd.DataFrame(rows, columns=columns), form="cached")


def make_tokens(n_queries: int) -> tuple[np.ndarray, np.ndarray]:
    """Token counts of chats."""
    rng = np.random.default_rng(0)
    return tuple(  # type: ignore[return-value]
        np.clip(rng.lognormal(mean, spread, n_queries), 8, most).astype(np.int64)
        for mean, spread, most in ((6.5, 1.1, 8192), (5.0, 0.9, 4096))
    )


def problem(workload: Workload, models: list[WorkloadModel]) -> tuple[Costs, np.ndarray, np.ndarray]:
    """Costs and the limits of exact shares."""
    names = [model.model_name for model in models]
    total = sum(SHARES[name] for name in names)
    costs = predict_costs(models, workload, {name: ACCURACY[name] for name in names})
    shares = {name: SHARES[name] / total for name in names}
    return costs, *query_limits(shares, costs.model_names, workload.n_queries)
