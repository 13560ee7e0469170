"""A limit on latency: kept by every plan, and refused with the least one that can be."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import AccuracyTable, Workload, route, trace_frontier
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.costing.idle import Idle
from llmpower.routing.costing.latency import refuse_late
from llmpower.routing.plans.thresholds import best_threshold
from llmpower.routing.problem.shares import Share, query_limits
from llmpower.routing.solving import kernels
from llmpower.routing.solving.solver import solve
from llmpower.routing.tradeoffs.dominance import never_chosen
from llmpower.routing.tradeoffs.goals import AccuracyFloor, EnergyBudget

Models = list[WorkloadModel]
Accuracy = dict[str, float]
rng = np.random.default_rng(7)
# The large model takes up to 136 s, the others up to 18.
WORKLOAD = Workload.from_tokens(rng.integers(8, 2000, 90), rng.integers(8, 1000, 90), count=rng.integers(1, 4, 90))
LIMIT_S = 20.0


def feasible(costs: Costs, limit_s: float, low: NDArray[np.int64], high: NDArray[np.int64]) -> bool:
    """Whether HiGHS finds an assignment of the cells; the matrix is totally unimodular, so fractions do not matter."""
    assert costs.runtime_s is not None
    n_cells, n_models = costs.runtime_s.shape
    loads = np.kron(np.ones((1, n_cells)), np.eye(n_models))
    result = linprog(
        np.zeros(n_cells * n_models),
        A_ub=np.vstack([loads, -loads]),
        b_ub=np.concatenate([high, -low]),
        A_eq=np.kron(np.eye(n_cells), np.ones((1, n_models))),
        b_eq=costs.workload.count,
        bounds=[(0, 0 if runtime_s > limit_s else None) for runtime_s in costs.runtime_s.ravel()],
    )
    return bool(result.status == 0)


shares_of_three = st.fixed_dictionaries(
    {},
    optional={
        "small": st.sampled_from([0.1, 0.5, (0.1, 0.3), (0.0, 0.2)]),
        "medium": st.sampled_from([0.2, 0.4, (0.3, 0.4), (0.0, 0.1)]),
        "large": st.sampled_from([0.05, 0.3, (0.2, 1.0), (0.0, 0.1)]),
    },
)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), limit_s=st.floats(0.1, 60), shares=shares_of_three)
def test_a_limit_is_kept_or_cannot_be(
    models: Models, accuracy: Accuracy, seed: int, limit_s: float, shares: dict[str, Share]
) -> None:
    drawn = np.random.default_rng(seed)
    workload = Workload.from_tokens(drawn.integers(8, 2000, 12), drawn.integers(8, 900, 12))
    try:
        limits = query_limits(shares, ("large", "medium", "small"), workload.n_queries)
    except InfeasibleError:
        return
    costs = predict_costs(models, workload, accuracy, max_runtime_s=limit_s)
    assert costs.runtime_s is not None
    if feasible(costs, limit_s, *limits):
        plan = route(models, workload, accuracy, shares=shares, max_runtime_s=limit_s, draws=2)
        assert costs.runtime_s[plan.assigned > 0].max() <= limit_s
        assert plan.late_queries == 0
        queries = plan.assigned.sum(axis=0)
        assert (limits[0] <= queries).all()
        assert (queries <= limits[1]).all()
        return
    with pytest.raises(InfeasibleError, match=r"^--max-runtime = ") as error:
        route(models, workload, accuracy, shares=shares, max_runtime_s=limit_s)
    least_s = float(re.search(r"at least ([\d.e+]+) s", str(error.value))[1])
    assert feasible(costs, least_s, *limits)
    assert not feasible(costs, least_s * (1 - 2e-5), *limits)
    for name, low, high in re.findall(r"(\w+) can take (\d+) to (\d+) of 12", str(error.value)):
        model = costs.model_names.index(name)
        for queries, can_be in ((int(low), True), (int(high), True), (int(low) - 1, False), (int(high) + 1, False)):
            lowest, highest = (limit.copy() for limit in limits)
            lowest[model] = highest[model] = queries
            assert feasible(costs, limit_s, lowest, highest) == can_be


def test_who_is_late_everywhere_is_counted_and_named(models: Models) -> None:
    # The small model takes 0.1·τin + 4·τout joules at 300 W.
    workload = Workload.from_tokens([9, 300, 600], [3, 900, 600], count=[5, 2, 4])
    advice = r"6 of 11 queries take longer on every model, the most those of 300 \+ 900, 600 \+ 600 tokens"
    with pytest.raises(
        InfeasibleError, match=rf"--max-runtime = 5 s: {advice} \(input \+ output\); allow at least 12.1"
    ):
        route(models, workload, zeta=1, max_runtime_s=5)


def test_every_solve_keeps_the_limit(models: Models, accuracy: Accuracy) -> None:
    costs = predict_costs(models, WORKLOAD, accuracy, max_runtime_s=LIMIT_S)
    late = costs.late
    assert late is not None
    assert late.any()
    free = route(models, WORKLOAD, accuracy, max_runtime_s=LIMIT_S)
    budget_j, floor = free.energy_j * 1.02, free.accuracy_token_weighted
    assert floor is not None
    for goal in (0.0, 0.3, 1.0, EnergyBudget(budget_j), AccuracyFloor(floor - 0.01)):
        plan = route(models, WORKLOAD, accuracy, zeta=goal, max_runtime_s=LIMIT_S)
        assert not plan.assigned[late].any()
        assert plan.late_queries == 0
        assert plan.bootstrap is not None
        assert 0 <= plan.bootstrap.regret < 0.1
    front = trace_frontier(models, WORKLOAD, accuracy, max_runtime_s=LIMIT_S)
    assert [point.late_queries for point in front] == [0.0] * len(front)
    unlimited = trace_frontier(models, WORKLOAD, accuracy)
    assert front[0].accuracy_token_weighted < unlimited[0].accuracy_token_weighted


def test_a_limit_that_nothing_reaches_changes_nothing(models: Models, accuracy: Accuracy) -> None:
    without, limited = (route(models, WORKLOAD, accuracy, max_runtime_s=limit_s) for limit_s in (None, 1e6))
    assert limited.assigned.tolist() == without.assigned.tolist()
    assert {outcome.late_queries for outcome in (without, *without.baselines.values())} == {None}
    assert {outcome.late_queries for outcome in (limited, *limited.baselines.values())} == {0.0}
    assert limited.baselines["hybrid_threshold"].energy_j == without.baselines["hybrid_threshold"].energy_j
    assert limited.bootstrap == without.bootstrap


def test_late_queries_of_baselines_are_counted(models: Models, accuracy: Accuracy) -> None:
    plan = route(models, WORKLOAD, accuracy, max_runtime_s=LIMIT_S)
    costs = predict_costs(models, WORKLOAD, accuracy, max_runtime_s=LIMIT_S)
    assert costs.runtime_s is not None
    late = (costs.runtime_s > LIMIT_S).T @ WORKLOAD.count
    assert [plan.baselines[f"single:{name}"].late_queries for name in plan.model_names] == late.tolist()
    assert plan.baselines["random"].late_queries == pytest.approx(late.mean())
    shares = np.array(list(plan.shares.values()))
    assert plan.baselines["same_shares_blind"].late_queries == pytest.approx(shares @ late)


@pytest.mark.parametrize("limit_s", [14.0, 20.0, 60.0])
def test_the_threshold_breaks_the_limit_least(models: Models, accuracy: Accuracy, limit_s: float) -> None:
    costs = predict_costs(models, WORKLOAD, accuracy, max_runtime_s=limit_s)
    assert costs.runtime_s is not None
    paid = replace(costs, max_runtime_s=None).per_query(0.4)
    keys = []
    for tokens in (WORKLOAD.input_tokens, WORKLOAD.output_tokens):
        for threshold in np.unique(tokens)[:-1]:
            for below, above in permutations(range(3), 2):
                to = np.where(tokens <= threshold, below, above)
                cells = np.arange(WORKLOAD.n_cells)
                late = WORKLOAD.count @ (costs.runtime_s[cells, to] > limit_s)
                keys.append((late, WORKLOAD.count @ paid[cells, to]))
    best = best_threshold(costs, 0.4)
    assert best is not None
    assigned = kernels.assign(best.choice, WORKLOAD.count, len(costs.choices))
    late, cost = min(keys)
    assert costs.loads(assigned).late.sum() == late
    assert (assigned * paid).sum() == pytest.approx(cost)


def test_the_loaded_set_is_the_best_of_those_in_time(models: Models, accuracy: Accuracy) -> None:
    gpus = {"small": 1, "medium": 1, "large": 4}
    idle = Idle(3000, 50, num_gpus=gpus)
    # Only the small one is in time for all queries.
    limit_s = 14.0
    options = {"idle": idle, "allow_unload": True, "max_runtime_s": limit_s}
    plan = route(models, WORKLOAD, accuracy, zeta=0.6, **options)
    costs = predict_costs(models, WORKLOAD, accuracy, **options)
    assert costs.idle_j is not None
    paid, charges = costs.per_query(0.6), 0.6 * costs.idle_j / costs.scaling.energy_max_j
    totals = []
    for loaded in (list(columns) for size in (1, 2, 3) for columns in combinations(range(3), size)):
        nothing, everything = np.zeros(len(loaded), np.int64), np.full(len(loaded), WORKLOAD.n_queries)
        if np.isfinite(paid[:, loaded]).any(axis=1).all():
            x = solve(paid[:, loaded], WORKLOAD.count, nothing, everything).assigned
            totals.append(x[x > 0] @ paid[:, loaded][x > 0] + charges[loaded].sum())
    assert 1 < len(totals) < 7
    assert plan.objective == pytest.approx(min(totals), rel=1e-9)
    assert plan.late_queries == 0


def test_a_model_that_is_always_late_is_never_chosen(models: Models, accuracy: Accuracy) -> None:
    workload = Workload.from_tokens([500, 900], [300, 300])
    # 4 J a token of the small model, 40 of the large one, at 300 W.
    assert never_chosen(predict_costs(models, workload, accuracy)) == ()
    assert never_chosen(predict_costs(models, workload, accuracy, max_runtime_s=10)) == ("large",)
    # Late rivals do not count: a costlier and worse model is chosen where they would be late.
    table = AccuracyTable({"small": 0.5, "medium": 0.4, "large": 0.3})
    assert never_chosen(predict_costs(models, workload, table)) == ("large", "medium")
    costs = predict_costs(models, workload, table, max_runtime_s=10)
    assert costs.runtime_s is not None
    assert never_chosen(replace(costs, runtime_s=costs.runtime_s[:, ::-1])) == ("large", "small")


def test_a_sample_keeps_shares_as_nearly_as_it_can(
    models: Models, accuracy: Accuracy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmpower.routing.plans.bootstrap.QUERIES", 10)
    for seed in range(10):
        drawn = np.random.default_rng(seed)
        workload = Workload.from_tokens(drawn.integers(8, 2000, 95), drawn.integers(8, 900, 95))
        costs = predict_costs(models, workload, accuracy, max_runtime_s=LIMIT_S)
        assert costs.late is not None
        # Every query that the large model can take in time goes there.
        in_time = int((~costs.late[:, 0]).sum())
        plan = route(models, workload, accuracy, shares={"large": in_time / 95}, max_runtime_s=LIMIT_S)
        assert plan.models["large"].queries == in_time
        assert plan.bootstrap is not None
        assert 0 <= plan.bootstrap.reassigned_share <= 1


@pytest.mark.parametrize("limit_s", [0.0, -1.0, np.inf, np.nan])
def test_no_limit_that_is_none(models: Models, limit_s: float) -> None:
    with pytest.raises(InputError, match=r"--max-runtime = .*: is the longest that a query may take"):
        route(models, WORKLOAD, zeta=1, max_runtime_s=limit_s)


def test_many_models_make_many_patterns() -> None:
    # 70 models, more than an integer has bits; the i-th cell may go to the i-th model alone.
    runtime_s = np.where(np.eye(70, dtype=bool), 1.0, 3.0)
    workload = Workload.from_tokens(range(70), np.ones(70, int))
    costs = Costs.__new__(Costs)
    for name, value in (("runtime_s", runtime_s), ("workload", workload), ("max_runtime_s", 2.0)):
        object.__setattr__(costs, name, value)
    refuse_late(costs, (np.ones(70, np.int64), np.ones(70, np.int64)))
