"""Policies for the online router: servers with a KV cache whose costlier models are better, over random workloads."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling import WorkloadModel
from llmpower.routing import RoutingPolicy, Workload, make_policy, route
from llmpower.routing.problem.shares import Share

THIRDS: dict[str, Share] = {"small": 0.5, "medium": 0.3, "large": 0.2}
Queries = tuple[NDArray[np.int64], NDArray[np.int64]]


def queries(n: int, seed: int, longer: float = 1.0) -> Queries:
    """τin and τout; what is asked shortly is answered at length, and ``longer`` makes all answers so."""
    chance = np.random.default_rng(seed)
    τin = np.exp(chance.uniform(np.log(10), np.log(2000), n)).astype(np.int64)
    τout = np.clip(longer * (20000 / (τin + 40)) * chance.uniform(0.5, 1.5, n), 1, 2000).astype(np.int64)
    return τin, τout


def make(
    models: list[WorkloadModel],
    accuracy: dict[str, float],
    past: Queries,
    shares: dict[str, Share] | None = None,
    zeta: float = 0.5,
) -> RoutingPolicy:
    plan = route(models, Workload.from_tokens(*past), accuracy, zeta=zeta, shares=THIRDS if shares is None else shares)
    return make_policy(plan)
