"""A policy that was made under a limit on latency keeps it, one query at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from online_policies import make, queries

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import (
    OnlineRouter,
    RoutingPolicy,
    Trace,
    Workload,
    load_policy,
    make_policy,
    route,
    save_policy,
    simulate,
)
from llmpower.routing.online.prices import price_sample, response
from llmpower.routing.policies.policy import allowed
from llmpower.routing.problem.shares import Share

LIMIT_S = 15.0
PAST = queries(1000, 1)


def limited(
    models: list[WorkloadModel], accuracy: dict[str, float], shares: dict[str, Share] | None = None
) -> RoutingPolicy:
    # The large model takes up to 267 s for such answers.
    plan = route(models, Workload.from_tokens(*PAST), accuracy, zeta=0.01, shares=shares, max_runtime_s=30.0, draws=0)
    return replace(make_policy(plan), max_runtime_s=LIMIT_S)


def test_the_argmin_gives_the_plan_back(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    workload = Workload.from_tokens(*PAST)
    plan = route(models, workload, accuracy, zeta=0.01, max_runtime_s=30.0, draws=0)
    policy = make_policy(plan)
    assert policy.max_runtime_s == 30
    assert (
        policy.choose(workload.input_tokens, workload.output_tokens).tolist() == plan.assigned.argmax(axis=1).tolist()
    )
    free = replace(policy, max_runtime_s=None)
    assert free.choose(workload.input_tokens, workload.output_tokens).tolist() != plan.assigned.argmax(axis=1).tolist()


@settings(deadline=None, max_examples=40)
@given(τin=st.integers(0, 4000), τout=st.integers(0, 4000))
def test_who_is_told_the_length_keeps_the_limit(
    models: list[WorkloadModel], accuracy: dict[str, float], τin: int, τout: int
) -> None:
    policy = limited(models, accuracy)
    seconds = np.array([float(model.runtime.predict(τin, τout)) for model in policy.models])
    chosen = OnlineRouter(policy).choose(τin, τout)
    number = [model.name for model in policy.models].index(chosen.name)
    assert seconds[number] <= LIMIT_S or seconds[number] == seconds.min()
    assert number == policy.choose(τin, τout)
    assert allowed(seconds, LIMIT_S)[number]


def test_a_shorter_answer_that_the_client_allows_opens_a_model(
    models: list[WorkloadModel], accuracy: dict[str, float]
) -> None:
    policy = replace(limited(models, accuracy), zeta=0.0)
    router = OnlineRouter(policy)
    router.remember(*(array.tolist() for array in PAST))
    # Answers to such have 133 tokens or more: 17 s on the large model.
    assert router.choose(40).name != "large"
    assert router.choose(40, at_most=50).name == "large"


def test_a_router_goes_on_as_it_was_saved(
    models: list[WorkloadModel], accuracy: dict[str, float], tmp_path: Path
) -> None:
    policy = limited(models, accuracy)
    save_policy(policy, tmp_path / "policy.json")
    assert load_policy(tmp_path / "policy.json").max_runtime_s == LIMIT_S
    router, again = OnlineRouter(policy), OnlineRouter(load_policy(tmp_path / "policy.json"))
    router.remember(*(array.tolist() for array in PAST))
    router.save(tmp_path / "state.json")
    again.restore(tmp_path / "state.json")
    for τin in range(10, 2000, 40):
        assert router.choose(τin).name == again.choose(τin).name
    text = (tmp_path / "policy.json").read_text().replace(f'"max_runtime_s": {LIMIT_S}', '"max_runtime_s": 0')
    (tmp_path / "none.json").write_text(text)
    with pytest.raises(InputError, match="max_runtime_s = 0"):
        load_policy(tmp_path / "none.json")


@pytest.mark.parametrize("shares", [{}, {"small": (0.6, 1.0)}], ids=["free", "shares"])
def test_a_replay_counts_who_is_late(
    models: list[WorkloadModel], accuracy: dict[str, float], shares: dict[str, Share]
) -> None:
    trace = Trace(np.arange(1500) * 0.5, *queries(1500, 2), (None,) * 1500)
    result = simulate(limited(models, accuracy, shares), trace)
    late = {name: strategy.late_queries for name, strategy in result.strategies.items()}
    assert result.max_runtime_s == LIMIT_S
    assert late["optimum"] == late["online_lengths_known"] == late["single:small"] == 0
    assert late["single:large"] > 500, late
    # Who does not know the length keeps the limit as well as it can be expected.
    assert late["online"] < late["random"] / 4
    assert late["static_prices"] < late["random"] / 4
    assert late["re_solving"] < late["random"] / 4
    free = simulate(make(models, accuracy, PAST), trace, only=["online"])
    assert free.max_runtime_s is free.strategies["online"].late_queries is None


def test_prices_of_what_is_forbidden_are_none() -> None:
    chance = np.random.default_rng(3)
    costs = chance.random((300, 3))
    costs[chance.random((300, 3)) < 0.3] = np.inf
    costs[:, 0] = chance.random(300)
    prices = price_sample(costs, [0, 90, 0], [300, 300, 60], 300)
    assert np.isfinite(prices).all()
    assert np.isfinite(response(costs, prices, {1: 0.3, 2: 0.2})).all()
    assert price_sample(costs, [0, 290, 0], [300, 300, 300], 300).tolist() == [0, 0, 0]


def test_queries_that_have_no_choice_say_nothing_of_prices() -> None:
    costs = np.column_stack([np.zeros(300), np.random.default_rng(4).uniform(0.1, 1, 300)])
    costs[:100, 1] = np.inf
    assert (np.diag(response(costs, np.zeros(2), {0: 0.5, 1: 0.5})) > 0).all()
