"""Curves say what the forms say: exactly without a kink, nearly with one, and of the latest laws in time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from online_policies import make, queries

from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FORMS, make_form
from llmpower.routing.lengths import Moments, OutputLengthLearner, bucket
from llmpower.routing.online_costs import QueryCosts
from llmpower.routing.online_curves import OLD, ExpectedCosts
from llmpower.routing.policy import PolicyFit, PolicyModel, RoutingPolicy

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
