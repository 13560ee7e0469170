"""Curves say what the forms say: exactly without a kink, nearly with one, and of the latest laws in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from online_policies import make, queries

from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FORMS, make_form
from llmpower.routing.online.costs import QueryCosts
from llmpower.routing.online.curves import OLD, ExpectedCosts
from llmpower.routing.policies.lengths import Moments, OutputLengthLearner, bucket
from llmpower.routing.policies.policy import PolicyFit, PolicyModel, RoutingPolicy

MIDDLE = Moments(0, 100.0, 2e4, 6e6)


def policy_of(policy: RoutingPolicy, form: str) -> RoutingPolicy:
    """Two models whose fits have another form."""
    terms = make_form(form).terms

    def with_form(model: PolicyModel, first: float) -> PolicyModel:
        fit = PolicyFit(form, terms, first / (1.0 + np.arange(len(terms))) ** 4, (1, 2048), (1, 2048))
        return PolicyModel(
            model.name, model.model_name, model.system, 0.0, 0.5, (0.0, 1.0), fit, model.runtime, model.accuracy
        )

    models = tuple(with_form(model, 1.0 + number) for number, model in enumerate(policy.models[:2]))
    return RoutingPolicy(0.5, "tokens", policy.scaling, False, None, models)


@pytest.mark.parametrize("form", list(FORMS))
@settings(deadline=None, max_examples=40)
@given(τin=st.integers(0, 5000), answers=st.lists(st.integers(1, 900), min_size=1, max_size=5))
def test_a_curve_costs_what_the_form_does(
    models: list[WorkloadModel], accuracy: dict[str, float], form: str, τin: int, answers: list[int]
) -> None:
    costs = QueryCosts(policy_of(make(models, accuracy, queries(300, 1)), form))
    lengths = OutputLengthLearner((), MIDDLE)
    expected = ExpectedCosts(costs, lengths)
    before = expected.of(τin, None)
    assert before == costs.of(τin, lengths.law(τin))
    for answer in answers:
        lengths.observe(τin, answer)
        expected.learnt(τin, None)
    exactly = costs.of(τin, lengths.law(τin))
    # The ridge bends a curve by less than the bucket is wide.
    assert expected.of(τin, None) == pytest.approx(exactly, rel=1e-3 if form == "roofline" else 1e-8)


def test_old_curves_are_made_anew(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    costs = QueryCosts(make(models, accuracy, queries(300, 1)))
    lengths = OutputLengthLearner((), MIDDLE)
    expected = ExpectedCosts(costs, lengths)
    expected.of(1000, "chat")
    # Neither the bucket nor the label is that of the answers, but the widest cell learns from all.
    for _ in range(2 * OLD):
        lengths.observe(20, 700)
        expected.learnt(20, None)
    assert expected.of(1000, "chat") == pytest.approx(costs.of(1000, lengths.law(1000, "chat"), "chat"), rel=0.02)
    assert bucket(1000) != bucket(20)
    expected.forget()
    assert expected.of(1000, "chat") == costs.of(1000, lengths.law(1000, "chat"), "chat")


def test_buckets_between_those_of_the_past_are_prepared(
    models: list[WorkloadModel], accuracy: dict[str, float]
) -> None:
    costs = QueryCosts(make(models, accuracy, queries(300, 1)))
    lengths = OutputLengthLearner((), MIDDLE)
    expected = ExpectedCosts(costs, lengths)
    expected.prepare([(1, None), (20, "chat"), (4000, None)])
    before = {τin: expected.of(τin, None) for τin in (1, 2, 3, 17, 300, 3999)}
    # A law that is new to these buckets shows who has a curve: those stay as they were until an answer is theirs.
    for _ in range(50):
        lengths.observe(300, 900)
    assert {τin: expected.of(τin, None) for τin in before} == before
    assert expected.of(5000, None) == costs.of(5000, lengths.law(5000))
    assert expected.of(300, "chat") == costs.of(300, lengths.law(300, "chat"), "chat")


@settings(deadline=None, max_examples=40)
@given(
    τin=st.integers(0, 5000),
    made=st.booleans(),
    prices=st.lists(st.floats(-2, 2), min_size=9, max_size=9),
    data=st.data(),
)
def test_the_cheapest_is_the_first_of_least_cost_and_price(
    models: list[WorkloadModel],
    accuracy: dict[str, float],
    τin: int,
    made: bool,
    prices: list[float],
    data: st.DataObject,
) -> None:
    policy = make(models, accuracy, queries(300, 1))
    expected = ExpectedCosts(QueryCosts(policy), OutputLengthLearner((), MIDDLE))
    if made:
        expected.prepare([(τin, None)])
    still_open = data.draw(st.lists(st.sampled_from(range(len(policy.models))), min_size=1, unique=True).map(sorted))
    costs = expected.of(τin, None)
    assert expected.cheapest(τin, None, prices, still_open) == min(
        still_open, key=lambda model: costs[model] + prices[model]
    )
