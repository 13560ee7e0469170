from __future__ import annotations

from dataclasses import replace

from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families as parse

from llmpower.metrics import DcgmCollector, DeviceState, Snapshot
from llmpower.metrics.exposition import render
from llmpower.types import Device

GPU = Device("GPU-1", 2, "NVIDIA H100", "gpu", False, True, True, "550.1", pci_bus_id="00000000:07:00.0", number=3)
PACKAGE = replace(GPU, uuid="package-0", index=4, kind="cpu_package")
LABELS = {
    "gpu": "3",
    "UUID": "GPU-1",
    "pci_bus_id": "00000000:07:00.0",
    "device": "nvidia3",
    "modelName": "NVIDIA H100",
    "Hostname": "node-7",
    "DCGM_FI_DRIVER_VERSION": "550.1",
}


def scraped(power_w: float | None) -> dict[str, tuple[str, float]]:
    devices = (DeviceState(GPU, power_w, 12.5, 0, 12.5, {}), DeviceState(PACKAGE, None, 1, 0, 1, {}))
    registry = CollectorRegistry()
    registry.register(DcgmCollector(lambda: Snapshot(version="1", backend="nvml", devices=devices), "node-7"))
    found = {}
    for family in parse(render(registry.collect(), openmetrics=False).decode()):
        for sample in family.samples:
            assert sample.labels == LABELS
            found[sample.name] = (family.type, sample.value)
    return found


def test_names_labels_and_units_are_dcgm_exporters() -> None:
    assert scraped(250.5) == {
        "DCGM_FI_DEV_POWER_USAGE": ("gauge", 250.5),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("unknown", 12_500.0),
    }


def test_a_power_that_was_not_read_is_no_sample() -> None:
    assert "DCGM_FI_DEV_POWER_USAGE" not in scraped(None)
