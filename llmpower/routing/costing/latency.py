"""A limit on latency, ``--max-runtime S``: what to say where it forbids too much.

A pair of query and model is allowed when the model's predicted runtime for the query by itself, without waiting in a
queue, is at most S; the solver takes the other pairs to cost infinity. Two things can go wrong, and both are found
before anything is solved: a query that no model serves in time, and shares that what is left cannot meet. An operator
then wants to know how far away the limit is, so the error has the least S that would do.

For that, costs do not matter: only which models a query may go to, its pattern. K models make 2^K patterns at most and
few in practice, so whether shares can be met is a transportation problem of a few rows, whatever the workload's size.
The larger S, the more is allowed, so the least one is found by bisection among the runtimes that occur.
"""

from __future__ import annotations

from bisect import bisect_left
from decimal import ROUND_CEILING, Context
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InfeasibleError
from llmpower.phrases import plural
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.predictions import lengths
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving.solver import solve

Limits = tuple[IntArray, IntArray]


def refuse_late(costs: Costs, limits: Limits) -> None:
    """Refuse a limit on latency that leaves no plan within ``limits``, the lowest and highest numbers (n_models,).

    Raises:
        InfeasibleError: it names the queries that are late everywhere or the shares that could be met, and the least
            limit under which there is a plan.
    """
    if (late := costs.late) is None:
        return
    assert costs.runtime_s is not None
    workload, limit = costs.workload, f"{costs.max_runtime_s:.6g} s"
    nowhere = np.flatnonzero(late.all(axis=1))
    if len(nowhere):
        quickest_s = costs.runtime_s[nowhere].min(axis=1)
        slowest = nowhere[np.argsort(-quickest_s, kind="stable")]
        queries = f"{workload.count[nowhere].sum():,} of {plural(workload.n_queries, 'query')}"
        advice = (
            f"{queries} take longer on every model, the most those of {lengths(workload, slowest)}; allow"
            f" at least {_least_limit(costs, limits)}, or leave them out"
        )
        raise InfeasibleError("--max-runtime", limit, advice)
    patterns = _patterns(late, workload.count)
    if not _feasible(patterns, *limits):
        ranges = "".join(f"; {text}" for text in _ranges(costs, patterns, limits))
        advice = (
            f"the shares cannot be met in time; allow at least {_least_limit(costs, limits)}, or change them{ranges}"
        )
        raise InfeasibleError("--max-runtime", limit, advice)


class _Patterns(NamedTuple):
    """Which models are forbidden together (n_patterns, n_models), and to how many queries (n_patterns,)."""

    forbidden: NDArray[np.bool_]
    queries: IntArray


def _patterns(late: NDArray[np.bool_], count: IntArray) -> _Patterns:
    number = np.zeros(len(late), np.int64)
    # Eight models at a time: integers are sorted far faster than rows.
    for eight in np.packbits(late, axis=1).T:
        _, first, number = np.unique(number * 2**8 + eight, return_index=True, return_inverse=True)
    return _Patterns(late[first], np.bincount(number, count).astype(np.int64))


def _loads(patterns: _Patterns, worth: IntArray, low: IntArray, high: IntArray) -> IntArray:
    """Queries of each model (n_models,) that are allowed, within the limits, and of least Σ worth_K·s_K."""
    paid = np.where(patterns.forbidden, np.inf, worth.astype(np.float64))
    return np.asarray(solve(paid, patterns.queries, low, high).assigned.sum(axis=0))


def _feasible(patterns: _Patterns, low: IntArray, high: IntArray) -> bool:
    try:
        _loads(patterns, np.zeros_like(low), low, high)
    except InfeasibleError:
        return False
    return True


def _least_limit(costs: Costs, limits: Limits) -> str:
    """The least limit under which there is a plan, rounded up so that it may be given as it stands."""
    runtime_s = costs.runtime_s
    assert runtime_s is not None

    def will_do(limit_s: float) -> bool:
        return _feasible(_patterns(runtime_s > limit_s, costs.workload.count), *limits)

    # Every query needs one model at least; below that nothing has to be looked at.
    least_s = runtime_s.min(axis=1).max()
    if not will_do(least_s):
        candidates_s = np.unique(runtime_s[runtime_s > least_s])
        least_s = candidates_s[bisect_left(candidates_s, True, key=will_do)]
    rounded = Context(prec=6, rounding=ROUND_CEILING).create_decimal(float(least_s))
    return f"{float(rounded):.6g} s"


def _ranges(costs: Costs, patterns: _Patterns, limits: Limits) -> list[str]:
    """Of each model whose share alone stands in the way: how many queries it could take beside the others' shares."""
    n_queries, texts = costs.workload.n_queries, []
    for K, name in enumerate(costs.model_names):
        low, high = (limit.copy() for limit in limits)
        low[K], high[K] = 0, n_queries
        if low.sum() > n_queries or not _feasible(patterns, low, high):
            continue
        worth = np.zeros_like(low)
        worth[K] = 1
        least, most = (int(_loads(patterns, sign * worth, low, high)[K]) for sign in (1, -1))
        texts.append(f"{name} can take {least:,} to {most:,} of {plural(n_queries, 'query')}")
    return texts
