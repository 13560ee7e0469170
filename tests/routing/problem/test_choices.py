"""A choice is a model on a system: names, selection, and joules that cannot be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, cells_table, make_policy, route, rows_table
from llmpower.routing.problem.choices import candidates

Models = list[WorkloadModel]


@pytest.fixture
def hybrid(models: Models) -> Models:
    """``small`` on a frugal card that is slow to read prompts, and on a fast one that idles dearly."""
    small = next(model for model in models if model.model_name == "small")
    frugal = replace(small.energy, coefficients=np.array([0, 1.0, 0, 1.0, 0]))
    fast = replace(small.energy, coefficients=np.array([0, 0.05, 0, 5.0, 0]))
    return [replace(small, system="fast", energy=fast), replace(small, system="frugal", energy=frugal)]


def test_a_name_on_two_systems_is_two_choices(models: Models, hybrid: Models) -> None:
    large = next(model for model in models if model.model_name == "large")
    names = [choice.name for choice in candidates([large, *hybrid])]
    assert names == ["large", "small@fast", "small@frugal"]
    assert [choice.name for choice in candidates([large, *hybrid], ["small"])] == names[1:]
    assert [choice.name for choice in candidates([large, *hybrid], "small")] == names[1:]
    assert [choice.name for choice in candidates([large, *hybrid], ["small@fast", "large"])] == names[:2]
    assert [choice.name for choice in candidates([large, *hybrid], iter(["small@fast", "large"]))] == names[:2]


def test_queries_go_to_the_system_that_is_cheaper_for_them(hybrid: Models) -> None:
    frame = pd.DataFrame({"input_tokens": [1000, 10], "output_tokens": [10, 500], "system": "mine"})
    plan = route(hybrid, Workload.from_frame(frame), {"small": 0.5}, zeta=0.5)
    table = rows_table(plan, frame)
    assert table["model_name"].tolist() == ["small", "small"]
    assert table["system"].tolist() == ["fast", "frugal"]
    assert table["workload_system"].tolist() == ["mine", "mine"]
    assert list(cells_table(plan).columns) == ["input_tokens", "output_tokens", "model_name", "system", "count"]
    assert plan.shares == {"small@fast": 0.5, "small@frugal": 0.5}
    policy = make_policy(plan)
    assert [policy.models[number].system for number in policy.choose([1000, 10], [10, 500])] == ["fast", "frugal"]


def test_shares_and_accuracies_may_name_one_system(hybrid: Models) -> None:
    workload = Workload.from_tokens([1000, 10], [10, 500])
    plan = route(hybrid, workload, {"small": 0.5, "small@fast": 0.6}, zeta=0.0)
    assert plan.shares["small@fast"] == 1
    plan = route(hybrid, workload, {"small": 0.5}, zeta=1, shares={"small@frugal": 1.0})
    assert plan.shares["small@frugal"] == 1


def test_a_model_on_one_system_twice_is_refused(hybrid: Models) -> None:
    with pytest.raises(InputError, match="--models = small@fast: appears twice"):
        candidates([*hybrid, hybrid[0]])
