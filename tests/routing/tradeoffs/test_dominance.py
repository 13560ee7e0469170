"""Choices that no exchange of joules for accuracy picks, against all exchanges tried one by one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, route
from llmpower.routing.tradeoffs.dominance import _corner

Models = list[WorkloadModel]
figures = st.integers(0, 6).map(float)


@settings(deadline=None)
@given(
    st.integers(1, 5).flatmap(
        lambda n: st.tuples(st.lists(figures, min_size=n, max_size=n), st.lists(figures, min_size=n, max_size=n))
    )
)
def test_corners_are_what_some_price_picks(drawn: tuple[list[float], list[float]]) -> None:
    e, a = (np.array([row]) for row in drawn)
    # Two choices cost the same at a ratio of whole numbers up to 6; these prices lie on and between all of them.
    ratios = sorted({i / j for i in range(7) for j in range(1, 7)})
    prices = sorted({*ratios, *((low + high) / 2 for low, high in pairwise(ratios)), 7.0})
    picked = {K for r in prices for K in np.flatnonzero(np.isclose(e[0] - r * a[0], (e[0] - r * a[0]).min()))}
    assert {K for K in range(e.shape[1]) if _corner(e, a, K)[0]} == picked


def test_a_costlier_and_worse_model_is_named(models: Models, accuracy: dict[str, float]) -> None:
    worse = [replace(model, model_name="worse") for model in models if model.model_name == "large"]
    workload = Workload.from_tokens([10, 1000], [500, 20])
    plan = route([*models, *worse], workload, {**accuracy, "worse": 0.65}, shares={"worse": 0.5})
    assert plan.never_chosen == ("worse",)
    assert plan.models["worse"].queries == 1
    assert route(models, workload, accuracy).never_chosen == ()


def test_without_accuracies_it_is_energy_that_decides(models: Models) -> None:
    assert route(models, Workload.from_tokens([10], [500]), zeta=1).never_chosen == ("large", "medium")
