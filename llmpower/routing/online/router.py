"""Routing one query at a time: cost, less what is expected of its answer, plus a price that follows the shares.

A policy says what an optimal plan would do with a query of known lengths. :class:`OnlineRouter` works with what a
gateway knows: τin, perhaps who asks, and no answer yet. It chooses by one argmin,

    argmin_K  E[c_K(τin, τout) | τin, application] + λ_K          over the models that the quotas leave open

at the rate of the moment, where the policy pursues money or carbon (:mod:`~llmpower.routing.policies.tariff`). It
learns the lengths from answers as they come (:mod:`~llmpower.routing.policies.lengths`), keeps the shares over periods
(:mod:`~llmpower.routing.online.quotas`) and lets prices follow both (:mod:`~llmpower.routing.online.prices`). Deciding
and learning from an answer take microseconds. Solving for prices again takes longer and is
:meth:`OnlineRouter.learn`'s, which a caller runs where it may take its time, whenever :attr:`OnlineRouter.learning_due`
says so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from threading import Lock

from llmpower.routing.online.costs import QueryCosts, cheapest
from llmpower.routing.online.curves import ExpectedCosts
from llmpower.routing.online.in_time import InTime
from llmpower.routing.online.prices import FollowingPrices, price_sample, response
from llmpower.routing.online.quotas import quotas_of
from llmpower.routing.online.state import RouterState, load_state, policy_digest, save_state
from llmpower.routing.online.token_counts import Query, check_label, count, length, queries_of
from llmpower.routing.policies.lengths import Law, OutputLengthLearner, exactly
from llmpower.routing.policies.policy import PolicyModel, RoutingPolicy, check_policy, middle_of_the_fits
from llmpower.routing.policies.tariff import ALWAYS

PERIOD = 10_000
"""Queries over which shares are kept, unless told otherwise."""

MEMORY = 4096
"""The latest queries, which prices are solved for."""

ENOUGH = 256
"""Queries without which solving for prices would be guessing."""

PLENTY = MEMORY // 2
"""Queries with which prices are solved for at the beginning of a period and not within it: a sample that is shorter
than the period follows its waves, which the optimum over the period does not."""

REFRESH = 8
"""Queries from one look at the deviations to the next."""


class OnlineRouter:
    """Chooses a model for each query as it comes; safe to use from any number of threads.

    Args:
        policy: what ``llmpower route --policy`` wrote.
        period: the number of queries over which the policy's shares are kept: all that will come where that is known.
        clock: the time, in seconds since 1970, by which the rate of the moment is known.

    Raises:
        InputError: ``policy`` is not a policy, or ``period`` not a whole number from 1 up.
        InfeasibleError: no whole numbers of that many queries meet the shares.

    Example:
        >>> import pandas as pd
        >>> from llmpower.modelling import fit
        >>> from llmpower.routing import Workload, make_policy, route
        >>> L, K = (8, 64, 512), (("small", 1), ("large", 5))
        >>> rows = pd.DataFrame(
        ...     [(name, τin, τout, k * (5 + 0.1 * τin + 2 * τout), 1.0) for name, k in K for τin in L for τout in L],
        ...     columns=["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"],
        ... )
        >>> yesterday = Workload.from_tokens([8, 500, 8, 500], [10, 10, 400, 400])
        >>> shares = {"small": 0.5, "large": 0.5}
        >>> plan = route(fit(rows, form="cached"), yesterday, {"small": 0.5, "large": 0.7}, shares=shares)
        >>> router = OnlineRouter(make_policy(plan), period=2)
        >>> sorted(router.choose(input_tokens=100).name for _ in range(2))
        ['large', 'small']
        >>> router.observe(input_tokens=100, output_tokens=37)
    """

    def __init__(self, policy: RoutingPolicy, period: int = PERIOD, clock: Callable[[], float] = time.time) -> None:
        check_policy(policy)
        self.policy, self._clock = policy, clock
        self._lock = Lock()
        self._costs = QueryCosts(policy)
        self._lengths = OutputLengthLearner(policy.output_lengths, middle_of_the_fits(policy))
        self._expected = ExpectedCosts(self._costs, self._lengths)
        self._in_time = None if policy.max_runtime_s is None else InTime(policy, self._lengths)
        self._curves = [self._expected, *([] if self._in_time is None else [self._in_time.expected])]
        self._quotas = quotas_of(policy, period)
        self._memory: deque[Query] = deque(maxlen=MEMORY)
        self._prices = FollowingPrices([model.price for model in policy.models])
        self._rate = ALWAYS if policy.tariff is None else policy.tariff.stretch(clock())
        self._until_refresh = 0
        self._until_learning = ENOUGH

    @property
    def learning_due(self) -> bool:
        """Whether enough has changed for :meth:`learn` to be worth its time."""
        return self._until_learning <= 0

    @property
    def prices(self) -> dict[str, float]:
        """λ by the model's name, in the unit of the policy's objective; as of the last few queries."""
        return {model.name: price for model, price in zip(self.policy.models, self._prices.now, strict=True)}

    @property
    def served(self) -> dict[str, int]:
        """Queries by the model's name in the period that is under way."""
        with self._lock:
            return {model.name: count for model, count in zip(self.policy.models, self._quotas.served, strict=True)}

    def choose(
        self,
        input_tokens: int,
        output_tokens: float | None = None,
        *,
        query_class: str | None = None,
        at_most: float | None = None,
    ) -> PolicyModel:
        """The model for a query, which counts as sent to it.

        Args:
            input_tokens: τin.
            output_tokens: τout where it is known, or the client says it.
            query_class: the application's label, if there is one: it says more about the answer than τin does.
            at_most: the longest answer that the client allows (``max_tokens``).

        Raises:
            InputError: a length or label cannot be; nothing was chosen.
        """
        input_tokens = count("input_tokens", input_tokens)
        output_tokens = None if output_tokens is None else length("output_tokens", output_tokens)
        at_most = None if at_most is None else length("at_most", at_most)
        if query_class is not None:
            check_label(query_class)
        with self._lock:
            # Answers bring prices up to date, as nobody waits for those; but they may be long in coming.
            if self._until_refresh <= -REFRESH:
                self._refresh()
            self._until_refresh -= 1
            self._until_learning -= 1
            prices, still_open, now_s = self._prices.now, self._quotas.open, self._clock()
            if not self._rate.start_s <= now_s < self._rate.end_s:
                assert self.policy.tariff is not None
                self._rate = self.policy.tariff.stretch(now_s)
            part = self._rate.part
            if at_most is None and output_tokens is None:
                if self._in_time is not None:
                    still_open = self._in_time.of_unknown(input_tokens, query_class, still_open)
                chosen = self._expected.cheapest(input_tokens, query_class, prices, still_open, part)
            elif self._in_time is None and output_tokens is not None:
                costs = self._costs.known(input_tokens, output_tokens, query_class, part)
                chosen = cheapest(costs, prices, still_open)
            else:
                law = self._law(input_tokens, output_tokens, query_class, at_most)
                if self._in_time is not None:
                    still_open = self._in_time.of(input_tokens, law, still_open)
                chosen = cheapest(self._costs.of(input_tokens, law, query_class, part), prices, still_open)
            self._memory.append((input_tokens, output_tokens, query_class, now_s))
            if self._quotas.count(chosen):
                self._begin_period()
            return self.policy.models[chosen]

    def observe(self, input_tokens: int, output_tokens: int, *, query_class: str | None = None) -> None:
        """Learn how long the answer to a query was, however much later it comes.

        Raises:
            InputError: a length or label cannot be; nothing was learnt.
        """
        input_tokens, output_tokens = count("input_tokens", input_tokens), count("output_tokens", output_tokens)
        if query_class is not None:
            check_label(query_class)
        with self._lock:
            self._lengths.observe(input_tokens, output_tokens, query_class)
            for curves in self._curves:
                curves.learnt(input_tokens, query_class)
            if self._until_refresh <= 0:
                self._refresh()

    def remember(
        self,
        input_tokens: Iterable[int],
        output_tokens: Iterable[int],
        classes: str | Iterable[str | None] | None = None,
        *,
        times_s: Iterable[float | None] | None = None,
        lengths_known: bool = False,
    ) -> None:
        """Begin with what is known of queries of the past: lengths, and prices at which they would keep the shares.

        ``classes`` are their labels, or one label of all; ``times_s`` when they came, in seconds since 1970;
        ``lengths_known`` says that queries to come will be chosen for with their τout.

        Raises:
            InputError: a length or label cannot be, or there is not one of each for each query; nothing was learnt.
        """
        for τin, τout, query_class, at_s in queries_of(input_tokens, output_tokens, classes, times_s):
            with self._lock:
                self._lengths.observe(τin, τout, query_class)
                self._memory.append((τin, float(τout) if lengths_known else None, query_class, at_s))
        with self._lock:
            if not lengths_known:
                self._prepare([(τin, label) for τin, _, label, _ in self._memory])
        self.learn()

    def learn(self) -> bool:
        """Solve for prices again, on the queries in memory; whether there were enough. Others may choose meanwhile."""
        with self._lock:
            queries = list(self._memory)
            self._until_learning = self._quotas.remaining if len(queries) >= PLENTY else max(len(queries), ENOUGH)
        if len(queries) < ENOUGH:
            return False
        laws: list[Law] = []
        for start in range(0, len(queries), 64):
            with self._lock:  # for a moment each, so that nobody waits for all of them
                laws += [self._law(τin, τout, label) for τin, τout, label, _ in queries[start : start + 64]]
        rates = self.policy.tariff
        parts = 1.0 if rates is None else rates.parts([query[3] for query in queries])
        costs = self._costs.sample([query[0] for query in queries], laws, [query[2] for query in queries], parts)
        if self._in_time is not None:
            costs = self._in_time.sample(costs, [query[0] for query in queries], laws)
        low, high = self._quotas.limits
        prices = price_sample(costs, low, high, self._quotas.period)
        answer = response(costs, prices, self._quotas.shares)
        with self._lock:
            self._prices.begin(prices.tolist(), answer.tolist())
            self._until_refresh = 0
        return True

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything learnt to ``path``, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        with self._lock:
            state = RouterState(
                policy=policy_digest(self.policy),
                period=self._quotas.period,
                served=self._quotas.served.copy(),
                base=self._prices.base.copy(),
                prices=self._prices.now.copy(),
                response=[row.copy() for row in self._prices.response],
                sum_of_prices=self._prices.sum.copy(),
                refreshed=self._prices.followed,
                until_refresh=self._until_refresh,
                until_learning=self._until_learning,
                memory=[query[:3] for query in self._memory],
                times_s=[query[3] for query in self._memory],
                lengths=self._lengths.state(),
                open=list(self._quotas.open),
            )
        save_state(state, Path(path))

    def restore(self, path: str | PathLike[str]) -> None:
        """Go on from where :meth:`save` was called.

        Lengths and the memory of queries hold for any policy. Counts and prices are taken up if they were of this
        policy and this period; else a new period begins, and prices are solved for from the memory.

        Raises:
            InputError: the file cannot be read, or is not what :meth:`save` writes.
        """
        state = load_state(Path(path))
        with self._lock:
            self._lengths.restore(state.lengths)
            for curves in self._curves:
                curves.forget()
            times_s = [None] * len(state.memory) if state.times_s is None else state.times_s
            self._memory.extend((*query, at_s) for query, at_s in zip(state.memory, times_s, strict=True))
            if unknown := [(τin, label) for τin, τout, label, _ in self._memory if τout is None]:
                self._prepare(unknown)
            same = state.policy == policy_digest(self.policy) and state.period == self._quotas.period
            if same:
                self._quotas.begin(state.served, state.open)
                self._prices.begin(state.base, state.response)
                self._prices.sum, self._prices.followed = state.sum_of_prices, state.refreshed
                self._prices.now, self._until_refresh = state.prices, state.until_refresh
                self._until_learning = state.until_learning
        if not same:
            self.learn()

    def _prepare(self, queries: list[tuple[int, str | None]]) -> None:
        for curves in self._curves:
            curves.prepare(queries)

    def _law(
        self, input_tokens: int, output_tokens: float | None, query_class: str | None, at_most: float | None = None
    ) -> Law:
        if output_tokens is not None:
            return exactly(output_tokens)
        law = self._lengths.law(input_tokens, query_class)
        if at_most is not None and at_most < law.x2:
            x1, x2 = min(law.x1, at_most), at_most
            return Law(law.w1 * x1 + law.w2 * x2, x1, law.w1, x2, law.w2)
        return law

    def _refresh(self) -> None:
        """Let prices follow the deviations."""
        quotas = self._quotas
        deviations = quotas.deviations()
        quotas.refresh(deviations)
        self._prices.follow(deviations, quotas.remaining, quotas.period)
        self._until_refresh = REFRESH

    def _begin_period(self) -> None:
        self._prices.begin_at_mean()
        self._quotas.begin()
        self._until_refresh, self._until_learning = 0, min(self._until_learning, 0)
