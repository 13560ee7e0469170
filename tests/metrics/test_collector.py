from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from llmpower.metrics import (
    DeviceState,
    FieldState,
    Histogram,
    LlmpowerCollector,
    ModelAccounts,
    OtlpState,
    SamplerState,
    Snapshot,
    StoreState,
)
from llmpower.types import Device, Measurement

Make = Callable[..., Measurement]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

GPU = Device(
    uuid="GPU-1",
    index=0,
    name='A "card"\n\\',
    kind="gpu",
    simulated=True,
    has_energy_counter=True,
    has_power=True,
    driver_version="550.1",
)
PACKAGE = replace(GPU, uuid="package-0", index=1, name="package-0", kind="cpu_package", has_power=False)


@pytest.fixture
def snapshot(make_measurement: Make) -> Snapshot:
    accounts = ModelAccounts()
    accounts.add(make_measurement(1, gpu_energy_j=60.0))
    accounts.book("llama", "prefill", "gpu", 20.0)
    accounts.book("llama", "decode", "gpu", 40.0)
    return Snapshot(
        version="1.2.3",
        backend="simulated",
        devices=(
            DeviceState(
                GPU,
                250.5,
                100.0,
                60.0,
                30.0,
                {"before_start": 4.0, "gap": 6.0},
                fields={
                    "energy": FieldState("ok", 100.0, 99.5, edge_width_s=0.001, period_s=0.1),
                    "power_instant": FieldState("ok", 100.0, 99.5),
                },
                stalled_s=7.5,
                silent_s=9.25,
                allocated_j=45.0,
                residual_j=1.5,
            ),
            DeviceState(PACKAGE, None, 12.0, 5.0, 7.0, {}),
        ),
        unopened={1: "GPU is lost (NVML code 15)", 3: "Unknown Error (NVML code 999)"},
        models=accounts.freeze(),
        sampler=SamplerState(
            samples=1000,
            dropped=3,
            ticks=500,
            missed_ticks=2,
            lateness_s=Histogram((1e-05, 0.001), (5, 2, 1), 0.5),
            read_errors={("nvml", 15): 2, ("powercap", -13): 1},
            effective_hz={"nvml": 99.5},
            read_time_s=0.25,
            cpu_time_s=0.5,
        ),
        spans_rejected={"not_json": 4},
        spans_running=9,
        spans_pending=5,
        spans_late=3,
        settle_delay_s=60.5,
        spool_waiting_bytes=9,
        store_errors=6,
        store_waiting=7,
        store_lost=8,
        store=StoreState(
            size_bytes=4096,
            free_bytes=1024,
            log_bytes=2048,
            deleted={"age": 10, "size": 11},
            corruptions=12,
            commit_s=Histogram((0.01, 0.1), (3, 2, 1), 0.75),
        ),
        otlp=OtlpState(answers={200: 7, 503: 1}, spans={"accepted": 40, "no_request": 20}),
    )


def registry(snapshot: Snapshot) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LlmpowerCollector(lambda: snapshot))
    return registry


def samples(snapshot: Snapshot) -> Samples:
    text = generate_latest(registry(snapshot)).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def test_every_metric_has_its_name_labels_and_value(snapshot: Snapshot) -> None:
    found = samples(snapshot)

    def value(name: str, **labels: str) -> float:
        return found.pop((f"llmpower_{name}", frozenset(labels.items())))

    card = {"gpu": "0", "gpu_uuid": "GPU-1"}
    assert value("gpu_power_watts", **card) == 250.5
    assert value("gpu_energy_joules_total", **card) == 100.0
    assert value("gpu_inference_energy_joules_total", **card) == 60.0
    assert value("gpu_info", **card, gpu_name=GPU.name, driver_version="550.1", simulated="true") == 1
    assert value("idle_energy_joules_total", gpu_uuid="GPU-1") == 30.0
    assert value("unattributed_energy_joules_total", gpu_uuid="GPU-1", reason="before_start") == 4.0
    assert value("unattributed_energy_joules_total", gpu_uuid="GPU-1", reason="gap") == 6.0
    assert value("allocated_energy_joules_total", gpu_uuid="GPU-1") == 45.0
    assert value("allocation_residual_joules_total", gpu_uuid="GPU-1") == 1.5
    assert value("device_update_period_seconds", gpu_uuid="GPU-1", field="energy") == 0.1
    assert value("device_update_width_seconds", gpu_uuid="GPU-1", field="energy") == 0.001
    assert value("device_stalled_seconds", gpu_uuid="GPU-1") == 7.5
    assert value("device_silent_seconds", gpu_uuid="GPU-1") == 9.25
    assert value("cpu_energy_joules_total", zone="package-0") == 12.0
    assert value("gpus_unopened") == 2

    assert value("inference_requests_total", model_name="llama", quality="measured") == 1
    assert value("inference_energy_joules_total", model_name="llama", phase="prefill", device_kind="gpu") == 20.0
    assert value("inference_energy_joules_total", model_name="llama", phase="decode", device_kind="gpu") == 40.0
    assert value("inference_tokens_total", model_name="llama", direction="input") == 10
    assert value("inference_tokens_total", model_name="llama", direction="output") == 20
    for name, total, below, above in (
        ("inference_request_energy_joules", 60.0, "50.0", "100.0"),
        ("inference_duration_seconds", 2.0, "1.28", "2.56"),
    ):
        assert value(f"{name}_count", model_name="llama") == 1
        assert value(f"{name}_sum", model_name="llama") == total
        assert value(f"{name}_bucket", model_name="llama", le=below) == 0
        assert value(f"{name}_bucket", model_name="llama", le=above) == 1
        assert value(f"{name}_bucket", model_name="llama", le="+Inf") == 1
    found = {key: count for key, count in found.items() if "inference" not in key[0] or not key[0].endswith("_bucket")}

    assert value("sampler_effective_hertz", source="nvml") == 99.5
    assert value("sampler_read_errors_total", source="nvml", code="15") == 2
    assert value("sampler_read_errors_total", source="powercap", code="-13") == 1
    assert [value("sampler_lateness_seconds_bucket", le=le) for le in ("1e-05", "0.001", "+Inf")] == [5, 7, 8]
    assert value("sampler_lateness_seconds_sum") == 0.5
    assert value("sampler_lateness_seconds_count") == 8
    assert value("sampler_samples_total") == 1000
    assert value("sampler_dropped_samples_total") == 3
    assert value("sampler_ticks_total") == 500
    assert value("sampler_missed_ticks_total") == 2
    assert value("sampler_read_seconds_total") == 0.25
    assert value("sampler_cpu_seconds_total") == 0.5

    assert value("build_info", version="1.2.3", backend="simulated") == 1
    assert value("spans_rejected_total", reason="not_json") == 4
    assert value("spans_running") == 9
    assert value("spans_pending") == 5
    assert value("spool_waiting_bytes") == 9
    assert value("store_errors_total") == 6
    assert value("store_waiting_spans") == 7
    assert value("store_lost_spans_total") == 8
    assert value("store_corruptions_total") == 12
    assert value("store_size_bytes") == 4096
    assert value("store_free_bytes") == 1024
    assert value("store_log_bytes") == 2048
    assert value("store_deleted_spans_total", reason="age") == 10
    assert value("store_deleted_spans_total", reason="size") == 11
    assert [value("store_commit_seconds_bucket", le=le) for le in ("0.01", "0.1", "+Inf")] == [3, 5, 6]
    assert (value("store_commit_seconds_sum"), value("store_commit_seconds_count")) == (0.75, 6)
    assert value("spans_late_total") == 3
    assert value("settle_delay_seconds") == 60.5
    assert [value("otlp_requests_total", code=code) for code in ("200", "503")] == [7, 1]
    fates = ("accepted", "no_request", "refused", "call", "nested", "repeated")
    assert [value("otlp_spans_total", fate=fate) for fate in fates] == [40, 20, 0, 0, 0, 0]
    assert found == {}


def test_every_family_explains_itself_and_no_label_names_a_request(snapshot: Snapshot) -> None:
    for family in registry(snapshot).collect():
        assert family.documentation.endswith("."), family.name
        assert not {"span_id", "request", "pid"} & {label for sample in family.samples for label in sample.labels}


def test_a_power_that_was_not_read_is_no_sample() -> None:
    state = DeviceState(GPU, None, 0.0, 0.0, 0.0, {})
    names = {name for name, _ in samples(Snapshot(version="1", backend="nvml", devices=(state,)))}
    assert "llmpower_gpu_power_watts" not in names
    assert "llmpower_gpu_energy_joules_total" in names


def test_the_first_scrape_may_come_before_the_first_snapshot() -> None:
    assert samples(Snapshot(version="1", backend="nvml"))[("llmpower_spans_pending", frozenset())] == 0


def test_openmetrics_reads_it_too(snapshot: Snapshot) -> None:
    text = generate_openmetrics(registry(snapshot)).decode()  # type: ignore[no-untyped-call] # prometheus_client's
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call] # as above
    assert families["llmpower_gpu"].type == "info"
    assert families["llmpower_gpu_energy_joules"].type == "counter"
    assert families["llmpower_inference_duration_seconds"].type == "histogram"


def test_openmetrics_names_a_span_in_each_bucket_and_the_old_format_none(snapshot: Snapshot) -> None:
    text = generate_openmetrics(registry(snapshot)).decode()  # type: ignore[no-untyped-call] # prometheus_client's
    found = {
        sample.name: sample.exemplar
        for family in parse_openmetrics(text)  # type: ignore[no-untyped-call] # as above
        for sample in family.samples
        if sample.exemplar
    }
    began_s = datetime(2026, 1, 1, 0, 1, tzinfo=UTC).timestamp()
    assert {name: (of.labels, of.value, float(of.timestamp)) for name, of in found.items()} == {
        "llmpower_inference_request_energy_joules_bucket": ({"span_id": "span-1"}, 60.0, began_s + 2),
        "llmpower_inference_duration_seconds_bucket": ({"span_id": "span-1"}, 2.0, began_s + 2),
    }
    assert b"span-1" not in generate_latest(registry(snapshot))


@pytest.mark.system
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_say(snapshot: Snapshot) -> None:
    text = generate_latest(registry(snapshot))
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
