"""The trace that strategies are judged on, at its true lengths, and what one of them came to there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.online.costs import QueryCosts
from llmpower.routing.online.in_time import only_in_time, seconds_of
from llmpower.routing.policies.lengths import Law
from llmpower.routing.policies.policy import RoutingPolicy
from llmpower.routing.problem.rates import AMOUNTS
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.replaying.dispatchers import known_laws, parts_of
from llmpower.routing.replaying.replay import Replay, Trace


@dataclass(frozen=True, slots=True, eq=False)
class Strategy:
    """What one way of routing came to.

    ``objective`` is the sum over the replayed queries, without unit; joules and seconds are what the models predict for
    the true lengths; euros or grams are known of what the policy pursues. ``late_queries`` take longer than the
    policy's limit, by themselves; ``None`` without one. Waits are from arrival to start. ``closed`` is as above, 1 for
    the optimum.
    """

    objective: float
    closed: float | None
    energy_j: float
    cost_eur: float | None
    carbon_g: float | None
    accuracy_token_weighted: float | None
    accuracy_query_mean: float | None
    shares: Mapping[str, float]
    shares_kept: bool
    late_queries: int | None
    wait_mean_s: float
    wait_p50_s: float
    wait_p99_s: float
    decision_p50_us: float | None = None
    decision_p99_us: float | None = None


class Arena:
    """The trace at its true lengths on every model of the policy; arrays are (n_queries, n_models)."""

    def __init__(self, policy: RoutingPolicy, trace: Trace) -> None:
        self.names = [model.name for model in policy.models]
        self._tokens = trace.input_tokens + trace.output_tokens
        self._policy = policy
        self._most_s, self._seconds, self._trace = policy.max_runtime_s, seconds_of(policy), trace
        self.parts, self._rates = np.array(parts_of(policy, trace)), policy.tariff
        tokens = trace.input_tokens.tolist()
        self.costs = QueryCosts(policy).sample(tokens, known_laws(trace), trace.classes, self.parts)
        lengths = (trace.input_tokens, trace.output_tokens)
        self.energy_j = np.column_stack([model.energy.predict(*lengths) for model in policy.models])
        self.runtime_s = np.column_stack([model.runtime.predict(*lengths) for model in policy.models])
        for what, values in (("energy_j", self.energy_j), ("runtime_s", self.runtime_s)):
            wrong = ~((values > 0) & np.isfinite(values))
            if wrong.any():
                query, number = np.argwhere(wrong)[0].tolist()
                advice = (
                    f"{self.names[number]} is predicted nothing positive for {lengths[0][query]} input and"
                    f" {lengths[1][query]} output tokens; fit it with another form and make the plan again"
                )
                raise InputError(what, f"{values[query, number]:.4g}", advice)
        self._accuracy = None
        if policy.scaling.accuracy_max is not None:
            of = {
                label: [model.accuracy_by_class.get(label or "", model.accuracy or 0.0) for model in policy.models]
                for label in dict.fromkeys(trace.classes)
            }
            self._accuracy = np.array([of[label] for label in trace.classes])

    def in_time(self, costs: FloatArray, laws: list[Law]) -> FloatArray:
        """``costs`` of the queries, ∞ where one that is expected to be of such a law may not go."""
        return only_in_time(costs, self._seconds, self._most_s, self._trace.input_tokens.tolist(), laws)

    def objective(self, played: Replay) -> float:
        """Σ ζ·ê − (1−ζ)·â of the choices, at the true lengths."""
        return float(self._taken(self.costs, played.choices).sum())

    @property
    def worth_j(self) -> float | None:
        """Joules, weighted where there are rates, that a percentage point of these queries' mean accuracy is worth: as
        :meth:`~llmpower.routing.tradeoffs.tradeoff.Tradeoff.joules_per_point`. ``None`` where ζ is 0 or there is no
        accuracy.
        """
        scaling, ζ = self._policy.scaling, self._policy.zeta
        if scaling.accuracy_max is None or not ζ:
            return None
        weight = float(self._tokens.sum()) if self._policy.accuracy_weighting == "tokens" else len(self._tokens)
        return (1 - ζ) / ζ * scaling.energy_max_j / (scaling.accuracy_max or 1.0) * weight / 100

    def strategy(
        self,
        played: Replay,
        objective: float,
        closed: float | None,
        shares_kept: bool,
        decisions_ns: Sequence[int],
    ) -> Strategy:
        """What it came to; ``decisions_ns`` are how long the router took over each, where there is one."""
        token_weighted = query_mean = None
        if self._accuracy is not None:
            accuracy = self._taken(self._accuracy, played.choices)
            token_weighted = float(accuracy @ self._tokens / self._tokens.sum())
            query_mean = float(accuracy.mean())
        energy_j = self._taken(self.energy_j, played.choices)
        amount = None if self._rates is None else self._rates.amount(float(energy_j @ self.parts))
        shares = np.bincount(played.choices, minlength=len(self.names)) / len(played.choices)
        return Strategy(
            objective=objective,
            closed=closed,
            energy_j=float(energy_j.sum()),
            **{name: amount if self._policy.weighs == kind else None for kind, name in AMOUNTS.items()},
            accuracy_token_weighted=token_weighted,
            accuracy_query_mean=query_mean,
            shares=dict(zip(self.names, shares.tolist(), strict=True)),
            shares_kept=shares_kept,
            late_queries=None
            if self._most_s is None
            else int((self._taken(self.runtime_s, played.choices) > self._most_s).sum()),
            wait_mean_s=float(played.wait_s.mean()),
            wait_p50_s=float(np.percentile(played.wait_s, 50)),
            wait_p99_s=float(np.percentile(played.wait_s, 99)),
            decision_p50_us=_percentile_us(decisions_ns, 50),
            decision_p99_us=_percentile_us(decisions_ns, 99),
        )

    @staticmethod
    def _taken(values: FloatArray, choices: IntArray) -> FloatArray:
        return np.asarray(values[np.arange(len(choices)), choices])


def _percentile_us(taken_ns: Sequence[int], percent: float) -> float | None:
    return float(np.percentile(taken_ns, percent) / 1000) if taken_ns else None
