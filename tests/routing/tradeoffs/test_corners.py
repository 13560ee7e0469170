"""The front in closed form is the one that solving finds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.modelling import WorkloadModel
from llmpower.routing import AccuracyTable, Workload, route, trace_frontier
from llmpower.routing.costing.costs import predict_costs
from llmpower.routing.problem.accuracy import Weighting
from llmpower.routing.problem.shares import query_limits
from llmpower.routing.tradeoffs.corners import CornerFront
from llmpower.routing.tradeoffs.tradeoff import Tradeoff

Models = list[WorkloadModel]
query = st.tuples(st.integers(1, 900), st.integers(1, 900), st.integers(1, 4), st.sampled_from(["", "code"]))
accuracies = st.lists(st.sampled_from([0.3, 0.5, 0.500001, 0.9]), min_size=3, max_size=3)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(query, min_size=1, max_size=20),
    accuracy=accuracies,
    of_code=accuracies,
    limit_s=st.sampled_from([None, 40.0]),
    by=st.sampled_from(["tokens", "queries"]),
)
def test_every_vertex_is_the_optimum_between_its_breakpoints(
    models: Models,
    rows: list[tuple[int, int, int, str]],
    accuracy: list[float],
    of_code: list[float],
    limit_s: float | None,
    by: Weighting,
) -> None:
    τin, τout, count, classes = zip(*rows, strict=True)
    workload = Workload.from_tokens(τin, τout, count, np.array(classes))
    names = ("small", "medium", "large")
    table = AccuracyTable(
        dict(zip(names, accuracy, strict=True)),
        by_class={name: {"code": value} for name, value in zip(names, of_code, strict=True)},
    )
    costs = predict_costs(models, workload, table, weighting=by, max_runtime_s=limit_s)
    if costs.late is not None and costs.late.all(axis=1).any():
        return
    limits = query_limits({}, costs.model_names, workload.n_queries)
    front, tradeoff = CornerFront(costs, limits), Tradeoff(costs, limits)
    assert (np.diff(front.rate) > 0).all()
    edges = [1.0, *(front.zeta(rate / 100) for rate in front.rate), 0.0]
    assert edges == sorted(edges, reverse=True)
    for high, low in pairwise(edges):
        # Breakpoints that differ by rounding have nothing between them.
        if high - low > 1e-9:
            zeta = (high + low) / 2
            (found,) = front._outcomes([(zeta, front.vertex(zeta))])
            assert found[1].objective == pytest.approx(tradeoff.at(zeta).outcome.objective, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("tolerance", [0.3, 0.01, 1e-3])
def test_points_are_those_of_the_chords(models: Models, accuracy: dict[str, float], tolerance: float) -> None:
    rng = np.random.default_rng(3)
    workload = Workload.from_tokens(rng.integers(8, 2000, 400), rng.integers(8, 900, 400))
    costs = predict_costs(models, workload, accuracy)
    chords = Tradeoff(costs, query_limits({}, costs.model_names, workload.n_queries)).front(tolerance)
    corners = trace_frontier(models, workload, accuracy, tolerance=tolerance)[::-1]
    assert [point.zeta for point in corners] == pytest.approx([point.zeta for point in chords], rel=1e-9)
    assert [point.energy_j for point in corners] == pytest.approx([point.energy_j for point in chords], rel=1e-12)
    for point in (corners[0], corners[-1], corners[len(corners) // 2]):
        plan = route(models, workload, accuracy, zeta=point.zeta)
        assert plan.objective == pytest.approx(point.objective, rel=1e-12)


def test_a_front_of_one_plan(models: Models) -> None:
    workload = Workload.from_tokens([100, 200], [50, 60])
    (point,) = trace_frontier(models, workload, {"small": 0.9, "medium": 0.6, "large": 0.7})
    assert point.shares["small"] == 1
