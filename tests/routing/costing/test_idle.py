"""Waiting is charged to loaded models, and the set worth loading is the best of all sets."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, make_policy, route
from llmpower.routing.costing.costs import predict_costs
from llmpower.routing.costing.idle import Idle, cheapest_set, parse_idle_watts
from llmpower.routing.problem.shares import query_limits
from llmpower.routing.solving.solver import solve

Models = list[WorkloadModel]
GPUS = {"small": 1, "medium": 1, "large": 4}
rng = np.random.default_rng(11)
WORKLOAD = Workload.from_tokens(rng.integers(8, 2000, 80), rng.integers(8, 900, 80))


def test_idle_energy_is_gpus_times_watts_times_horizon(models: Models, accuracy: dict[str, float]) -> None:
    idle = Idle(3600, 50, {"large": 60}, GPUS)
    plan = route(models, WORKLOAD, accuracy, idle=idle)
    assert plan.idle_energy_j == (50 + 50 + 4 * 60) * 3600
    # Nothing may be unloaded, so it is the same whatever is done with the queries.
    assert {outcome.idle_energy_j for outcome in plan.baselines.values()} == {plan.idle_energy_j}
    without = route(models, WORKLOAD, accuracy)
    assert without.idle_energy_j is None
    assert plan.assigned.tolist() == without.assigned.tolist()
    assert plan.energy_j == without.energy_j
    assert plan.objective == pytest.approx(
        without.objective + plan.zeta * plan.idle_energy_j / plan.scaling.energy_max_j
    )


@pytest.mark.parametrize("horizon_s", [1.0, 300.0, 3000.0, 1e6])
@pytest.mark.parametrize("shares", [{}, {"small": 0.25}, {"large": (0.0, 0.3)}])
@pytest.mark.parametrize("zeta", [0.2, 0.8])
def test_the_loaded_set_is_the_best_of_all(
    models: Models, accuracy: dict[str, float], horizon_s: float, shares: dict[str, float], zeta: float
) -> None:
    idle = Idle(horizon_s, 50, num_gpus=GPUS)
    plan = route(models, WORKLOAD, accuracy, zeta=zeta, shares=shares, idle=idle, allow_unload=True)
    costs = predict_costs(models, WORKLOAD, accuracy, idle=idle, allow_unload=True)
    low, high = query_limits(shares, costs.model_names, WORKLOAD.n_queries)
    paid, charges = costs.per_query(zeta), zeta * costs.idle_j / costs.scaling.energy_max_j
    totals = []
    for loaded in (list(columns) for size in (1, 2, 3) for columns in combinations(range(3), size)):
        if high[loaded].sum() >= WORKLOAD.n_queries and low.sum() == low[loaded].sum():
            assigned = solve(paid[:, loaded], WORKLOAD.count, low[loaded], high[loaded]).assigned
            totals.append((assigned * paid[:, loaded]).sum() + charges[loaded].sum())
    assert plan.objective == pytest.approx(min(totals), rel=1e-9)
    used = {name for name, load in plan.models.items() if load.queries}
    assert plan.idle_energy_j == sum(GPUS[name] for name in used) * 50 * horizon_s
    assert not used & set(plan.unloaded)


def test_what_is_unloaded_has_no_price(models: Models, accuracy: dict[str, float]) -> None:
    plan = route(models, WORKLOAD, accuracy, zeta=0.9, idle=Idle(1e6, 50, num_gpus=GPUS), allow_unload=True)
    assert plan.unloaded == ("large", "medium")
    # Whatever else the models might cost, there is nowhere else to go.
    assert plan.bootstrap.reassigned_share_p95 == 0
    assert list(plan.prices) == [model.name for model in make_policy(plan).models] == ["small"]


@pytest.mark.parametrize(
    ("idle", "complaint"),
    [
        (Idle(0, 50, num_gpus=GPUS), "--horizon = 0: "),
        (Idle(float("nan"), 50, num_gpus=GPUS), "--horizon = nan: "),
        (Idle(60, -1, num_gpus=GPUS), "--idle-watts = -1: "),
        (Idle(60, None, {"small": 50}, GPUS), "--idle-watts = large: has none"),
        (Idle(60, 50, {"huge": 50}, GPUS), "--idle-watts = huge: is not among the models"),
        (Idle(60, 50), "num_gpus = missing: large has none"),
    ],
)
def test_refusals(models: Models, accuracy: dict[str, float], idle: Idle, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        route(models, WORKLOAD, accuracy, idle=idle)
    assert str(caught.value).startswith(complaint)


def test_unloading_needs_to_know_what_waiting_costs(models: Models, accuracy: dict[str, float]) -> None:
    with pytest.raises(InputError, match="--allow-unload = no idle energy: "):
        route(models, WORKLOAD, accuracy, allow_unload=True)


@settings(deadline=None)
@given(data=st.data())
def test_no_set_is_better_than_the_one_that_is_found(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 5))
    whole = st.integers(0, 6)
    charges = np.array(data.draw(st.lists(whole, min_size=n, max_size=n)), float)
    paid = np.array(data.draw(st.lists(st.lists(whole, min_size=n, max_size=n), min_size=1, max_size=6)), float)
    low = np.array(data.draw(st.lists(st.sampled_from([0, 0, 0, 1]), min_size=n, max_size=n)))
    high = np.full(n, len(paid))
    # What matters of an optimum: it takes each query's cheapest, and fewer choices never make it cheaper.
    found = cheapest_set(charges, low, high, len(paid), lambda loaded: float(paid[:, loaded].min(axis=1).sum()))
    totals = [
        paid[:, loaded].min(axis=1).sum() + charges[list(loaded)].sum()
        for size in range(1, n + 1)
        for loaded in combinations(range(n), size)
        if set(np.flatnonzero(low)) <= set(loaded)
    ]
    assert paid[:, found].min(axis=1).sum() + charges[found].sum() == min(totals)
    assert set(np.flatnonzero(low)) <= set(found.tolist())


@given(st.lists(st.text("ab=0123456789.e-", max_size=6), max_size=4))
def test_any_text_is_watts_or_refused(texts: list[str]) -> None:
    try:
        watts, by_model = parse_idle_watts(texts)
    except InputError:
        return
    assert len(by_model) + (watts is not None) == len(texts)


def test_watts_are_for_all_or_for_one() -> None:
    assert parse_idle_watts(["50", "a=65", "b=c=7"]) == (50.0, {"a": 65.0, "b=c": 7.0})
    for wrong in (["x"], ["a="], ["50", "60"], ["a=1", "a=2"]):
        with pytest.raises(InputError, match="--idle-watts"):
            parse_idle_watts(wrong)
