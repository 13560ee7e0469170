"""route(): the objective and its scaling, independence of order, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import AccuracyTable, RoutingPlan, Workload, cells_table, models_per_query, route

Models = list[WorkloadModel]
Accuracy = dict[str, float]

τin = np.array([8, 300, 300, 2000, 50, 8])
τout = np.array([500, 20, 20, 10, 1000, 500])
WORKLOAD = Workload.from_tokens(τin, τout)


@pytest.fixture
def plan_at(models: Models, accuracy: Accuracy) -> Callable[..., RoutingPlan]:
    return lambda **options: route(models, WORKLOAD, accuracy, **options)


@pytest.mark.parametrize("weighting", ["tokens", "queries"])
@pytest.mark.parametrize("zeta", [0, 0.3, 0.8, 1])
def test_figures_are_sums_over_queries(models: Models, accuracy: Accuracy, zeta: float, weighting: str) -> None:
    plan = route(models, WORKLOAD, accuracy, zeta=zeta, shares={"medium": (0.2, 0.5)}, accuracy_weighting=weighting)
    by_name = {model.model_name: model for model in models}
    weight = τin + τout if weighting == "tokens" else np.ones(6)
    e = {name: model.energy.predict(τin, τout) for name, model in by_name.items()}
    e_max = max(energies.max() for energies in e.values())
    a_max = max(accuracy.values()) * weight.max()
    chosen = models_per_query(plan)
    energies = [e[name][query] for query, name in enumerate(chosen)]
    accuracies = np.array([accuracy[name] for name in chosen])
    assert plan.energy_j == pytest.approx(sum(energies))
    assert plan.runtime_s == pytest.approx(
        sum(by_name[name].runtime.predict(τin, τout)[query] for query, name in enumerate(chosen))
    )
    assert plan.objective == pytest.approx(
        sum(zeta * np.array(energies) / e_max - (1 - zeta) * accuracies * weight / a_max)
    )
    assert plan.accuracy_token_weighted == pytest.approx(accuracies @ (τin + τout) / (τin + τout).sum())
    assert plan.accuracy_query_mean == pytest.approx(accuracies.mean())
    assert plan.scaling.energy_max_j == pytest.approx(e_max)
    assert plan.scaling.accuracy_max == pytest.approx(a_max)
    assert plan.shares == {name: chosen.count(name) / 6 for name in ("large", "medium", "small")}
    assert sum(load.energy_j for load in plan.models.values()) == pytest.approx(plan.energy_j)
    assert sum(load.tokens for load in plan.models.values()) == (τin + τout).sum()


def test_the_ends_of_zeta(plan_at: Callable[..., RoutingPlan]) -> None:
    assert set(models_per_query(plan_at(zeta=0))) == {"large"}
    assert plan_at(zeta=1).energy_j == min(outcome.energy_j for outcome in plan_at(zeta=1).baselines.values())


def test_weighting_decides_what_is_pursued(models: Models, accuracy: Accuracy) -> None:
    # One long and nine short queries, one of which may use the best model: by tokens the long one, by queries any.
    workload = Workload.from_tokens([2000] + [10] * 9, [100] * 10)
    plans = [
        route(models, workload, accuracy, zeta=0.1, shares={"large": 0.1}, accuracy_weighting=weighting)
        for weighting in ("tokens", "queries")
    ]
    assert plans[0].accuracy_token_weighted > plans[1].accuracy_token_weighted
    assert plans[0].energy_j > plans[1].energy_j


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(6)), st.permutations(range(3)))
def test_order_changes_nothing(models: Models, accuracy: Accuracy, rows: list[int], columns: list[int]) -> None:
    shuffled = Workload.from_tokens(τin[rows], τout[rows])
    options = {"zeta": 0.4, "shares": {"small": 0.5, "large": (0.1, 0.4)}}
    one = route(models, WORKLOAD, accuracy, **options)
    other = route([models[k] for k in columns], shuffled, dict(reversed(accuracy.items())), **options)
    assert other.assigned.tolist() == one.assigned.tolist()
    assert other.prices == one.prices
    assert other.energy_j == one.energy_j


@settings(deadline=None, max_examples=60)
@given(
    queries=st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=25),
    zeta=st.floats(0, 1),
    shares=st.one_of(
        st.just({}),
        st.just({"small": 0.2, "medium": 0.3, "large": 0.5}),
        st.floats(0, 1).map(lambda share: {"medium": share}),
        st.tuples(st.floats(0, 0.5), st.floats(0.5, 1)).map(lambda band: {"large": band, "small": (0.0, 0.9)}),
    ),
)
def test_whatever_is_feasible_is_met(
    models: Models, accuracy: Accuracy, queries: list[tuple[int, int]], zeta: float, shares: dict[str, float]
) -> None:
    n = len(queries)
    try:
        plan = route(models, Workload.from_tokens(*np.array(queries).T), accuracy, zeta=zeta, shares=shares)
    except InputError as error:
        if "whole number" not in str(error):
            raise
        return
    assert sum(load.queries for load in plan.models.values()) == n
    for name, share in shares.items():
        low, high = share if isinstance(share, tuple) else (share - (1 - 1e-9) / n, share + (1 - 1e-9) / n)
        assert low <= plan.shares[name] <= high
    assert plan.optimality_gap <= 1e-9


def test_energy_alone_needs_no_accuracy(models: Models) -> None:
    plan = route(models, WORKLOAD, zeta=1)
    assert plan.accuracy_token_weighted is None
    assert plan.accuracy_query_mean is None
    assert plan.scaling.accuracy_max is None
    with pytest.raises(InputError, match=r"--accuracy = none given: ζ = 0\.5 weighs accuracy"):
        route(models, WORKLOAD, zeta=0.5)


def test_accuracies_of_zero_weigh_nothing(models: Models) -> None:
    assert route(models, WORKLOAD, dict.fromkeys(("small", "medium", "large"), 0.0), zeta=0).objective == 0


def test_json_has_no_nan_and_every_key(plan_at: Callable[..., RoutingPlan]) -> None:
    document = json.loads(json.dumps(plan_at(shares={"small": 0.5}).to_json(), allow_nan=False))
    assert set(document) >= {
        *("objective", "energy_j", "runtime_s", "accuracy_token_weighted", "accuracy_query_mean", "zeta", "shares"),
        *("prices", "optimality_gap", "baselines", "solve_s", "queries", "cells", "extrapolated_queries", "simulated"),
    }
    assert (document["queries"], document["cells"]) == (6, 4)
    assert set(document["baselines"]) >= {"single:small", "round_robin", "random", "best_blind_mix"}
    assert document["scaling"]["convention"] == "min-max over all queries and models, minimum 0"


def test_extrapolation_is_counted(models: Models, accuracy: Accuracy) -> None:
    workload = Workload.from_tokens([8, 2048, 2049, 100], [8, 2048, 8, 7], [1, 2, 3, 4])
    plan = route(models, workload, accuracy)
    assert plan.extrapolated_queries == 7
    assert plan.to_json()["extrapolated_share"] == 0.7


def test_arguments_may_be_of_any_kind_of_number_and_table(models: Models, accuracy: Accuracy) -> None:
    plain = route(models, WORKLOAD, accuracy, zeta=1, shares={"medium": (0.2, 0.5)}, draws=2)
    for zeta in (np.int64(1), np.float32(1), Fraction(1)):
        options: Any = {"zeta": zeta, "shares": pd.Series({"medium": [0.2, 0.5]}), "draws": np.int64(2)}
        found = route(models, WORKLOAD, pd.Series(accuracy), **options)
        assert (found.objective, found.shares, found.bootstrap) == (plain.objective, plain.shares, plain.bootstrap)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"workload": pd.DataFrame()}, r"workload = DataFrame: is not a workload; make one with Workload\.from_frame"),
        ({"zeta": None}, "--zeta = None: is from 0"),
        ({"zeta": "knee"}, "--zeta = knee: is from 0"),
        ({"draws": -1}, "draws = -1: is how often"),
        ({"draws": 2.5}, "draws = 2.5: is how often"),
    ],
    ids=["table", "no zeta", "word", "negative", "half a draw"],
)
def test_what_is_no_argument_is_refused(
    models: Models, accuracy: Accuracy, changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        route(**({"models": models, "workload": WORKLOAD, "accuracy": accuracy} | changed))


@pytest.mark.parametrize("seed", range(10))
def test_all_may_be_extrapolated(models: Models, accuracy: Accuracy, seed: int) -> None:
    """By default; sums over the same queries in two orders may round the part of the energy above 1."""
    τin, τout = np.random.default_rng(seed).integers(3000, 9000, (2, 50))
    plan = route(models, Workload.from_tokens(τin, τout), accuracy)
    assert plan.extrapolated_share == 1
    assert 1 - 1e-12 < plan.extrapolated_energy_share <= 1


def test_more_extrapolation_than_allowed_is_refused(models: Models, accuracy: Accuracy) -> None:
    workload = Workload.from_tokens([8, 2048, 2049, 100], [8, 2048, 8, 7], [1, 2, 3, 4])
    plan = route(models, workload, accuracy, max_extrapolation=0.7)
    beyond = [2049 * 0.5 + 8 * 40, 100 * 0.5 + 7 * 40] @ np.array([3, 4])
    assert route(models, workload, accuracy, zeta=0).extrapolated_energy_j == pytest.approx(beyond)
    assert plan.extrapolated_energy_share == pytest.approx(plan.extrapolated_energy_j / plan.energy_j)
    with pytest.raises(InputError, match=r"--max-extrapolation = 0\.5: 70 % of the queries with .* of the energy lie"):
        route(models, workload, accuracy, max_extrapolation=0.5)


def test_accuracy_by_class_sends_a_class_elsewhere(models: Models, accuracy: Accuracy) -> None:
    frame = pd.DataFrame({"input_tokens": 100, "output_tokens": 100, "query_class": ["chat", "code", None, "code"]})
    workload = Workload.from_frame(frame)
    assert (workload.classes, workload.n_cells, workload.count.tolist()) == (("", "chat", "code"), 3, [1, 1, 2])
    table = AccuracyTable(accuracy, by_class={"small": {"code": 0.9}})
    plan = route(models, workload, table, zeta=0)
    assert models_per_query(plan) == ["large", "small", "large", "small"]
    assert plan.accuracy_query_mean == pytest.approx((0.7 + 0.9 + 0.7 + 0.9) / 4)
    assert plan.baselines["single:small"].accuracy_token_weighted == pytest.approx((0.5 + 0.9 + 0.5 + 0.9) / 4)
    assert plan.scaling.accuracy_max == pytest.approx(0.9 * 200)
    assert cells_table(plan)["query_class"].tolist() == ["", "chat", "code"]


def test_simulated_models_make_a_simulated_plan(models: Models, accuracy: Accuracy) -> None:
    simulated = [replace(model, simulated=True) for model in models]
    assert route(simulated, WORKLOAD, accuracy).to_json()["simulated"] is True
    with pytest.raises(InputError, match="simulated = False for large, True for medium: joules of different kinds"):
        route([models[0], *simulated[1:]], WORKLOAD, accuracy)


def test_energies_of_different_boundaries_are_not_compared(models: Models, accuracy: Accuracy) -> None:
    mixed = [replace(models[0], boundary="gpu+cpu"), *models[1:]]
    with pytest.raises(InputError, match=r"boundary = gpu\+cpu for large, gpu for medium"):
        route(mixed, WORKLOAD, accuracy)


def test_a_form_that_predicts_nothing_positive_is_refused(models: Models, accuracy: Accuracy) -> None:
    small = next(model for model in models if model.model_name == "small")
    paper = replace(
        small.energy,
        form="paper",
        terms=("input_tokens", "output_tokens", "input_tokens:output_tokens"),
        coefficients=np.array([-3.894991, 31.522735, 0.042712]),
    )
    published = [replace(small, energy=paper), *(model for model in models if model is not small)]
    with pytest.raises(InputError) as caught:
        route(published, WORKLOAD, accuracy)
    assert str(caught.value).startswith(
        "energy of small [J] = -6621: the form paper predicts nothing positive for 2 of 4 cells (50 % of the queries),"
        " lowest for 2000 + 10, 300 + 20 tokens (input + output); fit again with another form"
    )
    assert route(published, WORKLOAD, accuracy, only=["large", "medium"]).energy_j > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"zeta": 1.1}, "--zeta = 1.1: is from 0"),
        ({"zeta": float("nan")}, "--zeta = nan: is from 0"),
        ({"only": ["small", "huge"]}, "--only = huge: no fitted model has this name; there are: large, medium, small"),
        ({"shares": {"huge": 0.5}}, "--share = huge: is not among"),
        ({"shares": {"large": 0.5}, "only": ["small"]}, "--share = large: is not among"),
        ({"accuracy": {"small": 0.5, "medium": 0.5}}, "--accuracy = large: has a fit but no accuracy"),
        ({"accuracy": {"small": 0.5, "huge": 0.5}}, "--accuracy = huge: has an accuracy but no fit"),
        ({"accuracy": {"small": 55.0, "medium": 0.5, "large": 0.6}}, "accuracy = 55.0: small needs a fraction"),
        ({"accuracy_weighting": "words"}, "--accuracy-weighting = words: unknown"),
        ({"models": []}, "--models = no models: there is nothing to route to"),
    ],
)
def test_refusals(models: Models, accuracy: Accuracy, options: dict[str, object], complaint: str) -> None:
    arguments = {"models": models, "workload": WORKLOAD, "accuracy": accuracy, **options}
    with pytest.raises(InputError) as caught:
        route(**arguments)
    assert str(caught.value).startswith(complaint)


def test_only_leaves_other_accuracies_aside(models: Models, accuracy: Accuracy) -> None:
    plan = route(models, WORKLOAD, {**accuracy, "huge": 0.9}, only=["small", "medium"])
    assert plan.model_names == ("medium", "small")
