"""ζ chosen for a goal: kept, as good as the bound allows, and refused exactly where it cannot be kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, route
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.costing.idle import Idle
from llmpower.routing.problem.gpu_seconds import ROUNDING
from llmpower.routing.problem.shares import Share, query_limits
from llmpower.routing.solving.solver import GAP_LIMIT
from llmpower.routing.tradeoffs.goals import AccuracyFloor, EnergyBudget, Goal, JoulesPerPoint, Knee
from llmpower.routing.tradeoffs.tradeoff import walk

Models = list[WorkloadModel]
Accuracy = dict[str, float]
SHARES: list[dict[str, Share]] = [{}, {"small": 0.3, "medium": 0.3, "large": 0.4}, {"small": (0.2, 0.5), "large": 0.25}]

rows = st.lists(st.tuples(st.integers(8, 2048), st.integers(8, 2048), st.integers(1, 30)), min_size=1, max_size=20)
workloads = rows.map(lambda rows: Workload.from_tokens(*np.array(rows).T)).filter(
    lambda w: w.n_queries >= 5
)  # for bands


def linear_program(costs: Costs, shares: dict[str, Share], minimised: str, limit: float) -> float | None:
    """Least energy at a mean accuracy, or most mean accuracy at an energy, by HiGHS; ``None`` if there is none."""
    n_cells, n_models = costs.energy_j.shape
    low, high = query_limits(shares, costs.model_names, costs.workload.n_queries)
    loads = np.kron(np.ones((1, n_cells)), np.eye(n_models))
    e = costs.energy_j.ravel() / costs.energy_j.max()
    a = costs.query_accuracy().ravel() / float(costs.workload.tokens @ costs.workload.count)
    objective, row, most = (-a, e, limit / costs.energy_j.max()) if minimised == "-accuracy" else (e, -a, -limit)
    result = linprog(
        objective,
        A_ub=np.vstack([loads, -loads, row]),
        b_ub=np.concatenate([high, -low, [most]]),
        A_eq=np.kron(np.eye(n_cells), np.ones((1, n_models))),
        b_eq=costs.workload.count,
    )
    if result.status == 2:
        return None
    return float(-result.fun if minimised == "-accuracy" else result.fun * costs.energy_j.max())


def largest_exchange(values: np.ndarray) -> float:
    """No cycle of exchanges of one query on each of its arcs changes a sum of values by more."""
    return float(np.ptp(values, axis=1).max()) * values.shape[1]


@settings(deadline=None, max_examples=60)
@given(workload=workloads, shares=st.sampled_from(SHARES), part=st.floats(-0.2, 1.2))
def test_a_budget_is_kept_and_used(
    models: Models, accuracy: Accuracy, workload: Workload, shares: dict[str, Share], part: float
) -> None:
    ends = [route(models, workload, accuracy, zeta=zeta, shares=shares).energy_j for zeta in (1, 0)]
    budget_j = max(ends[0] / 2, ends[0] + part * (ends[1] - ends[0]))
    costs = predict_costs(models, workload, accuracy)
    best = linear_program(costs, shares, "-accuracy", budget_j)
    if budget_j < ends[0] * (1 - ROUNDING):
        with pytest.raises(InfeasibleError, match=r"plans under these limits take from .* J; raise the budget"):
            route(models, workload, accuracy, zeta=EnergyBudget(budget_j), shares=shares)
        assert best is None or budget_j > ends[0] * (1 - 1e-6)
        return
    plan = route(models, workload, accuracy, zeta=EnergyBudget(budget_j), shares=shares)
    assert plan.energy_j <= max(budget_j, ends[0]) * (1 + 1e-12)
    assert plan.optimality_gap <= GAP_LIMIT
    assert plan.bound is not None
    assert plan.bound.accuracy is not None
    assert plan.accuracy_token_weighted is not None
    if best is not None:
        assert plan.bound.accuracy == pytest.approx(best, rel=1e-6)
    tokens = float(workload.tokens @ workload.count)
    assert plan.accuracy_token_weighted <= plan.bound.accuracy + 1e-12
    assert plan.bound.accuracy - plan.accuracy_token_weighted <= largest_exchange(costs.query_accuracy()) / tokens


@settings(deadline=None, max_examples=60)
@given(workload=workloads, shares=st.sampled_from(SHARES), part=st.floats(-0.2, 1.2))
def test_a_floor_is_reached_with_the_least_energy(
    models: Models, accuracy: Accuracy, workload: Workload, shares: dict[str, Share], part: float
) -> None:
    ends = [route(models, workload, accuracy, zeta=zeta, shares=shares).accuracy_token_weighted for zeta in (1, 0)]
    assert ends[0] is not None
    assert ends[1] is not None
    floor = ends[0] + part * (ends[1] - ends[0])
    costs = predict_costs(models, workload, accuracy)
    best = linear_program(costs, shares, "energy", floor)
    if floor > ends[1] * (1 + ROUNDING):
        with pytest.raises(InfeasibleError, match=r"reach a mean accuracy from .*lower the floor"):
            route(models, workload, accuracy, zeta=AccuracyFloor(floor), shares=shares)
        assert best is None or floor < ends[1] + 1e-6
        return
    plan = route(models, workload, accuracy, zeta=AccuracyFloor(floor), shares=shares)
    assert plan.accuracy_token_weighted is not None
    assert plan.accuracy_token_weighted >= min(floor, ends[1]) - 1e-12
    assert plan.optimality_gap <= GAP_LIMIT
    assert plan.bound is not None
    assert plan.bound.energy_j is not None
    if best is not None:
        assert plan.bound.energy_j == pytest.approx(best, rel=1e-5)
    assert plan.bound.energy_j * (1 - 1e-12) <= plan.energy_j
    assert plan.energy_j - plan.bound.energy_j <= largest_exchange(costs.energy_j)


@pytest.mark.parametrize("weighting", ["tokens", "queries"])
@pytest.mark.parametrize("seed", range(20))
def test_the_best_model_alone_reaches_its_own_accuracy(models: Models, weighting: Any, seed: int) -> None:
    """Its mean over the queries is a quotient of sums, which may round to less."""
    random = np.random.default_rng(seed)
    workload = Workload.from_tokens(*random.integers(8, 2048, (2, 200)))
    best = round(float(random.uniform(0.6, 0.9)), 3)
    accuracy = {"small": 0.4, "medium": 0.5, "large": best}
    plan = route(models, workload, accuracy, zeta=AccuracyFloor(best), accuracy_weighting=weighting, draws=0)
    assert plan.shares["large"] == 1
    with pytest.raises(InfeasibleError, match="lower the floor"):
        route(models, workload, accuracy, zeta=AccuracyFloor(best + 1e-6), accuracy_weighting=weighting, draws=0)


@pytest.mark.parametrize("seed", range(20))
def test_the_least_energy_is_budget_enough_beside_what_waiting_takes(
    models: Models, accuracy: Accuracy, seed: int
) -> None:
    random = np.random.default_rng(seed)
    workload = Workload.from_tokens(*random.integers(8, 2048, (2, 50)))
    idle = Idle(float(random.uniform(1, 1000)), 50.0, num_gpus=dict.fromkeys(accuracy, 1))
    least = route(models, workload, accuracy, zeta=1, idle=idle, draws=0)
    plan = route(models, workload, accuracy, zeta=EnergyBudget(least.total_energy_j), idle=idle, draws=0)
    assert plan.energy_j == least.energy_j


@pytest.mark.parametrize("seed", range(10))
def test_what_a_refusal_says_can_be_had(models: Models, accuracy: Accuracy, seed: int) -> None:
    workload = Workload.from_tokens(*np.random.default_rng(seed).integers(8, 2048, (2, 50)))
    shares: dict[str, Share] = {"small": (0.1, 1), "large": (0.1, 1)}
    with pytest.raises(InfeasibleError) as refused:
        route(models, workload, accuracy, zeta=EnergyBudget(1), shares=shares, draws=0)
    least_j = float(refused.value.advice.split("take from ")[1].split(" to ")[0])
    plan = route(models, workload, accuracy, zeta=EnergyBudget(least_j), shares=shares, draws=0)
    assert least_j == pytest.approx(plan.energy_j, rel=1e-5)
    with pytest.raises(InfeasibleError) as refused:
        route(models, workload, accuracy, zeta=AccuracyFloor(1), shares=shares, draws=0)
    most = float(refused.value.advice.split(" to ")[1].split(" (")[0])
    plan = route(models, workload, accuracy, zeta=AccuracyFloor(most), shares=shares, draws=0)
    assert plan.accuracy_token_weighted == pytest.approx(most, rel=1e-5)


def test_one_cell_of_many_queries_is_divided_to_the_query(models: Models, accuracy: Accuracy) -> None:
    workload = Workload.from_tokens([500], [100], [1_000_000])
    low_j, high_j = (route(models, workload, accuracy, zeta=zeta).energy_j for zeta in (1, 0))
    plan = route(models, workload, accuracy, zeta=EnergyBudget((low_j + high_j) / 2))
    a_query_j = (high_j - low_j) / 1_000_000
    assert 0 <= (low_j + high_j) / 2 - plan.energy_j <= a_query_j


def test_the_knee_is_one_half_on_what_can_be_achieved(models: Models, accuracy: Accuracy) -> None:
    rng = np.random.default_rng(1)
    workload = Workload.from_tokens(rng.integers(8, 2000, 300), rng.integers(8, 2000, 300))
    shares: dict[str, Share] = {"small": 0.5}
    least, most, knee = (
        route(models, workload, accuracy, zeta=zeta, shares=shares) for zeta in (1 - 1e-6, 1e-6, Knee())
    )

    def halved(plan: object) -> float:
        e, a = (
            (getattr(plan, name) - getattr(least, name)) / (getattr(most, name) - getattr(least, name))
            for name in ("energy_j", "accuracy_token_weighted")
        )
        return float(e - a)

    assert halved(knee) == min(
        halved(route(models, workload, accuracy, zeta=zeta, shares=shares))
        for zeta in (knee.zeta, *np.linspace(0, 1, 21))
    )


def test_a_worth_of_a_point_is_a_zeta(models: Models, accuracy: Accuracy) -> None:
    workload = Workload.from_tokens([500, 20, 3], [100, 900, 4])
    for weighting in ("tokens", "queries"):
        for worth_j in (0, 1.5, 1e4):
            plan = route(models, workload, accuracy, zeta=JoulesPerPoint(worth_j), accuracy_weighting=weighting)
            assert plan.joules_per_point == pytest.approx(worth_j)
            other = route(models, workload, accuracy, zeta=plan.zeta, accuracy_weighting=weighting)
            mean = "accuracy_token_weighted" if weighting == "tokens" else "accuracy_query_mean"
            assert plan.energy_j - 100 * worth_j * getattr(plan, mean) == pytest.approx(
                min(
                    route(models, workload, accuracy, zeta=zeta, accuracy_weighting=weighting).energy_j
                    - 100
                    * worth_j
                    * getattr(route(models, workload, accuracy, zeta=zeta, accuracy_weighting=weighting), mean)
                    for zeta in (0, 0.3, 0.6, other.zeta, 1)
                )
            )


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32), st.floats(0, 1))
def test_a_walk_stays_between_its_ends(seed: int, part: float) -> None:
    rng = np.random.default_rng(seed)
    n_cells, n_models = 8, 4
    count = rng.integers(1, 20, n_cells)
    start, end = (rng.multinomial(count, rng.dirichlet(np.ones(n_models))) for _ in range(2))
    value = rng.random((n_cells, n_models))
    room = part * max(0.0, float(((end - start) * value).sum()))
    here = walk(start, end, value, room)
    assert (here.sum(axis=1) == count).all()
    for a, b, c in ((start, here, end), *((x.sum(axis=0) for x in (start, here, end)),)):
        assert (np.minimum(a, c) <= b).all()
        assert (b <= np.maximum(a, c)).all()
    assert ((here - start) * value).sum() <= room + 1e-9


@pytest.mark.parametrize(
    ("goal", "complaint"),
    [
        (EnergyBudget(0), "--energy-budget = 0: is a number of joules above 0"),
        (EnergyBudget(float("nan")), "--energy-budget = nan"),
        (AccuracyFloor(51), "--accuracy-floor = 51: is a fraction"),
        (JoulesPerPoint(-1), "--joules-per-point = -1: is a number"),
    ],
    ids=["budget", "nan", "floor", "point"],
)
def test_refusals(models: Models, accuracy: Accuracy, goal: Goal, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        route(models, Workload.from_tokens([5], [5]), accuracy, zeta=goal)
    assert str(caught.value).startswith(complaint)


def test_without_accuracies_there_is_nothing_to_trade(models: Models) -> None:
    with pytest.raises(InputError, match="--accuracy = none given: a trade-off needs accuracies; give a file"):
        route(models, Workload.from_tokens([5], [5]))
