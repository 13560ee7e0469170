"""Plans along ζ: each the optimum of its ζ, and monotone where theory says so."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, frontier_table, route, trace_frontier

Models = list[WorkloadModel]
rng = np.random.default_rng(5)
WORKLOAD = Workload.from_tokens(rng.integers(8, 2048, 60), rng.integers(8, 600, 60))


def test_more_zeta_is_less_energy_and_less_accuracy(models: Models, accuracy: dict[str, float]) -> None:
    table = frontier_table(trace_frontier(models, WORKLOAD, accuracy))
    assert table["zeta"].tolist() == pytest.approx(np.linspace(0, 1, 21))
    assert (table["energy_j"].diff().dropna() <= 1e-6).all()
    assert (table["accuracy_token_weighted"].diff().dropna() <= 1e-9).all()
    assert list(table.columns) == [
        *("zeta", "energy_j", "runtime_s", "accuracy_token_weighted", "accuracy_query_mean"),
        *("share:large", "share:medium", "share:small"),
    ]
    assert table.filter(like="share:").sum(axis=1).tolist() == pytest.approx([1] * 21)


def test_points_are_the_plans_of_route(models: Models, accuracy: dict[str, float]) -> None:
    shares = {"small": (0.1, 0.3), "large": 0.2}
    calls: list[tuple[int, int]] = []
    plans = trace_frontier(
        models, WORKLOAD, accuracy, zetas=(0.7, 0.2), shares=shares, progress=lambda *done: calls.append(done)
    )
    for plan, zeta in zip(plans, (0.7, 0.2), strict=True):
        assert plan.objective == route(models, WORKLOAD, accuracy, zeta=zeta, shares=shares).objective
    assert calls == [(0, 2), (1, 2), (2, 2)]


def test_zetas_are_checked_before_any_is_solved(models: Models, accuracy: dict[str, float]) -> None:
    with pytest.raises(InputError, match="--zeta = 2"):
        trace_frontier(models, WORKLOAD, accuracy, zetas=(0.5, 2))
    with pytest.raises(InputError, match="--accuracy = none given"):
        trace_frontier(models, WORKLOAD, None)
