"""A policy's limit on latency: the models that are expected to answer a query in time.

A plan forbids pairs of query and model whose predicted runtime is above the limit
(:mod:`~llmpower.routing.costing.latency`). Who decides before the answer is there expects a runtime as it expects a
cost, by the law of τout, so the limit holds for what is expected and, where lengths are known or told, for what is
predicted. A query that no model answers in time goes to the quickest of those that the quotas leave open: shares are
promised to the query, the limit where it can be kept.

Runtimes are sums of a form's terms as joules are, so all that computes the one computes the other: for a policy
whose costs are seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.outcome import Scaling
from llmpower.routing.online.costs import QueryCosts
from llmpower.routing.online.curves import ExpectedCosts
from llmpower.routing.policies.lengths import Law, OutputLengthLearner
from llmpower.routing.policies.policy import RoutingPolicy, allowed


class InTime:
    """The models that are expected in time, by what ``lengths`` has learnt; not thread-safe, its router is.

    ``policy`` has a limit.
    """

    def __init__(self, policy: RoutingPolicy, lengths: OutputLengthLearner) -> None:
        assert policy.max_runtime_s is not None
        self._most_s = policy.max_runtime_s
        self._seconds = seconds_of(policy)
        self.expected = ExpectedCosts(self._seconds, lengths)

    def of_unknown(self, input_tokens: int, query_class: str | None, models: tuple[int, ...]) -> tuple[int, ...]:
        """Of ``models``, by number, those for a query of which τin and label alone are known."""
        return in_time(self.expected.of(input_tokens, query_class), self._most_s, models)

    def of(self, input_tokens: int, law: Law, models: tuple[int, ...]) -> tuple[int, ...]:
        """The same for an answer of that law."""
        return in_time(self._seconds.of(input_tokens, law), self._most_s, models)

    def sample(self, costs: FloatArray, input_tokens: Sequence[int], laws: Sequence[Law]) -> FloatArray:
        """``costs`` (n_queries, n_models) of such queries, ∞ where one may not go."""
        return only_in_time(costs, self._seconds, self._most_s, input_tokens, laws)


def in_time(runtime_s: Sequence[float], most_s: float, models: tuple[int, ...]) -> tuple[int, ...]:
    """Of ``models``, by number, those that take at most that long, or the quickest."""
    return tuple(n for n in models if runtime_s[n] <= most_s) or (min(models, key=lambda n: runtime_s[n]),)


def seconds_of(policy: RoutingPolicy) -> QueryCosts:
    """What costs seconds instead of the policy's objective."""
    models = [replace(model, energy=model.runtime, accuracy=None, accuracy_by_class={}) for model in policy.models]
    return QueryCosts(replace(policy, zeta=1.0, scaling=Scaling(1.0, None), models=tuple(models)))


def only_in_time(
    costs: FloatArray, seconds: QueryCosts, most_s: float | None, input_tokens: Sequence[int], laws: Sequence[Law]
) -> FloatArray:
    """``costs`` (n_queries, n_models) with ∞ where a query of that law may not go; themselves without a limit."""
    if most_s is None:
        return costs
    runtime_s = seconds.sample(input_tokens, laws, [None] * len(laws))
    return np.where(allowed(runtime_s, most_s), costs, np.inf)
