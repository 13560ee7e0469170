"""The bytes are those of prometheus_client, which is the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from llmpower.metrics import DeviceState, Histogram, LlmpowerCollector, ModelAccounts, SamplerState, Snapshot
from llmpower.metrics.exposition import render
from llmpower.types import Device, Measurement

# What the wire lets in: text that UTF-8 can carry.
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
numbers = st.floats(allow_nan=False, min_value=0)


def registry(snapshot: Snapshot) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LlmpowerCollector(lambda: snapshot))
    return registry


def agree(of: CollectorRegistry) -> None:
    assert render(of.collect(), openmetrics=False) == generate_latest(of)
    assert render(of.collect(), openmetrics=True) == generate_openmetrics(of)  # type: ignore[no-untyped-call] # theirs


@settings(deadline=None)
@given(name=names, other=names, number=numbers, counts=st.lists(st.integers(0, 2**53), min_size=3, max_size=3))
def test_whatever_is_in_a_snapshot_reads_as_prometheus_client_writes_it(
    name: str, other: str, number: float, counts: list[int], make_measurement: Callable[..., Measurement]
) -> None:
    accounts = ModelAccounts()
    accounts.add(make_measurement(1, span_id=other, model_name=name, gpu_energy_j=number))
    accounts.add(make_measurement(2, model_name=other, gpu_energy_j=None))
    accounts.book(name, "decode", "gpu", number)
    device = Device(other, 0, name, "gpu", True, True, True, "550")
    agree(
        registry(
            Snapshot(
                version=name,
                backend="nvml",
                devices=(DeviceState(device, number, number, 0.0, 1e-9, {"stalled": number}),),
                models=accounts.freeze(),
                sampler=SamplerState(lateness_s=Histogram((1e-05, 1e7), tuple(counts), number)),
                spans_rejected={"not_json": counts[0]},
            )
        )
    )


def test_a_daemon_that_has_seen_nothing_reads_the_same() -> None:
    agree(registry(Snapshot(version="1", backend="nvml")))


def test_what_the_process_itself_costs_reads_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    # A /proc that stands still: what the real one says changes between two scrapes.
    proc = tmp_path_factory.mktemp("proc")
    (proc / "stat").write_text("cpu 1 2 3\nbtime 1700000000\n")
    (proc / "self" / "fd").mkdir(parents=True)
    (proc / "self" / "stat").write_text(f"1 (llmpower) {' '.join(map(str, range(3, 53)))}")
    (proc / "self" / "limits").write_text("Limit Soft\nMax open files  1024  4096  files\n")
    of = CollectorRegistry()
    ProcessCollector(proc=str(proc), registry=of)
    assert b"process_resident_memory_bytes" in render(of.collect(), openmetrics=False)
    agree(of)
