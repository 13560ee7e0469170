"""Limits on GPU-seconds: kept at least cost, and refused with limits that would do."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pulp
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array, eye_array, kron, vstack

from llmpower.exceptions import InfeasibleError, InputError, LlmpowerError
from llmpower.modelling import WorkloadModel
from llmpower.routing import AccuracyTable, Workload, route
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.costing.idle import Idle
from llmpower.routing.problem.gpu_seconds import ROUNDING, GpuSeconds, parse_gpu_seconds
from llmpower.routing.problem.shares import Share, query_limits
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving.side_rows import solve_within
from llmpower.routing.solving.solver import solve
from llmpower.routing.tradeoffs.goals import AccuracyFloor, EnergyBudget, JoulesPerPoint

Models = list[WorkloadModel]
Accuracy = dict[str, float]
GPUS = {"small": 1, "medium": 1, "large": 4}
rng = np.random.default_rng(17)
WORKLOAD = Workload.from_tokens(rng.integers(8, 2000, 250), rng.integers(8, 1000, 250), rng.integers(1, 5, 250))


def seconds_of(costs: Costs, assigned: IntArray) -> dict[str, float]:
    """By model: seconds of its queries times its GPUs."""
    assert costs.runtime_s is not None
    seconds = (assigned * costs.runtime_s).sum(axis=0)
    return {name: GPUS[name] * float(used) for name, used in zip(costs.model_names, seconds, strict=True)}


def by_highs(
    costs: Costs, zeta: float, limits: tuple[IntArray, IntArray], seconds: dict[str, float], *, whole: bool
) -> OptimizeResult:
    """The whole problem at once, in whole queries or in fractions."""
    assert costs.runtime_s is not None
    paid = costs.per_query(zeta)
    n_cells, n_models = paid.shape
    uses = np.zeros((len(seconds), n_cells, n_models))
    for row, name in enumerate(seconds):
        column = costs.model_names.index(name)
        uses[row, :, column] = GPUS[name] * costs.runtime_s[:, column] / seconds[name] * 1000
    scale = np.abs(paid).max() / 1000
    count = costs.workload.count
    of_cells, of_models = kron(eye_array(n_cells), np.ones((1, n_models))), np.ones((1, n_cells))
    rows = vstack([of_cells, kron(of_models, eye_array(n_models)), csr_array(uses.reshape(len(seconds), -1))])
    low = np.concatenate([count, limits[0], np.full(len(seconds), -np.inf)])
    high = np.concatenate([count, limits[1], np.full(len(seconds), 1000.0)])
    found = milp(
        paid.ravel() / scale,
        integrality=np.full(paid.size, int(whole)),
        bounds=Bounds(0, np.repeat(count, n_models)),
        constraints=LinearConstraint(csr_array(rows), low, high),
        options={"mip_rel_gap": 0},
    )
    if found.fun is not None:
        found.fun *= scale
    return found


def by_cbc(costs: Costs, zeta: float, limits: tuple[IntArray, IntArray], seconds: dict[str, float]) -> float:
    """One binary per query and model."""
    assert costs.runtime_s is not None
    cells = np.repeat(np.arange(costs.workload.n_cells), costs.workload.count)
    paid, runtime_s = costs.per_query(zeta)[cells], costs.runtime_s[cells]
    scale = np.abs(paid).max()
    problem, models = pulp.LpProblem(sense=pulp.LpMinimize), range(len(costs.choices))
    x = [[pulp.LpVariable(f"x_{q}_{K}", cat="Binary") for K in models] for q in range(len(paid))]
    problem += pulp.lpSum(paid[q, K] / scale * x[q][K] for q in range(len(paid)) for K in models)
    for of_query in x:
        problem += pulp.lpSum(of_query) == 1
    for column, name in enumerate(costs.model_names):
        load = pulp.lpSum(of_query[column] for of_query in x)
        problem += load >= int(limits[0][column])
        problem += load <= int(limits[1][column])
        if name in seconds:
            spent = pulp.lpSum(
                GPUS[name] * runtime_s[q, column] / seconds[name] * x[q][column] for q in range(len(paid))
            )
            problem += spent <= 1
    assert pulp.LpStatus[problem.solve(pulp.PULP_CBC_CMD(msg=False, gapRel=0, gapAbs=0))] == "Optimal"
    return float(sum(paid[q, K] * round(x[q][K].value()) for q in range(len(paid)) for K in models))


shares_of_three = st.sampled_from(
    [{}, {"large": 0.25}, {"small": (0.1, 0.6), "large": (0.25, 1.0)}, {"small": 0.25, "medium": 0.25, "large": 0.5}]
)
parts_of_three = st.dictionaries(st.sampled_from(sorted(GPUS)), st.floats(0.05, 1.3), min_size=1)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    zeta=st.floats(0, 1),
    shares=shares_of_three,
    parts=parts_of_three,
)
@example(seed=1, zeta=0.75, shares={"large": 0.25}, parts={"medium": 1.0, "small": 0.5})
@example(seed=577760, zeta=0.96875, shares={}, parts={"medium": 0.75, "small": 0.5})  # takes more than 500 nodes
def test_the_best_plan_within_the_limits_or_none_there_is(
    models: Models, accuracy: Accuracy, seed: int, zeta: float, shares: dict[str, Share], parts: dict[str, float]
) -> None:
    drawn = np.random.default_rng(seed)
    workload = Workload.from_tokens(drawn.integers(8, 2000, 10), drawn.integers(8, 900, 10), drawn.integers(1, 4, 10))
    costs = predict_costs(models, workload, accuracy, gpu_seconds=GpuSeconds({"small": 1.0}, GPUS))
    limits = query_limits(shares, costs.model_names, workload.n_queries)
    free = solve(costs.per_query(zeta), workload.count, *limits).assigned
    everywhere = seconds_of(costs, np.tile(workload.count[:, np.newaxis], 3) / 3)
    seconds = {name: part * (seconds_of(costs, free)[name] or everywhere[name]) for name, part in sorted(parts.items())}
    asked = GpuSeconds(seconds, GPUS)
    best = by_highs(costs, zeta, limits, seconds, whole=True)
    if best.status == 0:
        plan = route(models, workload, accuracy, zeta=zeta, shares=shares, gpu_seconds=asked, draws=0)
        assert plan.gpu_seconds == pytest.approx({name: seconds_of(costs, plan.assigned)[name] for name in seconds})
        assert all(plan.gpu_seconds[name] <= limit * (1 + 2 * ROUNDING) for name, limit in seconds.items())
        queries = plan.assigned.sum(axis=0)
        assert (limits[0] <= queries).all()
        assert (queries <= limits[1]).all()
        scale = float(np.abs(costs.per_query(zeta)).max())
        assert plan.objective == pytest.approx(best.fun, rel=1e-9, abs=2e-8 * scale)
        # As limits are kept: what rounding may add to each is worth its price.
        rounded = {name: limit * (1 + ROUNDING) for name, limit in seconds.items()}
        fractions = by_highs(costs, zeta, limits, rounded, whole=False)
        assert plan.bound.objective == pytest.approx(fractions.fun, rel=1e-8, abs=1e-8 * scale)
        assert plan.bound.fractional_gap <= 1e-12
        return
    assert best.status == 2
    with pytest.raises(InfeasibleError, match=r"^--gpu-seconds = ") as error:
        route(models, workload, accuracy, zeta=zeta, shares=shares, gpu_seconds=asked)
    least = {name: float(value) for name, value in re.findall(r"(\w+)=([\d.e+-]+)", str(error.value).split("; ")[1])}
    assert list(least) == list(seconds)
    assert by_highs(costs, zeta, limits, least, whole=True).status == 0
    if len(least) == 1:
        nearly = {name: limit * (1 - 2e-5) for name, limit in least.items()}
        assert by_highs(costs, zeta, limits, nearly, whole=True).status == 2


def test_a_bound_that_is_not_proven_is_no_plan(models: Models, accuracy: Accuracy) -> None:
    costs = predict_costs(models, WORKLOAD, accuracy, gpu_seconds=GpuSeconds({"small": 1.0}, GPUS))
    limits, paid = query_limits({}, costs.model_names, WORKLOAD.n_queries), costs.per_query(0.3)
    free = seconds_of(costs, solve(paid, WORKLOAD.count, *limits).assigned)
    asked = GpuSeconds({name: 0.8 * seconds for name, seconds in free.items() if seconds}, GPUS)
    assert len(asked.limits) > 1
    limited = predict_costs(models, WORKLOAD, accuracy, gpu_seconds=asked)
    assert limited.runtime_s is not None
    assert limited.second_rows is not None
    problem = (paid, WORKLOAD.count, limits, limited.runtime_s, limited.second_rows)
    assert solve_within(*problem).fractional_gap <= 1e-12
    with pytest.raises(LlmpowerError, match=r"could not be proven: divided queries were found to cost .* more$"):
        solve_within(*problem, most_columns=4)


@pytest.mark.parametrize("seed", range(4))
def test_binaries_find_nothing_better(models: Models, accuracy: Accuracy, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    workload = Workload.from_tokens(drawn.integers(8, 2000, 14), drawn.integers(8, 900, 14))
    shares = {"small": (0.1, 0.6)}
    free = route(models, workload, accuracy, zeta=0.3, shares=shares, draws=0)
    seconds = {name: 0.7 * GPUS[name] * load.runtime_s for name, load in free.models.items() if name != "small"}
    asked = GpuSeconds({name: limit for name, limit in seconds.items() if limit}, GPUS)
    costs = predict_costs(models, workload, accuracy, gpu_seconds=asked)
    limits = query_limits(shares, costs.model_names, workload.n_queries)
    plan = route(models, workload, accuracy, zeta=0.3, shares=shares, gpu_seconds=asked, draws=0)
    assert plan.objective == pytest.approx(by_cbc(costs, 0.3, limits, dict(asked.limits)), rel=1e-9)


def test_many_cells_are_a_little_off_and_say_so(models: Models, accuracy: Accuracy) -> None:
    free = route(models, WORKLOAD, accuracy, zeta=0.2, draws=0)
    seconds = {name: 0.6 * GPUS[name] * load.runtime_s for name, load in free.models.items() if name != "small"}
    plan = route(models, WORKLOAD, accuracy, zeta=0.2, gpu_seconds=GpuSeconds(seconds, GPUS), draws=3)
    costs = predict_costs(models, WORKLOAD, accuracy, gpu_seconds=GpuSeconds(seconds, GPUS))
    paid = costs.per_query(0.2)
    limits = query_limits({}, costs.model_names, WORKLOAD.n_queries)
    assert plan.bound.objective == pytest.approx(by_highs(costs, 0.2, limits, seconds, whole=False).fun, rel=1e-9)
    assert 0 <= plan.optimality_gap < 1e-4
    # That is due to whole queries: in fractions the bound is met.
    assert 0 <= plan.bound.fractional_gap <= 1e-12
    assert plan.optimality_gap == pytest.approx(
        (plan.objective - plan.bound.objective) / float((plan.assigned * np.abs(paid)).sum()), abs=1e-12
    )
    # What the prices say is what the limits are worth: a query goes where cost, price and seconds are least.
    charged = paid + np.array([plan.prices[name] for name in plan.model_names])
    for column, name in enumerate(plan.model_names):
        if name in seconds:
            assert costs.runtime_s is not None
            charged[:, column] += plan.second_limits[name].price * GPUS[name] * costs.runtime_s[:, column]
    elsewhere = (plan.assigned * (charged - charged.min(axis=1, keepdims=True) > 1e-9)).sum()
    assert elsewhere <= 12
    assert plan.to_json()["second_limits"]["large"]["limit"] == seconds["large"]
    assert plan.to_json()["baselines"]["single:large"]["gpu_seconds"]["large"] > seconds["large"]


def test_a_second_costs_its_price_wherever_costs_are_asked_for(models: Models, accuracy: Accuracy) -> None:
    costs = predict_costs(models, WORKLOAD, accuracy, gpu_seconds=GpuSeconds({"small": 1.0}, GPUS))
    assert costs.runtime_s is not None
    prices = np.array([0.0, 1e-3, 2.0])
    priced = replace(costs, second_prices=prices).per_query(0.5)
    np.testing.assert_allclose(priced, costs.per_query(0.5) + costs.runtime_s * prices)


def test_limits_that_do_not_bind_change_nothing(models: Models, accuracy: Accuracy) -> None:
    options = {"zeta": 0.4, "shares": {"large": 0.3}, "max_runtime_s": 60.0, "idle": Idle(60, 50, num_gpus=GPUS)}
    free = route(models, WORKLOAD, accuracy, **options)
    plan = route(models, WORKLOAD, accuracy, gpu_seconds=GpuSeconds({"large": 1e9}, GPUS), **options)
    assert plan.objective == pytest.approx(free.objective, rel=1e-12)
    assert plan.bound.objective == pytest.approx(free.objective, rel=1e-12)
    assert plan.optimality_gap < 1e-12
    assert plan.second_limits["large"].price == 0
    assert plan.bootstrap == free.bootstrap
    assert free.gpu_seconds is free.second_limits is None


def test_rows_in_another_order_make_the_same_plan(models: Models, accuracy: Accuracy) -> None:
    tokens = rng.integers(8, 900, (2, 300))
    plans = [
        route(
            models,
            Workload.from_tokens(*tokens[:, order]),
            accuracy,
            zeta=0.3,
            gpu_seconds=GpuSeconds({"large": 900, "medium": 600}, GPUS),
            draws=0,
        )
        for order in (np.arange(300), rng.permutation(300))
    ]
    assert plans[0].assigned.tolist() == plans[1].assigned.tolist()


def test_a_name_holds_for_all_systems_of_a_model(models: Models) -> None:
    frugal = next(model for model in models if model.model_name == "small")
    both = [replace(frugal, system="a100"), replace(frugal, system="h100")]
    limit = route(both, WORKLOAD, zeta=1, draws=0).runtime_s
    plan = route(both, WORKLOAD, zeta=1, gpu_seconds=GpuSeconds({"small": limit * 1.01}, GPUS), draws=0)
    assert plan.gpu_seconds == {"small": pytest.approx(limit)}
    with pytest.raises(
        InfeasibleError, match=r"^--gpu-seconds = small=[\d.]+: the queries cannot be served within that"
    ):
        route(both, WORKLOAD, zeta=1, gpu_seconds=GpuSeconds({"small": limit * 0.99}, GPUS))


def test_a_latency_limit_stays_beside_it(models: Models, accuracy: Accuracy) -> None:
    free = route(models, WORKLOAD, accuracy, zeta=0.2, max_runtime_s=30, draws=0)
    seconds = {"large": 0.5 * 4 * free.models["large"].runtime_s}
    plan = route(models, WORKLOAD, accuracy, zeta=0.2, max_runtime_s=30, gpu_seconds=GpuSeconds(seconds, GPUS))
    assert plan.late_queries == 0
    assert 0.99 * seconds["large"] < plan.gpu_seconds["large"] <= seconds["large"] * (1 + 2 * ROUNDING)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"large": 0.0}, r"large=0: is a number of GPU-seconds above 0; to send a model nothing give it --share"),
        ({"large": float("nan")}, "large=nan: is a number"),
        ({"huge": 5.0}, "huge: is not among the models that queries are routed to: large, medium, small"),
    ],
)
def test_limits_that_are_none(models: Models, accuracy: Accuracy, limits: dict[str, float], says: str) -> None:
    with pytest.raises(InputError, match=f"^--gpu-seconds = {says}"):
        route(models, WORKLOAD, accuracy, gpu_seconds=GpuSeconds(limits, GPUS))


def test_what_it_does_not_go_with(models: Models, accuracy: Accuracy) -> None:
    asked = GpuSeconds({"large": 500.0}, GPUS)
    for goal in (EnergyBudget(1e6), AccuracyFloor(0.5)):
        with pytest.raises(InputError, match=r"^--gpu-seconds = with a budget or a floor"):
            route(models, WORKLOAD, accuracy, zeta=goal, gpu_seconds=asked)
    route(models, WORKLOAD, accuracy, zeta=JoulesPerPoint(100), gpu_seconds=GpuSeconds({"large": 5e4}, GPUS), draws=0)
    idle = Idle(60, 50, num_gpus=GPUS)
    with pytest.raises(InputError, match=r"^--gpu-seconds = with --allow-unload"):
        route(models, WORKLOAD, accuracy, idle=idle, allow_unload=True, gpu_seconds=asked)
    with pytest.raises(InputError, match=r"^num_gpus = missing: large has none; add a column"):
        route(models, WORKLOAD, AccuracyTable(accuracy), gpu_seconds=GpuSeconds({"large": 500.0}))


def test_limits_as_they_are_written() -> None:
    assert parse_gpu_seconds(["a=b=3", "c=1e4"]) == {"a=b": 3.0, "c": 1e4}
    for texts in (["=3"], ["a"], ["a=x"], ["a="]):
        with pytest.raises(InputError, match="write MODEL=S, such as Llama-2-70B=7200"):
            parse_gpu_seconds(texts)
    with pytest.raises(InputError, match="a has a limit already; give one"):
        parse_gpu_seconds(["a=3", "a=4"])
