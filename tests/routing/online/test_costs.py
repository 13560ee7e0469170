"""One query in floats costs what it does in arrays, and what the policy says it does."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from online_policies import make, queries

from llmpower.modelling import FORMS, WorkloadModel, fit
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


@pytest.fixture(params=["one form", "several forms"])
def served(request: pytest.FixtureRequest, models: list[WorkloadModel]) -> list[WorkloadModel]:
    """The models; or each of a form that says nothing of the others'."""
    if request.param == "one form":
        return models
    lengths = (8, 64, 512, 2048)
    rows = [(τin, τout, τin + 9.0 * τout, 1.0 + τout) for τin in lengths for τout in lengths]
    table = pd.DataFrame(rows, columns=["input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"])
    forms = {"small": "quadratic", "medium": "paper+intercept"}
    return [model for name, form in forms.items() for model in fit(table.assign(model_name=name), form=form)] + [
        model for model in models if model.model_name == "large"
    ]


def test_known_lengths_cost_what_the_policy_says(served: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    policy = make(served, accuracy, queries(300, 1))
    costs, prices = QueryCosts(policy), np.array([model.price for model in policy.models])
    for τin, τout in ((10, 1), (1000, 500), (2000, 2000)):
        expected = pytest.approx(policy.costs(τin, τout), rel=1e-9)
        assert costs.of(τin, exactly(float(τout))) + prices == expected
        assert costs.known(τin, τout) + prices == expected


def test_one_query_costs_what_it_does_in_a_sample(served: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    policy = make(served, accuracy, queries(300, 1))
    costs, law = QueryCosts(policy), two_points(100.0, 2 * 100.0**2, 6 * 100.0**3)
    sample = costs.sample([10, 1000], [law, exactly(5.0)], [None, "chat"])
    assert sample == pytest.approx(np.array([costs.of(10, law), costs.of(1000, exactly(5.0), "chat")]), rel=1e-9)
