"""The replay's table says what is so: the optimum is best, the router near it, random at zero."""

from __future__ import annotations

import numpy as np
import pytest
from online_policies import make, queries

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import RoutingPolicy, Trace, Workload, make_policy, route, simulate


@pytest.fixture(scope="module")
def policy(models: list[WorkloadModel], accuracy: dict[str, float]) -> RoutingPolicy:
    return make(models, accuracy, queries(1000, 1))


@pytest.fixture(scope="module")
def trace() -> Trace:
    return Trace(np.arange(2500) * 0.5, *queries(2500, 2), (None,) * 2500)


def test_who_knows_more_does_better_and_shares_are_kept(policy: RoutingPolicy, trace: Trace) -> None:
    done: list[tuple[int, int]] = []
    result = simulate(policy, trace, progress=lambda *args: done.append(args))
    found = result.strategies
    assert (result.history, result.queries, result.period) == (500, 2000, 2000)
    assert done[-1] == (len(found), len(found))
    closed = {name: strategy.closed for name, strategy in found.items() if strategy.closed is not None}
    assert closed["optimum"] == pytest.approx(1)
    assert closed["random"] == 0
    assert closed["online_lengths_known"] > 0.95
    assert closed["online"] > 0.9 * closed["optimum_same_information"]
    assert max(closed, key=lambda name: closed[name]) == "optimum"
    assert abs(closed["weighted_round_robin"]) < 0.1
    assert found["online"].shares == {"large": 0.2, "medium": 0.3, "small": 0.5}
    # Those that look at no share keep none, and are not compared by a gap that is not theirs.
    assert not found["greedy"].shares_kept
    assert found["greedy"].closed is None
    assert found["single:small"].shares == {"large": 0, "medium": 0, "small": 1}
    assert found["single:small"].energy_j < found["optimum"].energy_j < found["single:large"].energy_j
    assert found["single:large"].accuracy_query_mean == pytest.approx(0.7)
    assert found["single:large"].accuracy_token_weighted == pytest.approx(0.7)
    # The better models answer what takes more tokens, as accuracy is weighed by them.
    assert found["optimum"].accuracy_query_mean == pytest.approx(0.5 * 0.5 + 0.3 * 0.6 + 0.2 * 0.7)
    assert 0.6 < (found["optimum"].accuracy_token_weighted or 0) < 0.7


def test_who_plans_again_learns_that_answers_have_changed(policy: RoutingPolicy, trace: Trace) -> None:
    """Short questions had long answers in the policy's past, and have short ones now."""
    turned = Trace(trace.times_s, trace.input_tokens, trace.input_tokens, trace.classes)
    found = simulate(policy, turned, history=0, only="re_solving").strategies["re_solving"]
    assert (found.closed or 0) > 0.3


@pytest.mark.parametrize("period", [1500, 5000])
def test_an_unfilled_period_is_no_licence_to_forget_the_shares(
    policy: RoutingPolicy, trace: Trace, period: int
) -> None:
    """Within one the router may be off its line by a tenth, and the others no more."""
    found = simulate(policy, trace, period=period).strategies
    for name in ("online", "online_lengths_known", "weighted_round_robin"):
        assert found[name].shares_kept
    for name in ("greedy", "single:small"):
        assert (found[name].shares_kept, found[name].closed) == (False, None)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_what_is_left_of_a_period_may_be_too_little_for_a_share(
    models: list[WorkloadModel], accuracy: dict[str, float], trace: Trace, left: int
) -> None:
    plan = route(models, Workload.from_tokens(*queries(1000, 1)), accuracy, shares={"large": (0.1, 0.2)}, draws=0)
    result = simulate(make_policy(plan), trace, period=(2000 - left) // 2)
    assert result.strategies["optimum"].shares_kept
    assert result.strategies["online"].shares_kept
    with pytest.raises(InfeasibleError, match=r"--share = large=0\.1:0\.2: no whole number of 3 queries lies in"):
        simulate(make_policy(plan), trace, period=3)


def test_a_point_is_worth_what_it_was_in_the_plan(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    τin, τout = queries(500, 5)
    plan = route(models, Workload.from_tokens(τin, τout), accuracy, draws=0)
    trace = Trace(np.arange(500.0), τin, τout, (None,) * 500)
    result = simulate(make_policy(plan), trace, history=0, only=["greedy"])
    assert result.joules_per_point == pytest.approx(plan.joules_per_point)
    assert (result.amount_per_point, result.boundary) == (None, "gpu")
    blind = make_policy(route(models, Workload.from_tokens(τin, τout), zeta=1, draws=0))
    assert simulate(blind, trace, history=0, only="greedy").joules_per_point is None
    with pytest.raises(InputError, match="only = gready: is not a strategy; there are: optimum, "):
        simulate(blind, trace, history=0, only="gready")


def test_waits_follow_the_servers(policy: RoutingPolicy, trace: Trace) -> None:
    many = simulate(policy, trace, servers={"small": 500, "medium": 500, "large": 500})
    assert {name: strategy.wait_mean_s for name, strategy in many.strategies.items()} == dict.fromkeys(
        many.strategies, 0.0
    )
    few = simulate(policy, trace, servers={"large": 1})
    assert few.servers["large"] == 1
    assert few.strategies["single:large"].wait_p99_s > few.strategies["optimum"].wait_p99_s > 0


def test_a_policy_alone_is_enough_to_begin_with(policy: RoutingPolicy, trace: Trace) -> None:
    result = simulate(policy, trace, history=0.0, period=500)
    assert result.queries == 2500
    assert result.strategies["online"].shares_kept
    assert (result.strategies["online"].closed or 0) > 0.7


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"history": 1.0}, "--history = 1.0"),
        ({"period": 0}, "period = 0"),
        ({"servers": {"tiny": 1}}, "--servers = tiny"),
        ({"servers": {"small": 0}}, "--servers = small=0"),
        ({"servers": {"small": 1.5}}, "--servers = small=1.5"),
        ({"period": 1.5}, "period = 1.5"),
    ],
    ids=["history", "period", "unknown model", "no server", "half a server", "half a query"],
)
def test_what_cannot_be_simulated_is_refused(
    policy: RoutingPolicy, trace: Trace, options: dict[str, object], error: str
) -> None:
    with pytest.raises(InputError, match=error):
        simulate(policy, trace, **options)  # type: ignore[arg-type]
