"""The best threshold rule, against all rules tried one by one."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload, route
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.plans.thresholds import best_threshold
from llmpower.routing.solving import kernels

Models = list[WorkloadModel]


def every_rule(costs: Costs, zeta: float) -> float:
    paid = costs.per_query(zeta) * costs.workload.count[:, np.newaxis]
    found = []
    for tokens in (costs.workload.input_tokens, costs.workload.output_tokens):
        for threshold in np.unique(tokens)[:-1]:
            short = tokens <= threshold
            found += [
                paid[short, below].sum() + paid[~short, above].sum()
                for below in range(3)
                for above in range(3)
                if below != above
            ]
    return min(found)


@pytest.mark.parametrize("zeta", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_rule_is_better(models: Models, accuracy: dict[str, float], zeta: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    workload = Workload.from_tokens(rng.integers(1, 40, 30), rng.integers(1, 40, 30), rng.integers(1, 5, 30))
    costs = predict_costs(models, workload, accuracy)
    best = best_threshold(costs, zeta)
    assert best is not None
    rule, assigned = best.rule, kernels.assign(best.choice, workload.count, len(costs.choices))
    assert (assigned * costs.per_query(zeta)).sum() == pytest.approx(every_rule(costs, zeta))
    assert (assigned.sum(axis=1) == workload.count).all()
    tokens = getattr(workload, rule.tokens)
    below, above = (costs.model_names.index(name) for name in (rule.below, rule.above))
    assert (assigned[tokens <= rule.threshold, below] == workload.count[tokens <= rule.threshold]).all()
    assert (assigned[tokens > rule.threshold, above] == workload.count[tokens > rule.threshold]).all()


def test_lengths_beyond_any_table(models: Models, accuracy: dict[str, float]) -> None:
    workload = Workload.from_tokens([8, 2**30], [8, 8])
    best = best_threshold(predict_costs(models, workload, accuracy), 0.5)
    assert best is not None
    assert (best.rule.tokens, best.rule.threshold) == ("input_tokens", 8)


def test_nothing_to_divide(models: Models, accuracy: dict[str, float]) -> None:
    assert best_threshold(predict_costs(models, Workload.from_tokens([8], [8]), accuracy), 0.5) is None
    single = predict_costs(models, Workload.from_tokens([8, 9], [8, 9]), accuracy, only=["small"])
    assert best_threshold(single, 0.5) is None
    assert "hybrid_threshold" not in route(models, Workload.from_tokens([8], [8]), accuracy).baselines
