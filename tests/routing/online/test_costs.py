"""One query in floats costs what it does in arrays, and what the policy says it does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from online_policies import make, queries

from llmpower.modelling import FORMS, WorkloadModel
from llmpower.modelling.forms import make_form
from llmpower.routing.online.costs import QueryCosts
from llmpower.routing.policies.lengths import exactly, two_points


@pytest.mark.parametrize("form", list(FORMS))
@settings(deadline=None)
@given(st.integers(0, 10**5), st.integers(0, 10**4))
def test_features_are_a_row_of_the_design(form: str, τin: int, τout: int) -> None:
    features = make_form(form).features(float(τin), float(τout))
    assert all(type(value) is float for value in features)
    assert features == pytest.approx(make_form(form).design(τin, τout).tolist(), rel=1e-12)


def test_known_lengths_cost_what_the_policy_says(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    policy = make(models, accuracy, queries(300, 1))
    costs, prices = QueryCosts(policy), np.array([model.price for model in policy.models])
    for τin, τout in ((10, 1), (1000, 500), (2000, 2000)):
        assert costs.of(τin, exactly(float(τout))) + prices == pytest.approx(policy.costs(τin, τout), rel=1e-9)


def test_one_query_costs_what_it_does_in_a_sample(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    policy = make(models, accuracy, queries(300, 1))
    costs, law = QueryCosts(policy), two_points(100.0, 2 * 100.0**2, 6 * 100.0**3)
    sample = costs.sample([10, 1000], [law, exactly(5.0)], [None, "chat"])
    assert sample == pytest.approx(np.array([costs.of(10, law), costs.of(1000, exactly(5.0), "chat")]), rel=1e-9)
