"""The slider's plans are efficient, whole and in order, and what they come to is what the map shows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.report import Factors, Hours, Plans, plan_steps, read_steps
from llmpower.report.plan_figures import span, zeta_words
from llmpower.report.slider import saved
from llmpower.routing import Workload, frontier_table, route, trace_frontier
from llmpower.routing.problem.tariff import Tariff
from llmpower.routing.tradeoffs.goals import AccuracyFloor
from llmpower.units import J_PER_KWH

ODD = 'large <b>"&amp;"</b> [x]'
ACCURACY = {"small": 0.5, ODD: 0.6}


def test_plans_go_from_most_accuracy_to_least_energy(plans: Plans) -> None:
    zetas, energy_j = [step.zeta for step in plans.steps], [step.energy_j for step in plans.steps]
    assert zetas == sorted(zetas)
    assert energy_j == sorted(energy_j, reverse=True)
    assert len(plans.steps) > 3
    assert plans.singles[ODD].energy_j == pytest.approx(energy_j[0])
    assert plans.singles["small"].energy_j == pytest.approx(energy_j[-1])


def test_each_plan_is_the_one_that_route_finds(models: list[WorkloadModel], plans: Plans) -> None:
    random = np.random.default_rng(1)
    workload = Workload.from_tokens(random.integers(8, 129, 200), random.integers(8, 65, 200))
    for step in plans.steps[1:-1]:
        plan = route(models, workload, ACCURACY, zeta=step.zeta, draws=0)
        assert plan.objective == pytest.approx(_objective(step, plan.scaling, workload), rel=1e-9)
    knee = route(models, workload, ACCURACY, draws=0)
    nearest = min(range(len(plans.steps)), key=lambda n: abs(plans.steps[n].zeta - knee.zeta))
    assert plans.chosen == nearest


def _objective(step: object, scaling: object, workload: Workload) -> float:
    tokens = float(workload.tokens @ workload.count)
    accuracy = step.accuracy_token_weighted * tokens / scaling.accuracy_max  # type: ignore[attr-defined]
    energy = step.energy_j / scaling.energy_max_j  # type: ignore[attr-defined]
    return float(step.zeta * energy - (1 - step.zeta) * accuracy)  # type: ignore[attr-defined]


def test_the_map_holds_every_query(plans: Plans) -> None:
    mapped = plans.mapped
    assert mapped is not None
    assert mapped.count.sum() == plans.n_queries == 200
    assert mapped.model.shape == mapped.share.shape == (len(plans.steps), len(mapped.count))
    assert ((mapped.share > 0) & (mapped.share <= 1)).all()
    # At the ends everything goes to one model.
    assert set(mapped.model[0]) == {plans.model_names.index(ODD)}
    assert set(mapped.model[-1]) == {plans.model_names.index("small")}
    assert (mapped.input_low < mapped.input_high).all()


def test_shares_are_kept(models: list[WorkloadModel]) -> None:
    workload = Workload.from_tokens([8, 64, 128, 32] * 25, [8, 8, 64, 32] * 25)
    found = plan_steps(models, workload, ACCURACY, shares={"small": 0.4}, weighting="queries")
    assert all(step.shares["small"] == pytest.approx(0.4) for step in found.steps)
    assert found.accuracy(found.steps[0]) == found.steps[0].accuracy_query_mean


def test_plans_pursue_what_the_tariff_bills(
    models: list[WorkloadModel], hourly: Plans, tariff: Tariff, day: pd.DataFrame
) -> None:
    workload = Workload.from_frame(day, tariff)
    assert (hourly.weighs, hourly.tariff) == ("money", ("money", "carbon"))
    costs = [step.cost_eur or 0 for step in hourly.steps]
    assert costs == sorted(costs, reverse=True)
    for step in hourly.steps[1:-1:4]:
        plan = route(models, workload, ACCURACY, zeta=step.zeta, draws=0)
        assert hourly.amount(step) == pytest.approx(plan.cost_eur)
        assert step.amount_per_point == pytest.approx(plan.amount_per_point)
        assert plan.energy is not None
        assert step.intervals["energy"] == pytest.approx((plan.energy.low_j, plan.energy.high_j))
        low, high = step.intervals["money"]
        assert low < hourly.amount(step) < high
    assert hourly.steps[hourly.chosen].zeta == pytest.approx(route(models, workload, ACCURACY, draws=0).zeta, abs=0.05)


def test_as_accurate_without_the_hours_is_the_least_energy(
    models: list[WorkloadModel], hourly: Plans, tariff: Tariff, day: pd.DataFrame
) -> None:
    workload = Workload.from_frame(day, tariff)
    less = []
    for step in hourly.steps:
        assert step.flat is not None
        assert hourly.accuracy(step.flat) >= hourly.accuracy(step) - 1e-12
        floor = AccuracyFloor(hourly.accuracy(step) - 1e-12)
        bound = route(models, workload, ACCURACY, zeta=floor, weigh="energy", draws=0).bound
        assert bound is not None
        assert step.flat.energy_j == pytest.approx(bound.energy_j, rel=1e-6)
        less.append(hourly.amount(step.flat) - hourly.amount(step))
    assert min(less) > -1e-12 * hourly.amount(hourly.steps[0])
    assert max(less) > 0.01 * hourly.amount(hourly.steps[0])


def test_hours_share_all_energy_and_its_bill(hourly: Plans, tariff: Tariff, day: pd.DataFrame) -> None:
    by_hour = hourly.by_hour
    assert by_hour is not None
    assert by_hour.flat_j is not None
    assert by_hour.queries.sum() == day["count"].sum() == hourly.n_queries
    price = tariff.per_kwh["eur_per_kwh"] / J_PER_KWH
    for step, of_hours, flat_j in zip(hourly.steps, by_hour.energy_j, by_hour.flat_j, strict=True):
        assert of_hours.sum() == pytest.approx(step.energy_j)
        assert of_hours.sum(axis=1) @ price == pytest.approx(step.cost_eur)
        assert step.flat is not None
        assert flat_j @ price == pytest.approx(step.flat.cost_eur)
    assert by_hour.most_j >= by_hour.energy_j.sum(axis=2).max()


def test_where_all_hours_are_alike_looking_at_them_saves_nothing(
    models: list[WorkloadModel], day: pd.DataFrame
) -> None:
    tariff = Tariff(True, np.arange(24), {"eur_per_kwh": np.full(24, 0.25)})
    hours = Hours.of(tariff, day["timestamp"])
    found = plan_steps(models, Workload.from_frame(day, tariff), ACCURACY, hours=hours)
    for step in found.steps:
        assert step.flat is not None
        assert found.amount(step.flat) == pytest.approx(found.amount(step), rel=1e-9)
    assert all("; 0.0 % less than at the same accuracy" in saved(found, step) for step in found.steps)
    energy = plan_steps(models, Workload.from_frame(day, tariff), ACCURACY, weigh="energy", hours=hours)
    assert energy.steps[0].flat is None
    assert [step.energy_j for step in energy.steps] == pytest.approx([step.energy_j for step in found.steps])


def test_a_front_of_money_is_read_as_one(models: list[WorkloadModel], tariff: Tariff, day: pd.DataFrame) -> None:
    points = trace_frontier(models, Workload.from_frame(day, tariff), ACCURACY)
    found = read_steps(frontier_table(points), simulated=True)
    assert (found.weighs, found.tariff) == ("money", ("money", "carbon"))
    assert [step.cost_eur for step in found.steps] == [point.cost_eur for point in points]
    assert [step.amount_per_point for step in found.steps] == [point.amount_per_point for point in points]


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"zeta": "x"}, "= x: row 2 holds no plan's zeta"),
        ({"energy_j": None}, "= empty: row 2 holds no plan's energy_j"),
        ({"runtime_s": 0.0}, "= 0.0: row 2 holds no plan's runtime_s"),
        ({"share:small": 1.5}, "= 1.5: row 2 holds no plan's share:small"),
        ({"accuracy_token_weighted": None, "accuracy_query_mean": None}, "no plan's accuracy_token_weighted"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_no_front_is_refused_by_its_row(
    models: list[WorkloadModel], wrong: dict[str, object], complaint: str
) -> None:
    front = frontier_table(trace_frontier(models, Workload.from_tokens([8, 90], [8, 60]), ACCURACY)).astype(object)
    for column, value in wrong.items():
        front.loc[1, column] = value
    with pytest.raises(InputError, match=complaint):
        read_steps(front, simulated=True)


def test_accuracies_are_needed(models: list[WorkloadModel]) -> None:
    with pytest.raises(InputError, match="a trade-off needs accuracies"):
        plan_steps(models, Workload.from_tokens([8], [8]), None)


@pytest.mark.parametrize(
    ("factors", "option"),
    [
        (Factors(price_per_kwh=-1), "--price-per-kwh"),
        (Factors(carbon_g_per_kwh=float("nan")), "--co2-per-kwh"),
        (Factors(pue=0.9), "--pue"),
    ],
    ids=["price", "carbon", "pue"],
)
def test_factors_that_are_none(factors: Factors, option: str) -> None:
    with pytest.raises(InputError, match=f"^{option} = "):
        factors.check()


def test_a_kilowatt_hour_costs_what_it_costs() -> None:
    assert Factors(0.25, 400, 1.0).cost(3.6e6) == 0.25
    assert Factors(0.25, 400, 1.5).carbon_g(3.6e6) == 600


def test_zeta_shows_where_it_differs() -> None:
    assert [zeta_words(zeta) for zeta in (1e-6, 0.5, 0.287, 0.99953, 0.004, 1 - 1e-6)] == [
        *("0", "0.500", "0.287", "0.999530", "0.00400", "1")
    ]
    assert (span(22.6, 32.0), span(0.7, 1.4), span(724.1, 1448.2)) == ("23–32", "1", "725–1,448")
