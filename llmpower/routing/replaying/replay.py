"""A trace played again in time order: who would have been sent where, and how long they would have waited.

Each model has a number of servers and one queue, first come first served. A query that is sent to it at time t starts
when a server is free and holds it for the model's runtime; then the answer is known, and whoever routes may learn from
it, not earlier. What routes is a :class:`Dispatcher`; it sees a query when it arrives and an answer when it is
complete, in the order in which these happen.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import ArrayLike

from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.timestamps import check_times, since_first_s
from llmpower.routing.problem.workload import IntArray, Workload

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """Queries in the order of their arrival, all of shape (n_queries,); an unknown application is ``None``.

    ``arrival_s`` counts from ``start_s``, in seconds since 1970 of UTC.
    """

    arrival_s: FloatArray
    input_tokens: IntArray
    output_tokens: IntArray
    classes: tuple[str | None, ...]
    start_s: float = 0.0

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Trace:
        """From a workload's table with ``timestamp`` and, optionally, ``query_class`` and ``count`` (arrivals at once).

        Timestamps are dates, or seconds as numbers. Rows may come in any order.

        Raises:
            InputError: a column is missing, or a row is not a query that arrived at some time.
        """
        workload = Workload.from_frame(frame)
        check_times(frame, "queries are replayed in time order")
        seconds, start_s = since_first_s(frame["timestamp"])
        classes: list[str | None] = [None] * len(frame)
        if "query_class" in frame.columns:
            labels = frame["query_class"]
            classes = [None if absent else str(label) for label, absent in zip(labels, labels.isna(), strict=True)]
        order = np.argsort(seconds, kind="stable")
        order = np.repeat(order, workload.row_counts[order])
        cells = workload.row_cells[order]
        return cls(
            arrival_s=seconds[order],
            input_tokens=workload.input_tokens[cells],
            output_tokens=workload.output_tokens[cells],
            classes=tuple(classes[row] for row in order.tolist()),
            start_s=start_s,
        )

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def times_s(self) -> FloatArray:
        """When the queries came, in seconds since 1970, to the microsecond."""
        # The sum of two times that a float rounds may fall short of the full hour, which is another rate's.
        return np.round(self.arrival_s + self.start_s, 6)

    def split(self, first: int) -> tuple[Trace, Trace]:
        """The ``first`` queries, and the rest."""
        return self._part(slice(0, first)), self._part(slice(first, None))

    def _part(self, rows: slice) -> Trace:
        lengths = self.input_tokens[rows], self.output_tokens[rows]
        return Trace(self.arrival_s[rows], *lengths, self.classes[rows], self.start_s)


class Dispatcher(Protocol):
    """Sends queries to models; both methods name a query by its place in the trace."""

    def choose(self, query: int) -> int:
        """The number of the model for a query that has just arrived."""

    def complete(self, query: int) -> None:
        """The answer to a query is there."""


class Fixed:
    """Choices that were made beforehand, (n_queries,)."""

    def __init__(self, choices: ArrayLike) -> None:
        self._choices: list[int] = np.asarray(choices).tolist()

    def choose(self, query: int) -> int:
        """As it was decided."""
        return self._choices[query]

    def complete(self, query: int) -> None:
        """Nothing is learnt."""


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """``choices`` (numbers of models) and ``wait_s`` (from arrival to start), both (n_queries,)."""

    choices: IntArray
    wait_s: FloatArray


def replay(trace: Trace, runtime_s: FloatArray, servers: IntArray, dispatcher: Dispatcher) -> Replay:
    """Play a trace; ``runtime_s`` (n_queries, n_models) and ``servers`` (n_models,), each 1 or more."""
    free_s = [[0.0] * count for count in servers.tolist()]
    for heap in free_s:
        heapify(heap)
    under_way: list[tuple[float, int]] = []
    choices, waits = [], []
    runtimes = runtime_s.tolist()
    for query, now in enumerate(trace.arrival_s.tolist()):
        while under_way and under_way[0][0] <= now:
            dispatcher.complete(heappop(under_way)[1])
        model = dispatcher.choose(query)
        start = max(now, free_s[model][0])
        heapreplace(free_s[model], start + runtimes[query][model])
        heappush(under_way, (start + runtimes[query][model], query))
        choices.append(model)
        waits.append(start - now)
    while under_way:
        dispatcher.complete(heappop(under_way)[1])
    return Replay(np.array(choices, np.int64), np.array(waits))


def servers_for(trace: Trace, runtime_s: FloatArray, choices: IntArray, utilisation: float) -> IntArray:
    """Servers a model, so that with these choices each is busy for at most that fraction of the time; at least 1."""
    n_models = runtime_s.shape[1]
    busy_s = np.bincount(choices, runtime_s[np.arange(len(choices)), choices], n_models)
    duration_s = float(np.ptp(trace.arrival_s)) or 1.0
    return np.maximum(np.ceil(busy_s / (duration_s * utilisation)), 1).astype(np.int64)
