"""``llmpower simulate``: the online router on a trace, beside what others would have done and what was possible.

The first part of the trace is history, which may be learnt from; the rest is replayed
(:mod:`~llmpower.routing.replay`). What counts is the policy's objective, Σ ζ·ê − (1−ζ)·â at the true lengths, and how
much of the way from chance to the optimum a router goes,

    closed = (random − router) / (random − optimum)

where both ends have the same numbers of queries a model, and so must what is compared: it is ``None`` for whoever does
not keep the shares (in a last period that the trace does not fill, nobody is held to them). ``random`` stands for the
mean of all draws; the draw that is replayed gives its waits. Where the policy pursues money or carbon, all decide and
are judged at the rates of the trace's own times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.dispatchers import (
    Online,
    Resolving,
    hindsight_laws,
    known_laws,
    learnt_laws,
    optimum,
    parts_of,
    round_robin,
)
from llmpower.routing.in_time import only_in_time, seconds_of
from llmpower.routing.lengths import Law
from llmpower.routing.online_costs import QueryCosts
from llmpower.routing.policy import RoutingPolicy
from llmpower.routing.quotas import Quotas
from llmpower.routing.rates import AMOUNTS, Weigh
from llmpower.routing.replay import Dispatcher, Fixed, Replay, Trace, replay, servers_for
from llmpower.routing.workload import IntArray

UTILISATION = 0.8
"""Of the servers, where their number is not given: as busy as this are they under the optimal plan."""

SEED = 1


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


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """All strategies by name, the best possible first; ``period`` is the number of queries shares are kept over."""

    simulated: bool
    zeta: float
    weighs: Weigh
    accuracy_weighting: str
    history: int
    queries: int
    period: int
    max_runtime_s: float | None
    servers: Mapping[str, int]
    strategies: Mapping[str, Strategy]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


def simulate(
    policy: RoutingPolicy,
    trace: Trace,
    *,
    history: float = 0.2,
    period: int | None = None,
    servers: Mapping[str, int] | None = None,
    only: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Replay ``trace`` under every strategy.

    Args:
        policy: what ``llmpower route --policy`` wrote.
        trace: the queries.
        history: the fraction of them, from the first on, that is learnt from and not routed.
        period: queries over which shares are kept; by default all that are replayed, as if their number were known.
        servers: by model's name, how many queries each serves at a time; by default as many as the optimal plan keeps
            busy for :data:`UTILISATION` of the time.
        only: the strategies to replay, by name; by default all.
        progress: called with strategies done and their number.

    Raises:
        InputError: an argument is out of range, a model predicts a query to take no time or no energy, or one came
            when the policy's tariff has no rate.
        InfeasibleError: no whole numbers of ``period`` queries meet the shares, or none within the policy's limit on
            latency.
    """
    if not 0 <= history < 1:
        raise InputError(
            "--history", history, "is the part of the trace to learn from; give 0 or more, and less than 1"
        )
    past, rest = trace.split(int(history * len(trace)))
    period = len(rest) if period is None else period
    arena = _Arena(policy, rest)
    low, high = _limits(policy, len(rest), period)
    best = optimum(arena.in_time(arena.costs, known_laws(rest)), low, high)
    counts = np.bincount(best, minlength=len(policy.models))
    n_servers = _servers(policy, servers or {}, servers_for(rest, arena.runtime_s, best, UTILISATION))

    costs = QueryCosts(policy)
    tokens = rest.input_tokens.tolist()
    prices = np.array([model.price for model in policy.models])
    expected, in_hindsight = (
        arena.in_time(costs.sample(tokens, laws, rest.classes, arena.parts), laws)
        for laws in (learnt_laws(policy, past, rest), hindsight_laws(rest))
    )
    informed = optimum(in_hindsight, low, high)
    draw = np.random.default_rng(SEED).permutation(np.repeat(np.arange(len(counts)), counts))
    contenders: dict[str, Callable[[], Dispatcher]] = {
        "optimum": lambda: Fixed(best),
        "optimum_same_information": lambda: Fixed(informed),
        "online_lengths_known": lambda: Online(policy, period, past, rest, lengths_known=True),
        "online": lambda: Online(policy, period, past, rest),
        "re_solving": lambda: Resolving(policy, period, past, rest),
        "static_prices": lambda: Fixed((expected + prices).argmin(axis=1)),
        "greedy": lambda: Fixed(expected.argmin(axis=1)),
        "weighted_round_robin": lambda: Fixed(round_robin((counts / len(rest)).tolist(), len(rest))),
        "random": lambda: Fixed(draw),
    }
    for number, model in enumerate(policy.models):
        contenders[f"single:{model.name}"] = lambda number=number: Fixed(np.full(len(rest), number))  # type: ignore[misc]
    contenders = {name: contender for name, contender in contenders.items() if not only or name in only}
    random_objective = float(arena.costs.mean(axis=0) @ counts)
    span = random_objective - float(arena.costs[np.arange(len(rest)), best].sum())
    strategies = {}
    for done, (name, contender) in enumerate(contenders.items()):
        timed = _Timed(contender())
        played = replay(rest, arena.runtime_s, n_servers, timed)
        objective = random_objective if name == "random" else arena.objective(played)
        served = np.bincount(played.choices, minlength=len(policy.models))
        # A period that the trace does not fill has no end to be held to.
        kept = bool((served >= low - len(rest) % period).all() and (served <= high + len(rest) % period).all())
        closed = (random_objective - objective) / span if kept and span > 0 else None
        p50, p99 = timed.percentiles_us() if name.startswith("online") else (None, None)
        strategies[name] = arena.strategy(played, objective, closed, kept, p50, p99)
        if progress is not None:
            progress(done + 1, len(contenders))
    return Simulation(
        simulated=policy.simulated,
        zeta=policy.zeta,
        weighs=policy.weighs,
        accuracy_weighting=policy.accuracy_weighting,
        history=len(past),
        queries=len(rest),
        period=period,
        max_runtime_s=policy.max_runtime_s,
        servers=dict(zip(arena.names, n_servers.tolist(), strict=True)),
        strategies=strategies,
    )


class _Arena:
    """The trace at its true lengths on every model of the policy; arrays are (n_queries, n_models)."""

    def __init__(self, policy: RoutingPolicy, trace: Trace) -> None:
        self.names = [model.name for model in policy.models]
        self._tokens = trace.input_tokens + trace.output_tokens
        self._weighs = policy.weighs
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
        return float(self._taken(self.costs, played.choices).sum())

    def strategy(
        self,
        played: Replay,
        objective: float,
        closed: float | None,
        shares_kept: bool,
        decision_p50_us: float | None,
        decision_p99_us: float | None,
    ) -> Strategy:
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
            **{name: amount if self._weighs == kind else None for kind, name in AMOUNTS.items()},
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
            decision_p50_us=decision_p50_us,
            decision_p99_us=decision_p99_us,
        )

    @staticmethod
    def _taken(values: FloatArray, choices: IntArray) -> FloatArray:
        return np.asarray(values[np.arange(len(choices)), choices])


class _Timed:
    """A dispatcher whose decisions are timed, in wall time."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._ns: list[int] = []

    def choose(self, query: int) -> int:
        began_ns = perf_counter_ns()
        chosen = self._dispatcher.choose(query)
        self._ns.append(perf_counter_ns() - began_ns)
        return chosen

    def complete(self, query: int) -> None:
        self._dispatcher.complete(query)

    def percentiles_us(self) -> tuple[float, float]:
        p50, p99 = np.percentile(self._ns, (50, 99)) / 1000
        return float(p50), float(p99)


def _limits(policy: RoutingPolicy, n_queries: int, period: int) -> tuple[IntArray, IntArray]:
    """Lowest and highest number of queries of each model, (n_models,), over whole periods and what is left of one."""
    ranges = [model.share_range for model in policy.models]
    each = np.array(Quotas(ranges, period).limits)
    whole, left = divmod(n_queries, period)
    limits = whole * each
    if left:
        limits = limits + np.array(Quotas(ranges, left).limits)
    return limits[0], limits[1]


def _servers(policy: RoutingPolicy, asked: Mapping[str, int], otherwise: IntArray) -> IntArray:
    names = [model.name for model in policy.models]
    for name, count in asked.items():
        if name not in names:
            raise InputError("--servers", name, f"is not among the policy's models: {', '.join(names)}")
        if count < 1:
            raise InputError("--servers", f"{name}={count}", "a model has 1 or more")
    return np.array([asked.get(name, int(count)) for name, count in zip(names, otherwise, strict=True)], np.int64)
