"""The authors' own dispatcher for unlike hardware, at its best: short queries here, long ones there.

Wilkins, Keshav and Mortier ("Hybrid Heterogeneous Clusters Can Lower the Energy Consumption of LLM Inference
Workloads", 2024) send queries of at most T tokens to the frugal machine and all others to the fast one, by input or by
output tokens, with T = 32 from their measurements. As a baseline the rule is given every chance: all ordered pairs of
choices, both kinds of tokens, every T, and the objective of the plan itself. What is left between it and the plan is
what looking at both lengths and at more than two choices is worth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costs import Costs
from llmpower.routing.workload import IntArray

# Sums by number of tokens are kept for every number up to here; beyond, for those that occur.
DENSE_TOKENS = 2**22


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """Queries with at most ``threshold`` tokens of kind ``tokens`` go to ``below``, the others to ``above``."""

    tokens: str
    threshold: int
    below: str
    above: str


def best_threshold(costs: Costs, zeta: float) -> tuple[ThresholdRule, IntArray] | None:
    """The rule of least Σ ζ·ê − (1−ζ)·â and what it assigns (n_cells, n_choices); ``None`` where no rule divides.

    With P_K(T) the cost on K of all queries of at most T tokens, a rule costs P_A(T) + P_B(∞) − P_B(T).
    """
    workload, names = costs.workload, costs.model_names
    if len(names) < 2:
        return None
    paid = costs.per_query(zeta) * workload.count[:, np.newaxis]
    best: tuple[float, ThresholdRule, IntArray] | None = None
    for kind, tokens in (("input_tokens", workload.input_tokens), ("output_tokens", workload.output_tokens)):
        values, P = _cumulative(tokens, paid)
        if len(values) < 2:
            continue
        for A, below in enumerate(names):
            for B, above in enumerate(names):
                if A == B:
                    continue
                rules = P[:-1, A] + P[-1, B] - P[:-1, B]
                at = int(rules.argmin())
                if best is None or rules[at] < best[0]:
                    best = float(rules[at]), ThresholdRule(kind, int(values[at]), below, above), tokens
    if best is None:
        return None
    _, rule, tokens = best
    assigned = np.zeros((workload.n_cells, len(names)), np.int64)
    short = tokens <= rule.threshold
    assigned[short, names.index(rule.below)] = workload.count[short]
    assigned[~short, names.index(rule.above)] = workload.count[~short]
    return rule, assigned


def _cumulative(tokens: IntArray, paid: FloatArray) -> tuple[IntArray, FloatArray]:
    """The numbers of tokens that occur, ascending, and the sums of ``paid`` up to each (n_values, n_choices)."""
    if tokens.max() < DENSE_TOKENS:
        present = np.flatnonzero(np.bincount(tokens))
        sums = np.column_stack([np.bincount(tokens, column)[present] for column in paid.T])
    else:
        present, place = np.unique(tokens, return_inverse=True)
        sums = np.column_stack([np.bincount(place, column) for column in paid.T])
    return present, sums.cumsum(axis=0)
