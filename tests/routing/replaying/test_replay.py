"""Queues are first come, first served, and answers come when they are complete."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.routing.replaying.replay import Fixed, Trace, replay, servers_for


def trace(arrival_s: list[float]) -> Trace:
    n = len(arrival_s)
    return Trace(np.array(arrival_s), np.full(n, 10), np.full(n, 5), (None,) * n)


class Recording(Fixed):
    def __init__(self, choices: list[int]) -> None:
        super().__init__(choices)
        self.events: list[tuple[str, int]] = []

    def choose(self, query: int) -> int:
        self.events.append(("arrived", query))
        return super().choose(query)

    def complete(self, query: int) -> None:
        self.events.append(("complete", query))


def test_queries_wait_for_a_free_server_of_their_model() -> None:
    runtimes = np.array([[10.0, 1.0]] * 4)
    dispatcher = Recording([0, 0, 0, 1])
    played = replay(trace([0.0, 1.0, 2.0, 3.0]), runtimes, np.array([2, 1]), dispatcher)
    assert played.wait_s.tolist() == [0, 0, 8, 0]
    # The third starts at 10 and ends at 20; the fourth, on the other model, at 4.
    assert dispatcher.events == [
        *(("arrived", query) for query in range(4)),
        *(("complete", query) for query in (3, 0, 1, 2)),
    ]


def test_an_answer_is_known_to_who_arrives_after_it() -> None:
    dispatcher = Recording([0, 0])
    replay(trace([0.0, 2.0]), np.array([[1.0], [1.0]]), np.array([1]), dispatcher)
    assert dispatcher.events == [("arrived", 0), ("complete", 0), ("arrived", 1), ("complete", 1)]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.integers(0, 1)), min_size=1, max_size=40),
    st.integers(1, 3),
)
def test_no_more_run_at_a_time_than_there_are_servers(jobs: list[tuple[float, float, int]], count: int) -> None:
    jobs = sorted(jobs)
    arrivals = [arrival for arrival, _, _ in jobs]
    runtimes = np.array([[runtime, runtime] for _, runtime, _ in jobs])
    choices = np.array([model for *_, model in jobs])
    played = replay(trace(arrivals), runtimes, np.array([count, count]), Fixed(choices))
    assert (played.wait_s >= 0).all()
    start = np.array(arrivals) + played.wait_s
    for query, model in enumerate(choices):
        others = choices == model
        running = others & (start <= start[query]) & (start[query] < start + runtimes[:, 0] - 1e-9)
        assert running.sum() <= count
        # Whoever waits does so because all servers of its model are busy until it starts.
        if played.wait_s[query] > 1e-9:
            before = start[query] - 1e-7
            assert (others & (start <= before) & (before < start + runtimes[:, 0])).sum() == count


def test_a_trace_comes_in_time_order_whatever_its_rows_do() -> None:
    frame = pd.DataFrame(
        {
            "timestamp": ["2023-11-16 18:00:02.5", "2023-11-16 18:00:00", "2023-11-16 18:00:01"],
            "input_tokens": [3, 1, 2],
            "output_tokens": [30, 10, 20],
            "query_class": ["a", None, "b"],
            "count": [1, 2, 1],
        }
    )
    found = Trace.from_frame(frame)
    assert found.arrival_s.tolist() == [0, 0, 1, 2.5]
    assert found.input_tokens.tolist() == [1, 1, 2, 3]
    assert found.output_tokens.tolist() == [10, 10, 20, 30]
    assert found.classes == (None, None, "b", "a")
    seconds = Trace.from_frame(frame.assign(timestamp=[7.5, 5, 6]))
    assert seconds.arrival_s.tolist() == found.arrival_s.tolist()
    past, rest = found.split(1)
    assert (len(past), len(rest)) == (1, 3)


@pytest.mark.parametrize(
    ("timestamps", "error"),
    [
        (["2023-11-16", "yesterday"], "timestamp = yesterday: row 2"),
        ([1.0, float("nan")], "timestamp = empty: row 2"),
        ([1.0, float("inf")], "timestamp = inf: row 2"),
        (["1.5", "soon"], "timestamp = soon: row 2 needs"),
        ([1.7e12, 1.7e12], r"timestamp = 1700000000000.0: row 1 needs .* in seconds since 1970"),
        (["1700000000000", "soon"], "timestamp = 1700000000000: row 1 needs"),
        (pd.to_timedelta([0, 1], unit="s"), "timestamp = 0 days 00:00:00: row 1 needs"),
        (pd.to_datetime(["2023-11-16", None]), "timestamp = empty: row 2 needs"),
        (["2023-11-16", "1.5"], r"timestamp = 1.5: row 2 is in seconds, and row 1 a date \(2023-11-16\); write all"),
    ],
    ids=[
        "word",
        "empty",
        "infinite",
        "word among seconds",
        "milliseconds",
        "milliseconds as texts",
        "durations",
        "empty date",
        "seconds among dates",
    ],
)
def test_a_row_without_a_time_is_named(timestamps: list[object], error: str) -> None:
    frame = pd.DataFrame({"timestamp": timestamps, "input_tokens": [1, 2], "output_tokens": [1, 2]})
    with pytest.raises(InputError, match=error):
        Trace.from_frame(frame)
    with pytest.raises(InputError, match="timestamp = missing"):
        Trace.from_frame(frame.drop(columns="timestamp"))


def test_servers_are_as_busy_as_asked() -> None:
    arrivals = np.linspace(0, 1000, 500).tolist()
    runtimes = np.tile([40.0, 1.0], (500, 1))
    assert servers_for(trace(arrivals), runtimes, np.zeros(500, np.int64), 0.8).tolist() == [25, 1]
