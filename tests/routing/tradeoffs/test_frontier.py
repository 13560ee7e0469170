"""The front: each point an optimum, none missing by more than the tolerance, and monotone where theory says so."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, frontier_table, route, trace_frontier

Models = list[WorkloadModel]
rng = np.random.default_rng(5)
WORKLOAD = Workload.from_tokens(rng.integers(8, 2048, 60), rng.integers(8, 600, 60))
SHARES = {"small": (0.1, 0.3), "large": 0.2}


def test_more_zeta_is_less_energy_and_less_accuracy(models: Models, accuracy: dict[str, float]) -> None:
    table = frontier_table(trace_frontier(models, WORKLOAD, accuracy))
    assert len(table) > 5
    assert table["zeta"].iloc[[0, -1]].tolist() == pytest.approx([0, 1], abs=1e-5)
    assert (table["zeta"].diff().dropna() > 0).all()
    assert (table["joules_per_point"].diff().dropna() < 0).all()
    assert (table["energy_j"].diff().dropna() < 0).all()
    assert (table["accuracy_token_weighted"].diff().dropna() < 0).all()
    assert list(table.columns) == [
        *("zeta", "joules_per_point", "energy_j", "runtime_s", "accuracy_token_weighted", "accuracy_query_mean"),
        *("share:large", "share:medium", "share:small"),
    ]
    assert table.filter(like="share:").sum(axis=1).tolist() == pytest.approx([1] * len(table))


@pytest.mark.parametrize("weighting", ["tokens", "queries"])
@pytest.mark.parametrize("shares", [{}, SHARES], ids=["free", "shares"])
def test_no_plan_lies_below_the_front_by_more_than_the_tolerance(
    models: Models, accuracy: dict[str, float], shares: dict[str, float], weighting: str
) -> None:
    options = {"shares": shares, "accuracy_weighting": weighting}
    points = trace_frontier(models, WORKLOAD, accuracy, tolerance=0.01, **options)
    pursued = "accuracy_token_weighted" if weighting == "tokens" else "accuracy_query_mean"
    e = np.array([point.energy_j for point in points])
    a = np.array([getattr(point, pursued) for point in points])
    for zeta in np.linspace(0.01, 0.99, 50):
        plan = route(models, WORKLOAD, accuracy, zeta=zeta, **options)
        # Straight up in energy or across in accuracy, from the plan to the line through the points.
        above = np.interp(getattr(plan, pursued), a[::-1], e[::-1]) - plan.energy_j
        left = getattr(plan, pursued) - np.interp(plan.energy_j, e[::-1], a[::-1])
        assert min(above / np.ptp(e), left / np.ptp(a)) <= 0.01 + 1e-9


def test_points_are_the_plans_of_route(models: Models, accuracy: dict[str, float]) -> None:
    calls: list[tuple[int, int]] = []
    points = trace_frontier(
        models, WORKLOAD, accuracy, tolerance=0.1, shares=SHARES, progress=lambda *done: calls.append(done)
    )
    for point in points:
        plan = route(models, WORKLOAD, accuracy, zeta=point.zeta, shares=SHARES)
        assert plan.objective == pytest.approx(point.objective, rel=1e-12)
        assert plan.joules_per_point == point.joules_per_point
    assert calls[-1] == (len(points), len(points))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_refusals(models: Models, accuracy: dict[str, float]) -> None:
    with pytest.raises(InputError, match="tolerance = 0"):
        trace_frontier(models, WORKLOAD, accuracy, tolerance=0)
    with pytest.raises(InputError, match="--accuracy = none given"):
        trace_frontier(models, WORKLOAD, None)
