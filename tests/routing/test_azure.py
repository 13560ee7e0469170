"""The paper's case study on real conversations, and all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling import WorkloadModel
from llmpower.routing import AccuracyTable, Workload, models_per_query, route
from llmpower.routing.costing.costs import predict_costs

Models = list[WorkloadModel]
SHARES = {"Llama-2-7B": 0.05, "Llama-2-13B": 0.2, "Llama-2-70B": 0.75}


@pytest.fixture(scope="module")
def case_study(paper_data: Path) -> Workload:
    trace = pd.read_csv(paper_data / "azure" / "AzureLLMInferenceTrace_conv.csv").head(200)
    return Workload.from_tokens(trace["ContextTokens"], trace["GeneratedTokens"])


@pytest.mark.parametrize("zeta", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_case_study_is_what_one_binary_per_query_finds(
    llamas: Models, leaderboard: AccuracyTable, case_study: Workload, oracle: Callable[..., float], zeta: float
) -> None:
    accuracy = {name: leaderboard.accuracy[name] for name in SHARES}
    plan = route(llamas, case_study, accuracy, zeta=zeta, shares=leaderboard.shares)
    assert {name: load.queries for name, load in plan.models.items()} == {
        "Llama-2-7B": 10,
        "Llama-2-13B": 40,
        "Llama-2-70B": 150,
    }
    costs = predict_costs(llamas, case_study, accuracy).per_query(zeta)[case_study.row_cells]
    queries = np.array([load.queries for load in plan.models.values()])
    assert plan.objective == pytest.approx(oracle(costs, queries, queries), rel=1e-9)
    assert plan.optimality_gap <= 1e-9


@pytest.mark.parametrize("zeta", [0.0, 0.5, 1.0])
def test_all_conversations_are_solved_and_proven(
    llamas: Models, leaderboard: AccuracyTable, azure: Workload, zeta: float
) -> None:
    assert (azure.n_queries, azure.n_cells) == (19_366, 14_027)
    plan = route(llamas, azure, leaderboard.accuracy, zeta=zeta, shares=SHARES, only=list(SHARES))
    assert plan.optimality_gap <= 1e-9
    chosen = pd.Series(models_per_query(plan)).value_counts().to_dict()
    assert chosen == {"Llama-2-7B": 968, "Llama-2-13B": 3873, "Llama-2-70B": 14_525}
    # Blind to the query, the same shares reach no better an objective and, where energy counts, cost more of it.
    blind = plan.baselines["same_shares_blind"]
    assert plan.objective < blind.objective
    if zeta > 0:
        assert plan.energy_j < 0.7 * blind.energy_j


def test_looking_at_the_query_beats_every_blind_mix_at_equal_accuracy(
    llamas: Models, leaderboard: AccuracyTable, azure: Workload
) -> None:
    for zeta in (0.1, 0.3, 0.5):
        plan = route(llamas, azure, leaderboard.accuracy, zeta=zeta, only=list(SHARES))
        mix = plan.baselines["best_blind_mix"]
        assert mix.accuracy_token_weighted == pytest.approx(plan.accuracy_token_weighted)
        assert plan.energy_j < 0.9 * mix.energy_j
