"""Plans by the price or carbon of the hour: optimal, as without where hours are alike; budgets and figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, cells_table, frontier_table, make_policy, models_per_query, route, trace_frontier
from llmpower.routing.costing.costs import predict_costs
from llmpower.routing.costing.idle import Idle
from llmpower.routing.problem.rates import Weigh
from llmpower.routing.problem.shares import query_limits
from llmpower.routing.problem.tariff import Tariff
from llmpower.routing.solving.solver import GAP_LIMIT
from llmpower.routing.tradeoffs.goals import (
    AccuracyFloor,
    AmountBudget,
    AmountPerPoint,
    EnergyBudget,
    Goal,
    JoulesPerPoint,
    Knee,
)
from llmpower.units import J_PER_KWH

Models = list[WorkloadModel]
Accuracy = dict[str, float]

EUR = np.array([0.1, 0.2, 0.5, 0.2])
G = np.array([300.0, 50.0, 400.0, 20.0])
TARIFF = Tariff(True, np.arange(4), {"eur_per_kwh": EUR, "g_co2_per_kwh": G})
FLAT = Tariff(True, np.arange(24), {"eur_per_kwh": np.full(24, 0.3), "g_co2_per_kwh": np.full(24, 370.0)})
τin = np.array([8, 300, 300, 2000, 50, 8, 900, 900])
τout = np.array([500, 20, 20, 10, 1000, 500, 90, 90])
HOURS = np.array([0, 1, 2, 3, 2, 0, 2, 1])


def workload_of(tokens_in: object, tokens_out: object, hours: np.ndarray, tariff: Tariff = TARIFF) -> Workload:
    return Workload.from_tokens(tokens_in, tokens_out, row_rates=tariff.rates(hours * 3600))


WORKLOAD = workload_of(τin, τout, HOURS)
queries = st.lists(
    st.tuples(st.integers(8, 2048), st.integers(8, 2048), st.integers(0, 3)), min_size=1, max_size=12
).map(lambda rows: np.array(rows).T)


@settings(deadline=None, max_examples=40)
@given(
    queries=queries,
    zeta=st.floats(0, 1),
    weigh=st.sampled_from(["money", "carbon"]),
    shares=st.sampled_from([{}, {"small": (0.0, 0.6), "large": (0.0, 0.5)}, {"small": 0.5, "medium": (0.1, 0.5)}]),
)
def test_the_plan_is_the_optimum_with_binaries(
    models: Models,
    accuracy: Accuracy,
    oracle: object,
    queries: np.ndarray,
    zeta: float,
    weigh: Weigh,
    shares: dict[str, tuple[float, float]],
) -> None:
    workload = workload_of(*queries)
    try:
        plan = route(models, workload, accuracy, zeta=zeta, weigh=weigh, shares=shares, draws=0)
    except InputError as error:
        assert "whole number" in str(error)  # noqa: PT017  # of few queries, no band holds one
        return
    # ê and â as the paper has them, with what each query costs in its hour.
    factor = {"money": EUR, "carbon": G}[weigh][queries[2]]
    names = plan.model_names
    by_name = {model.model_name: model.energy for model in models}
    e = np.column_stack([by_name[name].predict(*queries[:2]) * factor for name in names])
    a = (queries[0] + queries[1])[:, np.newaxis] * np.array([accuracy[name] for name in names])
    paid = zeta * e / e.max() - (1 - zeta) * a / a.max()
    best = oracle(paid, *query_limits(shares, names, len(queries[0])))  # type: ignore[operator]
    assert plan.objective == pytest.approx(best, rel=1e-9, abs=1e-9 * np.abs(paid).max())
    assert plan.optimality_gap <= GAP_LIMIT
    chosen = [names.index(name) for name in models_per_query(plan)]
    rows = np.arange(len(chosen))
    assert plan.cost_eur == pytest.approx(
        (e / factor[:, None] * EUR[queries[2]][:, None])[rows, chosen].sum() / J_PER_KWH
    )
    assert plan.carbon_g == pytest.approx(
        (e / factor[:, None] * G[queries[2]][:, None])[rows, chosen].sum() / J_PER_KWH
    )
    assert plan.energy_j == pytest.approx((e / factor[:, None])[rows, chosen].sum())
    assert paid[rows, chosen].sum() == pytest.approx(plan.objective, rel=1e-9, abs=1e-9)


@settings(deadline=None, max_examples=15)
@given(
    queries=queries,
    goal=st.sampled_from([0.0, 0.3, 1.0, Knee(), AccuracyFloor(0.55)]),
    weigh=st.sampled_from(["money", "carbon", "energy"]),
    shares=st.sampled_from([{}, {"small": (0.0, 0.9)}]),
)
def test_equal_hours_are_no_hours(
    models: Models,
    accuracy: Accuracy,
    queries: np.ndarray,
    goal: float | Goal,
    weigh: Weigh,
    shares: dict[str, tuple[float, float]],
) -> None:
    options = {"zeta": goal, "shares": shares, "idle": Idle(5.0, 50.0, num_gpus=dict.fromkeys(accuracy, 1)), "draws": 3}
    try:
        without = route(models, Workload.from_tokens(*queries[:2]), accuracy, **options)  # type: ignore[arg-type]
    except InputError as error:
        assert "whole number" in str(error)  # noqa: PT017
        return
    plan = route(models, workload_of(*queries, tariff=FLAT), accuracy, weigh=weigh, **options)  # type: ignore[arg-type]
    assert plan.assigned.tolist() == without.assigned.tolist()
    for name in ("zeta", "objective", "energy_j", "weighed_j", "scaling", "prices", "threshold", "bootstrap"):
        assert getattr(plan, name) == getattr(without, name), name
    assert plan.saved_share == pytest.approx(without.saved_share, abs=1e-12)
    assert plan.saving.inside_noise == without.saving.inside_noise
    assert plan.cost_eur == pytest.approx(without.total_energy_j * 0.3 / J_PER_KWH)
    assert plan.carbon_g == pytest.approx(without.total_energy_j * 370 / J_PER_KWH)
    assert without.cost_eur is None
    assert without.carbon_g is None


@settings(deadline=None, max_examples=6)
@given(st.permutations(range(8)))
def test_order_changes_nothing(models: Models, accuracy: Accuracy, rows: list[int]) -> None:
    options = {"zeta": 0.4, "shares": {"small": 0.5, "large": (0.1, 0.4)}, "draws": 0}
    one = route(models, WORKLOAD, accuracy, **options)  # type: ignore[arg-type]
    other = route(models, workload_of(τin[rows], τout[rows], HOURS[rows]), accuracy, **options)  # type: ignore[arg-type]
    assert other.assigned.tolist() == one.assigned.tolist()
    assert (other.prices, other.cost_eur, other.carbon_g) == (one.prices, one.cost_eur, one.carbon_g)


def test_expensive_hours_get_the_frugal_model(models: Models, accuracy: Accuracy) -> None:
    # The same query in all hours: money goes to the large model where a kWh is cheapest, carbon where it is cleanest.
    workload = workload_of([300] * 4, [100] * 4, np.arange(4))
    by_hour = [
        models_per_query(
            route(models, workload, accuracy, weigh=weigh, zeta=0.5, shares={"large": 0.25, "small": 0.75})
        )
        for weigh in ("money", "carbon")
    ]
    assert [chosen.index("large") for chosen in by_hour] == [0, 3]
    # Without being asked money is pursued, carbon where there are no prices; energy on request.
    assert route(models, workload, accuracy).weighs == "money"
    only_carbon = Tariff(True, TARIFF.start, {"g_co2_per_kwh": G})
    plan = route(models, workload_of([300] * 4, [100] * 4, np.arange(4), only_carbon), accuracy)
    assert (plan.weighs, plan.cost_eur) == ("carbon", None)


def test_energy_stays_the_aim_on_request(models: Models, accuracy: Accuracy) -> None:
    without = route(models, Workload.from_tokens(τin, τout), accuracy, zeta=0.4)
    plan = route(models, WORKLOAD, accuracy, zeta=0.4, weigh="energy")
    assert plan.objective == pytest.approx(without.objective, rel=1e-12)
    assert plan.joules_per_point == without.joules_per_point
    assert plan.cost_eur is not None
    assert make_policy(plan).zeta == 0.4


@pytest.mark.parametrize("shares", [{}, {"small": 0.25, "medium": (0.1, 0.8)}])
@pytest.mark.parametrize("weigh", ["money", "carbon"])
def test_budgets_and_worth_are_in_what_is_pursued(
    models: Models, accuracy: Accuracy, weigh: Weigh, shares: dict[str, float]
) -> None:
    amount = {"money": "cost_eur", "carbon": "carbon_g"}[weigh]
    options = {"shares": shares, "draws": 0}
    least, most = (getattr(route(models, WORKLOAD, accuracy, zeta=z, weigh=weigh, **options), amount) for z in (1, 0))  # type: ignore[arg-type]
    points = trace_frontier(models, WORKLOAD, accuracy, shares=shares, weigh=weigh)
    table = frontier_table(points)
    assert table[amount].is_monotonic_decreasing
    assert table[amount].iloc[[0, -1]].tolist() == pytest.approx([most, least])
    for part in (0.2, 0.7):
        budget = AmountBudget(weigh, least + part * (most - least))
        plan = route(models, WORKLOAD, accuracy, zeta=budget, **options)  # type: ignore[arg-type]
        assert plan.weighs == weigh
        assert getattr(plan, amount) <= budget.amount * (1 + 1e-12)
        assert plan.bound is not None
        assert plan.bound.accuracy is not None
        assert plan.accuracy_token_weighted is not None
        assert plan.accuracy_token_weighted <= plan.bound.accuracy + 1e-12
        # No point of the front is within the budget and better than the bound.
        assert not any(
            getattr(p, amount) <= budget.amount and (p.accuracy_token_weighted or 0) > plan.bound.accuracy + 1e-12
            for p in points
        )
        floor = route(
            models, WORKLOAD, accuracy, zeta=AccuracyFloor(plan.accuracy_token_weighted), weigh=weigh, **options
        )  # type: ignore[arg-type]
        assert floor.bound is not None
        assert getattr(floor.bound, amount) <= getattr(plan, amount) * (1 + 1e-12)
        again = route(models, WORKLOAD, accuracy, zeta=AmountPerPoint(weigh, plan.amount_per_point or 0), **options)  # type: ignore[arg-type]
        assert again.zeta == pytest.approx(plan.zeta)
        assert again.joules_per_point is None
    unit = {"money": "EUR", "carbon": "g"}[weigh]
    with pytest.raises(
        InfeasibleError, match=rf"-budget = .* {unit}: plans under these limits take from .* {unit}; raise"
    ):
        route(models, WORKLOAD, accuracy, zeta=AmountBudget(weigh, least * 0.9), **options)  # type: ignore[arg-type]


def test_waiting_is_charged_at_the_mean(models: Models, accuracy: Accuracy) -> None:
    idle = Idle(3600.0, 50.0, num_gpus=dict.fromkeys(accuracy, 1))
    plan, without = (route(models, WORKLOAD, accuracy, zeta=0.5, idle=each, draws=0) for each in (idle, None))
    assert plan.cost_eur is not None
    assert without.cost_eur is not None
    assert plan.cost_eur - without.cost_eur == pytest.approx(3 * 0.05 * EUR.mean())
    assert plan.carbon_g == pytest.approx((without.carbon_g or 0) + 3 * 0.05 * G.mean())
    largest_eur = plan.scaling.energy_max_j * EUR.max() / J_PER_KWH
    assert plan.objective - without.objective == pytest.approx(0.5 * 3 * 0.05 * EUR.mean() / largest_eur)
    # Worth loading is what saves more than its waiting costs.
    few = route(models, WORKLOAD, accuracy, zeta=1, idle=idle, allow_unload=True, draws=0)
    assert few.unloaded == ("large", "medium")


def test_a_sample_keeps_its_rates(models: Models, accuracy: Accuracy) -> None:
    rng = np.random.default_rng(5)
    many = rng.integers(8, 2048, (2, 6000))
    plan = route(models, workload_of(*many, rng.integers(0, 4, 6000)), accuracy, draws=2)
    assert plan.bootstrap is not None
    assert 0 <= plan.bootstrap.reassigned_share <= 1
    assert sum(outcome.cost_eur or 0 for outcome in [plan]) == pytest.approx(
        (predict_costs(models, plan.workload, accuracy).energy_j * plan.assigned).sum(axis=1)
        @ plan.workload.rates.by_kind["money"].per_kwh[plan.workload.cell_rate]
        / J_PER_KWH
    )
    assert plan.saving.cost_eur == pytest.approx(
        (plan.baselines["best_blind_mix"].cost_eur or 0) - (plan.cost_eur or 0), rel=1e-12
    )
    assert plan.saved_share > 0


def test_tables_have_rates_and_amounts(models: Models, accuracy: Accuracy) -> None:
    plan = route(models, WORKLOAD, accuracy, draws=0)
    table = cells_table(plan)
    assert list(table.columns) == [
        *("input_tokens", "output_tokens", "model_name", "eur_per_kwh", "g_co2_per_kwh", "count"),
    ]
    of_query = pd.Series(zip(τin, τout, EUR[HOURS], G[HOURS], strict=True)).value_counts()
    cells = table.groupby(["input_tokens", "output_tokens", "eur_per_kwh", "g_co2_per_kwh"])["count"].sum()
    assert cells.to_dict() == of_query.to_dict()
    document = plan.to_json()
    assert (document["weighs"], document["joules_per_point"]) == ("money", None)
    assert document["cost_per_point_eur"] > 0
    assert document["baselines"]["random"]["carbon_g"] > 0
    assert document["rates"] == {
        "eur_per_kwh": {"highest": 0.5, "mean": 0.25},
        "g_co2_per_kwh": {"highest": 400.0, "mean": pytest.approx(192.5)},
    }


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"weigh": "time"}, "--weigh = time: unknown; use one of energy, money, carbon"),
        ({"zeta": EnergyBudget(1e6), "weigh": "money"}, "--weigh = money: --energy-budget says that energy is pursued"),
        ({"zeta": JoulesPerPoint(1e3), "weigh": "carbon"}, "--weigh = carbon: --joules-per-point says that energy"),
        ({"zeta": AmountBudget("money", 0.0)}, "--cost-budget = 0.0: is a number of EUR above 0"),
        ({"zeta": AmountPerPoint("carbon", -1.0)}, "--carbon-per-point = -1.0: is a number of g from 0 up"),
    ],
)
def test_refusals(models: Models, accuracy: Accuracy, options: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        route(models, WORKLOAD, accuracy, **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(complaint)


def test_what_no_tariff_says_is_refused(models: Models, accuracy: Accuracy) -> None:
    without = Workload.from_tokens(τin, τout)
    with pytest.raises(InputError, match="--weigh = money: needs a --tariff with a column eur_per_kwh"):
        route(models, without, accuracy, weigh="money")
    with pytest.raises(InputError, match=r"--carbon-budget = 9\.0: needs a --tariff with a column g_co2_per_kwh"):
        route(models, without, accuracy, zeta=AmountBudget("carbon", 9.0))
    with pytest.raises(InputError, match="tariff = none: the plan pursues money; give the tariff"):
        make_policy(route(models, WORKLOAD, accuracy, draws=0))
