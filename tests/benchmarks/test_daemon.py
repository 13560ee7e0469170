"""The daemon's benchmark: bars that can fail, and a load whose figures add up."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llmpower.spans.spool import spool_directory
from llmpower.spans.wire import Begin, decode
from llmpower.types import Span

LOAD = {"spans_per_s": 4960.0, "lost": 0, "finish_s": {"p99": 100e-6}}


def result(**changes: Any) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "idle": {"llmpower": {"cpu_share": 0.02, "rss_max_bytes": 60 << 20}},
        "rate": 5000.0,
        "load": LOAD,
        "scrape": {"p50_s": 0.025},
        "steady": {"growth_bytes": 2 << 20},
    }
    return figures | changes


def test_a_figure_at_its_bar_holds(daemon_benchmark: ModuleType) -> None:
    assert all(bar["holds"] for bar in daemon_benchmark.judge(result()).values())


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"idle": {"llmpower": {"cpu_share": 0.021, "rss_max_bytes": 0}}}, "idle_cpu_percent"),
        ({"idle": {"llmpower": {"cpu_share": 0.0, "rss_max_bytes": 61 << 20}}}, "idle_rss_mb"),
        ({"load": LOAD | {"spans_per_s": 4940.0}}, "load_shortfall_percent"),
        ({"load": LOAD | {"lost": 1}}, "load_lost"),
        ({"load": LOAD | {"finish_s": {"p99": 101e-6}}}, "load_finish_p99_us"),
        ({"scrape": {"p50_s": 0.026}}, "scrape_ms"),
        ({"steady": {"growth_bytes": 3 << 20}}, "steady_rss_growth_mb"),
    ],
)
def test_a_figure_beyond_its_bar_fails(changes: dict[str, Any], failing: str, daemon_benchmark: ModuleType) -> None:
    judged = daemon_benchmark.judge(result(**changes))
    assert [name for name, bar in judged.items() if not bar["holds"]] == [failing]


def test_the_load_reports_each_span_once_and_times_each_call(tmp_path: Path, span_load: ModuleType) -> None:
    spool = spool_directory(tmp_path / "s.sock")
    spool.mkdir()
    arguments = argparse.Namespace(
        socket=tmp_path / "s.sock", rate=500.0, seconds=0.4, gpus="GPU-0,GPU-1", models=3, name="n"
    )
    figures = span_load.run(arguments)
    lines = [line for path in sorted(spool.iterdir()) for line in path.read_bytes().splitlines()[1:]]
    messages = [decode(line) for line in lines]
    begun = [message.span_id for message in messages if isinstance(message, Begin)]
    ended = [message for message in messages if isinstance(message, Span)]
    assert figures["spans"] == figures["acknowledged"] == len(ended) == len(begun) == 200
    assert begun == [span.span_id for span in ended] == [f"n-{number}" for number in range(200)]
    assert {span.device_uuids for span in ended} == {("GPU-0",), ("GPU-1",)}
    assert len({span.model_name for span in ended}) == 3
    assert 0 < figures["finish_s"]["p50"] <= figures["finish_s"]["p99"] <= figures["finish_s"]["max"]


def test_a_process_is_seen_to_work_and_to_hold_memory(processes: ModuleType) -> None:
    watch = processes.Watch(os.getpid())
    while processes.cpu_s(os.getpid()) - watch._cpu_s < 0.05:
        pass
    cost = watch.stop()
    assert cost.cpu_share > 0
    assert cost.rss_max_bytes >= cost.rss_bytes > 10 << 20
