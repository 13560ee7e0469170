"""``llmpower simulate``: the online router on a trace, beside what others would have done and what was possible.

The first part of the trace is history, which may be learnt from; the rest is replayed
(:mod:`~llmpower.routing.replaying.replay`). What counts is the policy's objective, Σ ζ·ê − (1−ζ)·â at the true lengths,
and how much of the way from chance to the optimum a router goes,

    closed = (random − router) / (random − optimum)

where both ends have the same numbers of queries a model, those of the optimum. It is ``None`` for whoever does not keep
the shares: in a last period that the trace does not fill, to a tenth of it, as the router does within one. ``random``
stands for the mean of all draws; the draw that is replayed gives its waits. Where the policy pursues money or carbon,
all decide and are judged at the rates of the trace's own times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmpower.exceptions import InputError
from llmpower.routing.online.costs import QueryCosts
from llmpower.routing.online.quotas import SLACK, check_period, quotas_of
from llmpower.routing.online.router import REFRESH
from llmpower.routing.policies.policy import RoutingPolicy, check_policy
from llmpower.routing.problem.rates import Weigh
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.replaying.arena import Arena, Strategy
from llmpower.routing.replaying.dispatchers import (
    Online,
    Resolving,
    hindsight_laws,
    known_laws,
    learnt_laws,
    optimum,
    round_robin,
)
from llmpower.routing.replaying.replay import Dispatcher, Fixed, Trace, replay, servers_for
from llmpower.tables import number_of, whole_number

UTILISATION = 0.8
"""Of the servers, where their number is not given: as busy as this are they under the optimal plan."""

SEED = 1
ROUNDING = 1e-9
"""Of a number of queries that is a product."""


@dataclass(frozen=True, slots=True, eq=False)
class Simulation:
    """All strategies by name, the best possible first; ``period`` is the number of queries shares are kept over.

    What a percentage point of the queries' mean accuracy is worth at ζ is in joules, or as ``amount_per_point`` in
    euros or grams, where those are pursued.
    """

    simulated: bool
    boundary: str | None
    zeta: float
    joules_per_point: float | None
    amount_per_point: float | None
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
    only: str | Collection[str] = (),
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
        only: the strategies to replay, by name, or one; by default all.
        progress: called with strategies done and their number.

    Raises:
        InputError: an argument is out of range, a model predicts a query to take no time or no energy, or one came
            when the policy's tariff has no rate.
        InfeasibleError: no whole numbers of ``period`` queries meet the shares, or none within the policy's limit on
            latency.
    """
    check_policy(policy)
    if not isinstance(trace, Trace):
        raise InputError("trace", type(trace).__name__, "is not a trace; make one by Trace.from_frame(table)")
    if not 0 <= (learnt := number_of(history)) < 1:
        raise InputError(
            "--history", history, "is the part of the trace to learn from; give 0 or more, and less than 1"
        )
    past, rest = trace.split(int(learnt * len(trace)))
    period = len(rest) if period is None else check_period(period)
    arena = Arena(policy, rest)
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
    only = (only,) if isinstance(only, str) else tuple(only)
    for name in only:
        if name not in contenders:
            raise InputError("only", name, f"is not a strategy; there are: {', '.join(contenders)}")
    contenders = {name: contender for name, contender in contenders.items() if not only or name in only}
    random_objective = float(arena.costs.mean(axis=0) @ counts)
    # A period that the trace does not fill has no end at which shares are kept to the query.
    spare = min(len(rest) % period, SLACK * min(period, len(rest)) + 2 * REFRESH * len(policy.models))
    span = random_objective - float(arena.costs[np.arange(len(rest)), best].sum())
    strategies = {}
    for done, (name, contender) in enumerate(contenders.items()):
        dispatcher = contender()
        played = replay(rest, arena.runtime_s, n_servers, dispatcher)
        objective = random_objective if name == "random" else arena.objective(played)
        served = np.bincount(played.choices, minlength=len(policy.models))
        kept = bool((served >= low - spare).all() and (served <= high + spare).all())
        closed = (random_objective - objective) / span if kept and span > 0 else None
        decisions_ns = dispatcher.decisions_ns if isinstance(dispatcher, Online) else []
        strategies[name] = arena.strategy(played, objective, closed, kept, decisions_ns)
        if progress is not None:
            progress(done + 1, len(contenders))
    worth_j, tariff = arena.worth_j, policy.tariff
    return Simulation(
        simulated=policy.simulated,
        boundary=policy.boundary,
        zeta=policy.zeta,
        joules_per_point=worth_j if tariff is None else None,
        amount_per_point=None if tariff is None or worth_j is None else tariff.amount(worth_j),
        weighs=policy.weighs,
        accuracy_weighting=policy.accuracy_weighting,
        history=len(past),
        queries=len(rest),
        period=period,
        max_runtime_s=policy.max_runtime_s,
        servers=dict(zip(arena.names, n_servers.tolist(), strict=True)),
        strategies=strategies,
    )


def _limits(policy: RoutingPolicy, n_queries: int, period: int) -> tuple[IntArray, IntArray]:
    """Lowest and highest number of queries of each model, (n_models,), over whole periods and what is left of one.

    Of the latter no share is kept to the query, and some have no whole number of so few: they are rounded outwards.
    """
    low, high = (np.array(limit) for limit in quotas_of(policy, period).limits)
    whole, left = divmod(n_queries, period)
    lowest, highest = np.array([model.share_range for model in policy.models]).T
    low, high = whole * low + np.floor(lowest * left + ROUNDING), whole * high + np.ceil(highest * left - ROUNDING)
    return low.astype(np.int64), high.astype(np.int64)


def _servers(policy: RoutingPolicy, asked: Mapping[str, int], otherwise: IntArray) -> IntArray:
    names = [model.name for model in policy.models]
    if not hasattr(asked, "items"):
        raise InputError("servers", type(asked).__name__, "are not numbers of servers by model; give a dict")
    for name, count in asked.items():
        if name not in names:
            raise InputError("--servers", name, f"is not among the policy's models: {', '.join(names)}")
        if whole_number(count, 1) is None:
            raise InputError("--servers", f"{name}={count}", "a model has 1 or more")
    return np.array([asked.get(name, int(count)) for name, count in zip(names, otherwise, strict=True)], np.int64)
