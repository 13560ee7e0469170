"""Arguments of programs: what may be meant is taken, what may not is refused by name, value and a way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import (
    OnlineRouter,
    Trace,
    Workload,
    cells_table,
    make_policy,
    models_per_query,
    read_workload,
    route,
    rows_table,
    save_policy,
    simulate,
    trace_frontier,
)
from llmpower.routing.costing.idle import Idle
from llmpower.routing.problem.gpu_seconds import GpuSeconds
from llmpower.routing.tradeoffs.goals import (
    AccuracyFloor,
    AmountBudget,
    AmountPerPoint,
    EnergyBudget,
    JoulesPerPoint,
)

Models = list[WorkloadModel]
GPUS = {"small": 1, "medium": 1, "large": 4}
WORKLOAD = Workload.from_tokens([10, 100, 1000], [10, 300, 20], [5, 6, 7])
TABLE = pd.DataFrame({"timestamp": range(4), "input_tokens": 10, "output_tokens": [9, 9, 99, 99]})
TRACE = Trace.from_frame(TABLE)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ({"zeta": EnergyBudget("40000")}, {"zeta": EnergyBudget(40000)}),  # type: ignore[arg-type]
        ({"zeta": AccuracyFloor("0.6")}, {"zeta": AccuracyFloor(0.6)}),  # type: ignore[arg-type]
        ({"zeta": JoulesPerPoint("60")}, {"zeta": JoulesPerPoint(60)}),  # type: ignore[arg-type]
        ({"max_runtime_s": "60"}, {"max_runtime_s": 60}),
        ({"max_extrapolation": "0.5"}, {"max_extrapolation": 0.5}),
        (
            {"idle": Idle("60", "50", {"small": "9"}, {**GPUS, "large": "4"})},
            {"idle": Idle(60, 50, {"small": 9}, GPUS)},
        ),  # type: ignore[arg-type, dict-item]
        ({"gpu_seconds": GpuSeconds({"large": "50"}, GPUS)}, {"gpu_seconds": GpuSeconds({"large": 50}, GPUS)}),  # type: ignore[dict-item]
    ],
)
def test_texts_of_numbers_are_numbers(
    models: Models, accuracy: dict[str, float], text: dict[str, Any], number: dict[str, Any]
) -> None:
    plans = [route(models, WORKLOAD, accuracy, draws=0, **options).to_json() for options in (text, number)]
    for plan in plans:
        del plan["solve_s"]
    assert plans[0] == plans[1]


def test_one_model_may_be_given_as_it_is(models: Models, accuracy: dict[str, float]) -> None:
    small = next(model for model in models if model.model_name == "small")
    plan = route(small, WORKLOAD, {"small": accuracy["small"]})
    assert plan.shares == {"small": 1.0}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"zeta": AmountBudget("x", 1)}, "kind = x: is not an amount that a tariff has; give one of money, carbon"),  # type: ignore[arg-type]
        ({"zeta": AmountBudget("energy", 1)}, "kind = energy: is not an amount that a tariff has"),
        ({"zeta": AmountPerPoint(["money"], 1)}, r"kind = \['money'\]: is not an amount that a tariff has"),  # type: ignore[arg-type]
        ({"zeta": EnergyBudget("much")}, "--energy-budget = much: is a number of joules above 0"),  # type: ignore[arg-type]
        ({"max_runtime_s": "long"}, "--max-runtime = long: is the longest"),
        ({"max_extrapolation": "all"}, "--max-extrapolation = all: is a fraction"),
        ({"idle": 50}, r"idle = int: is not a charge for waiting; give Idle\(horizon_s, watts\)"),
        ({"idle": Idle("an hour", 50, {}, GPUS)}, "--horizon = an hour: is the time"),  # type: ignore[arg-type]
        ({"idle": Idle(60, "few", {}, GPUS)}, "--idle-watts = few: is what a GPU draws"),  # type: ignore[arg-type]
        ({"idle": Idle(60, 50, {}, {**GPUS, "large": 0.5})}, "num_gpus = large=0.5: is a whole number of GPUs"),  # type: ignore[dict-item]
        ({"gpu_seconds": {"large": 50}}, r"gpu_seconds = dict: are not limits; give GpuSeconds\("),
        ({"gpu_seconds": GpuSeconds({"large": "few"}, GPUS)}, "--gpu-seconds = large=few: is a number"),  # type: ignore[dict-item]
        ({"shares": [("large", 0.5)]}, "shares = list: are not shares by model; give a dict"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    models: Models, accuracy: dict[str, float], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=f"^{complaint}"):
        route(models, WORKLOAD, accuracy, **options)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        (lambda _, accuracy: route("models.json", WORKLOAD, accuracy), "models = models.json: is not a model"),
        (lambda _, accuracy: route(dict.fromkeys("ab"), WORKLOAD, accuracy), "models = a: is not a model"),
        (lambda models, _: route(models, WORKLOAD, "a.csv"), "accuracy = str: are not accuracies by model"),
        (lambda models, accuracy: trace_frontier(models, WORKLOAD, accuracy, tolerance="1 %"), "tolerance = 1 %: "),
        (
            lambda models, accuracy: OnlineRouter(route(models, WORKLOAD, accuracy)),
            "policy = RoutingPlan: is not a policy",
        ),
        (
            lambda models, accuracy: save_policy(route(models, WORKLOAD, accuracy), "p"),
            "policy = RoutingPlan: is not a policy",
        ),
        (lambda *_: simulate("policy.json", TRACE), "policy = policy.json: is not a policy"),
        (lambda *_: make_policy("plan.csv"), "plan = plan.csv: is not a plan; give route's"),
        (lambda models, accuracy: make_policy([route(models, WORKLOAD, accuracy)]), "plan = list: is not a plan"),
        (lambda *_: cells_table({}), "plan = dict: is not a plan"),
        (lambda *_: models_per_query(None), "plan = NoneType: is not a plan"),
        (lambda *_: rows_table("plan.csv", TABLE), "plan = plan.csv: is not a plan"),
        (lambda models, accuracy: trace_frontier(models, TABLE, accuracy), "workload = DataFrame: is not a workload"),
        (lambda *_: Workload.from_frame(TABLE, "prices.csv"), "tariff = prices.csv: is not a tariff; give read_tariff"),
        (lambda *_: read_workload("w.csv", ["input_tokens=In"]), "columns = list: are not headers by our names"),
    ],
)
def test_what_is_something_else_is_refused(
    models: Models, accuracy: dict[str, float], call: Callable[..., Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=f"^{complaint}"):
        call(models, accuracy)


def test_a_replay_needs_a_trace_and_takes_any_number(models: Models, accuracy: dict[str, float]) -> None:
    policy = make_policy(route(models, WORKLOAD, accuracy))
    with pytest.raises(InputError, match=r"^trace = DataFrame: is not a trace; make one by Trace.from_frame\(table\)"):
        simulate(policy, pd.DataFrame())
    with pytest.raises(InputError, match=r"^--history = half: "):
        simulate(policy, TRACE, history="half")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^servers = list: are not numbers of servers by model; give a dict"):
        simulate(policy, TRACE, servers=["small=2"])  # type: ignore[arg-type]
    assert simulate(policy, TRACE, history="0.5").history == 2  # type: ignore[arg-type]
