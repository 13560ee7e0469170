"""The slider's plans are efficient, whole and in order, and what they come to is what the map shows."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.report import Factors, Plans, plan_steps
from llmpower.report.plan_figures import span, zeta_words
from llmpower.routing import Workload, route

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
