"""Spool and socket together: a program may go from one to the other while a span runs."""

from __future__ import annotations

import contextlib
import selectors
import time
from concurrent.futures import Future
from pathlib import Path

from engine_bench import Bench

from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.intake import Intake
from llmpower.spans import SpanClient
from llmpower.spans.spool import spool_directory


def test_a_span_that_begins_in_the_spool_and_ends_over_the_socket_is_one(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    bench = Bench(start_ns=time.monotonic_ns())
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        intake = Intake(path, selector, bench.engine, lambda _: Future(), dict, Answers())
        stack.callback(intake.close)
        client = SpanClient(path)
        stack.callback(client.close)
        span = bench.span("a", 0.5)
        client.begin("a", span.start_ns)
        client.close()
        spool_directory(path).rename(tmp_path / "full")
        client.finish(span)
        (tmp_path / "full").rename(spool_directory(path))
        assert (client.sent, client.spooled) == (2, 0)
        for _ in range(3):
            intake.step()
            bench.pass_time(0.5)
    assert [stored.span.span_id for stored in bench.stored] == ["a"]
    assert bench.engine.snapshot.spans_rejected == {}
