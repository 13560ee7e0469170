"""The authors' own dispatcher for heterogeneous hardware, at its best: short queries here, long ones there.

Wilkins, Keshav and Mortier ("Hybrid Heterogeneous Clusters Can Lower the Energy Consumption of LLM Inference
Workloads", 2024) send queries of at most T tokens to the frugal machine and all others to the fast one, by input or by
output tokens, with T = 32 from their measurements. As a baseline the rule is given every chance: all ordered pairs of
choices, both kinds of tokens, every T, and the objective of the plan itself. What is left between it and the plan is
what looking at both lengths and at more than two choices is worth. Under a limit on latency, rules with the fewest late
queries come first: with none, where there is such a rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.pointers import Choices
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving import kernels

# Sums by number of tokens are kept for every number up to here; beyond, for those that occur.
DENSE_TOKENS = 2**20


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """Queries with at most ``threshold`` tokens of kind ``tokens`` go to ``below``, the others to ``above``."""

    tokens: str
    threshold: int
    below: str
    above: str


@dataclass(frozen=True, slots=True, eq=False)
class BestThreshold:
    """A rule, and each cell's choice under it (n_cells,)."""

    rule: ThresholdRule
    choice: Choices


def best_threshold(costs: Costs, zeta: float, paid: FloatArray | None = None) -> BestThreshold | None:
    """The rule of least Σ ζ·ê − (1−ζ)·â; ``None`` where no rule divides.

    ``paid`` is ``costs.per_query(zeta)``, where somebody has it already.

    With P_K(T) the cost on K of all queries of at most T tokens, a rule costs P_A(T) + P_B(∞) − P_B(T). Late queries
    are counted alike.
    """
    workload, names = costs.workload, costs.model_names
    if len(names) < 2:
        return None
    # Costs as they are without a limit: infinite ones would leave nothing to tell rules apart that break it.
    if paid is None or costs.max_runtime_s is not None:
        paid = replace(costs, max_runtime_s=None).per_query(zeta)
    late = None if (is_late := costs.late) is None else is_late.astype(np.float64)
    best: tuple[tuple[float, float], ThresholdRule, IntArray] | None = None
    for kind, tokens in (("input_tokens", workload.input_tokens), ("output_tokens", workload.output_tokens)):
        values, P = _cumulative(tokens, workload.count, paid)
        if len(values) < 2:
            continue
        L = np.zeros_like(P) if late is None else _cumulative(tokens, workload.count, late)[1]
        for A, below in enumerate(names):
            for B, above in enumerate(names):
                if A == B:
                    continue
                rules, late_queries = (sums[:-1, A] + sums[-1, B] - sums[:-1, B] for sums in (P, L))
                at = int(np.where(late_queries == late_queries.min(), rules, np.inf).argmin())
                key = float(late_queries[at]), float(rules[at])
                if best is None or key < best[0]:
                    best = key, ThresholdRule(kind, int(values[at]), below, above), tokens
    if best is None:
        return None
    _, rule, tokens = best
    choice = np.where(tokens <= rule.threshold, names.index(rule.below), names.index(rule.above))
    return BestThreshold(rule, choice.astype(np.uint16))


def _cumulative(tokens: IntArray, count: IntArray, values: FloatArray) -> tuple[IntArray, FloatArray]:
    """The numbers of tokens that occur, ascending, and the sums of ``count``·``values`` up to each (n, n_choices)."""
    if tokens.max() < DENSE_TOKENS:
        sums = kernels.tally(tokens, int(tokens.max()) + 1, count, values)
        present = np.flatnonzero(np.bincount(tokens))
        sums = sums[present]
    else:
        present, place = np.unique(tokens, return_inverse=True)
        sums = kernels.tally(place, len(present), count, values)
    return present, sums.cumsum(axis=0)
