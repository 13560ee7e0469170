"""What a replay compares: the online router, and other ways to send queries where they may go.

Those that know the future are computed beforehand and replayed as they are: an optimal plan for the true lengths, and
one for what can be known of them, the mean cost of queries of one label and one eighth of an octave of τin
(:func:`hindsight_laws`). No router that sees τin and the label alone can be expected to beat that one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter_ns

import numpy as np
from numpy.typing import ArrayLike

from llmpower.modelling.forms import FloatArray
from llmpower.routing.online.costs import QueryCosts
from llmpower.routing.online.in_time import in_time, only_in_time, seconds_of
from llmpower.routing.online.prices import price_sample
from llmpower.routing.online.quotas import quotas_of
from llmpower.routing.online.router import ENOUGH, MEMORY, OnlineRouter
from llmpower.routing.policies.lengths import Law, Moments, OutputLengthLearner, exactly, two_points
from llmpower.routing.policies.policy import RoutingPolicy
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.replaying.replay import Trace
from llmpower.routing.solving.solver import solve

RESOLVE_EVERY = 500
"""Queries from one plan of the re-solving baseline to the next."""

BUCKETS = 8
"""To the octave of τin: what queries are told apart by in :func:`hindsight_laws`."""


class Online:
    """The router, at the times of the trace; ``lengths_known`` tells it τout with every query.

    ``decisions_ns`` is how long it took over each, in wall time, without learning, for which nobody needs to wait.
    """

    def __init__(
        self, policy: RoutingPolicy, period: int, history: Trace, trace: Trace, *, lengths_known: bool = False
    ) -> None:
        self._queries, self._times_s, self._now_s = _queries(trace), trace.times_s.tolist(), trace.start_s
        self._router, self._known = OnlineRouter(policy, period, lambda: self._now_s), lengths_known
        self._number = {model.name: number for number, model in enumerate(policy.models)}
        self.decisions_ns: list[int] = []
        tokens = history.input_tokens.tolist(), history.output_tokens.tolist()
        times_s = history.times_s.tolist()
        self._router.remember(*tokens, history.classes, times_s=times_s, lengths_known=lengths_known)

    def choose(self, query: int) -> int:
        """As the router does."""
        τin, τout, label = self._queries[query]
        self._now_s = self._times_s[query]
        if self._router.learning_due:
            self._router.learn()
        began_ns = perf_counter_ns()
        chosen = self._router.choose(τin, τout if self._known else None, query_class=label)
        self.decisions_ns.append(perf_counter_ns() - began_ns)
        return self._number[chosen.name]

    def complete(self, query: int) -> None:
        """Let the router see the answer."""
        τin, τout, label = self._queries[query]
        self._router.observe(τin, τout, query_class=label)


class Resolving:
    """Plans again every ``period`` queries, for the remaining shares, on the latest queries; lengths are learnt."""

    def __init__(self, policy: RoutingPolicy, period: int, history: Trace, trace: Trace) -> None:
        self._costs, self._seconds, self._most_s = QueryCosts(policy), seconds_of(policy), policy.max_runtime_s
        self._quotas = quotas_of(policy, period)
        self._lengths = OutputLengthLearner(policy.output_lengths, _nothing_known(history, trace))
        self._memory: deque[tuple[int, str | None, float]] = deque(maxlen=MEMORY)
        self._queries, self._parts = _queries(trace), parts_of(policy, trace)
        self._prices = [model.price for model in policy.models]
        for (τin, τout, label), part in zip(_queries(history), parts_of(policy, history), strict=True):
            self._lengths.observe(τin, τout, label)
            self._memory.append((τin, label, part))

    def choose(self, query: int) -> int:
        """Argmin of cost plus price over what the quotas leave open."""
        if query % RESOLVE_EVERY == 0 and len(self._memory) >= ENOUGH and self._quotas.remaining > ENOUGH:
            self._solve()
        τin, _, label = self._queries[query]
        part, law = self._parts[query], self._lengths.law(τin, label)
        costs = self._costs.of(τin, law, label, part)
        models = self._quotas.open
        if self._most_s is not None:
            models = in_time(self._seconds.of(τin, law), self._most_s, models)
        chosen = min(models, key=lambda number: costs[number] + self._prices[number])
        self._memory.append((τin, label, part))
        if self._quotas.count(chosen):
            self._quotas.begin()
        return chosen

    def complete(self, query: int) -> None:
        """Learn its length."""
        self._lengths.observe(*self._queries[query])

    def _solve(self) -> None:
        tokens, labels, parts = zip(*self._memory, strict=True)
        laws = [self._lengths.law(τin, label) for τin, label in zip(tokens, labels, strict=True)]
        costs = self._costs.sample(tokens, laws, labels, parts)
        costs = only_in_time(costs, self._seconds, self._most_s, tokens, laws)
        served, (low, high) = self._quotas.served, self._quotas.limits
        left_low = [max(0, least - count) for least, count in zip(low, served, strict=True)]
        left_high = [most - count for most, count in zip(high, served, strict=True)]
        self._prices = price_sample(costs, left_low, left_high, self._quotas.remaining).tolist()


def optimum(costs: FloatArray, low: ArrayLike, high: ArrayLike) -> IntArray:
    """The choices of an optimal plan, (n_queries,), for ``costs`` (n_queries, n_models)."""
    solution = solve(costs, np.ones(len(costs), np.int64), np.asarray(low), np.asarray(high))
    return np.asarray(solution.assigned.argmax(axis=1))


def hindsight_laws(trace: Trace) -> list[Law]:
    """The law of τout in each query's bucket, from all answers of the trace."""
    buckets = np.floor(BUCKETS * np.log2(np.maximum(trace.input_tokens, 1))).astype(np.int64)
    labels = {label: number for number, label in enumerate(dict.fromkeys(trace.classes))}
    label_of = np.array([labels[label] for label in trace.classes])
    _, cell = np.unique(np.column_stack([label_of, buckets]), axis=0, return_inverse=True)
    cell = cell.ravel()
    count = np.bincount(cell)
    τ = trace.output_tokens.astype(np.float64)
    moments = np.column_stack([np.bincount(cell, τ**power) / count for power in (1, 2, 3)])
    laws = [two_points(*row) for row in moments.tolist()]
    return [laws[number] for number in cell.tolist()]


def known_laws(trace: Trace) -> list[Law]:
    """As if every τout were known."""
    return [exactly(float(τout)) for τout in trace.output_tokens.tolist()]


def learnt_laws(policy: RoutingPolicy, history: Trace, trace: Trace) -> list[Law]:
    """What is known at the end of the history, and nothing of what comes after."""
    lengths = OutputLengthLearner(policy.output_lengths, _nothing_known(history, trace))
    for τin, τout, label in _queries(history):
        lengths.observe(τin, τout, label)
    return [lengths.law(τin, label) for τin, _, label in _queries(trace)]


def parts_of(policy: RoutingPolicy, trace: Trace) -> list[float]:
    """What a joule counts at each query.

    Raises:
        InputError: the policy's tariff has no rate for one of them.
    """
    if policy.tariff is None:
        return [1.0] * len(trace)
    parts: list[float] = policy.tariff.parts_of_trace(trace.times_s).tolist()
    return parts


def round_robin(shares: Sequence[float], n_queries: int) -> IntArray:
    """Weighted and smooth: each query goes to the model that is furthest behind its share of the queries so far."""
    behind = np.zeros(len(shares))
    weights = np.asarray(shares)
    choices = np.empty(n_queries, np.int64)
    for query in range(n_queries):
        behind += weights
        choices[query] = chosen = int(behind.argmax())
        behind[chosen] -= 1
    return choices


def _queries(trace: Trace) -> list[tuple[int, int, str | None]]:
    return list(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), trace.classes, strict=True))


def _nothing_known(history: Trace, trace: Trace) -> Moments:
    """A policy without lengths and no history: as the first answer will be."""
    τ = float((history if len(history) else trace).output_tokens[0])
    return Moments(0, τ, τ**2, τ**3)
