from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from llmpower.daemon.accounting.host import Host, read_cpu_name
from llmpower.types import Device, Span

GPU = Device(
    uuid="GPU-a",
    index=0,
    name="NVIDIA H100",
    kind="gpu",
    simulated=False,
    has_energy_counter=True,
    has_power=True,
    driver_version="550",
)
SECOND = replace(GPU, uuid="GPU-b", index=1)
PACKAGE = replace(GPU, uuid="intel-rapl:0", index=2, name="package-0", kind="cpu_package", has_power=False)
SPAN = Span("s", "llama", None, 0, None, 1, 1, 1, 1, "host", 1)


def simulated(device: Device) -> Device:
    return replace(device, simulated=True)


@pytest.mark.parametrize(
    ("devices", "told", "resolved"),
    [
        # Real cards: only the one there is can be meant by a span that does not know; none, by one that knows so.
        ([GPU, PACKAGE], None, ("GPU-a",)),
        ([GPU, SECOND], None, None),
        ([GPU, PACKAGE], (), ()),
        ([PACKAGE], None, None),
        ([GPU, SECOND], ("GPU-b",), ("GPU-b",)),
        ([GPU], ("GPU-elsewhere",), ("GPU-elsewhere",)),
        # CUDA takes a UUID that is cut short, where one card only is meant.
        ([replace(GPU, uuid="GPU-8932f937"), replace(SECOND, uuid="GPU-8d07")], ("GPU-89",), ("GPU-8932f937",)),
        ([replace(GPU, uuid="GPU-8932f937"), replace(SECOND, uuid="GPU-8d07")], ("GPU-8",), ("GPU-8",)),
        ([GPU, SECOND], ("GPU-",), ("GPU-",)),
        # Simulated cards stand for the processor that the span ran on.
        ([simulated(GPU), PACKAGE], None, ("GPU-a",)),
        ([simulated(GPU), simulated(SECOND)], None, ("GPU-a", "GPU-b")),
        ([simulated(GPU), simulated(SECOND)], (), ("GPU-a", "GPU-b")),
        ([simulated(GPU)], ("GPU-elsewhere",), ("GPU-elsewhere",)),
        ([], None, None),
    ],
)
def test_which_gpus_a_span_ran_on(
    devices: list[Device], told: tuple[str, ...] | None, resolved: tuple[str, ...] | None
) -> None:
    assert Host(devices).resolve(structs.replace(SPAN, device_uuids=told)).device_uuids == resolved


def test_a_span_that_does_not_know_is_not_charged_to_the_one_card_that_could_be_opened() -> None:
    assert Host([GPU], complete=False).resolve(SPAN).device_uuids is None
    told = structs.replace(SPAN, device_uuids=("GPU-a",))
    assert Host([GPU], complete=False).resolve(told).device_uuids == ("GPU-a",)


def test_spans_on_cards_that_are_not_here_are_counted() -> None:
    host = Host([GPU, SECOND])
    for uuids in (("GPU-a",), ("GPU-a", "GPU-b"), (), None, ("1",), ("GPU-a", "GPU-elsewhere")):
        host.resolve(structs.replace(SPAN, device_uuids=uuids))
    assert (host.strangers, host.latest_stranger) == (2, "GPU-elsewhere")


@pytest.mark.parametrize(
    ("devices", "uuids", "system"),
    [
        ([GPU, SECOND, PACKAGE], ("GPU-b", "GPU-a"), "2× NVIDIA H100"),
        ([simulated(GPU)], ("GPU-a",), "1× NVIDIA H100 (simulated)"),
        ([replace(simulated(GPU), name="Simulated A100")], ("GPU-a",), "1× Simulated A100"),
        ([GPU, replace(SECOND, name="NVIDIA A40")], ("GPU-a", "GPU-b"), "1× NVIDIA A40 + 1× NVIDIA H100"),
        ([GPU], ("GPU-a", "GPU-x"), "1× GPU not sampled here + 1× NVIDIA H100"),
        ([GPU, PACKAGE, replace(PACKAGE, uuid="intel-rapl:1")], (), "2× EPYC"),
        ([GPU], None, "1× EPYC"),
    ],
)
def test_what_a_system_is_called(devices: list[Device], uuids: tuple[str, ...] | None, system: str) -> None:
    assert Host(devices, "EPYC").system(structs.replace(SPAN, device_uuids=uuids)) == system


def test_joules_are_simulated_when_one_of_their_cards_is() -> None:
    host = Host([simulated(GPU), SECOND])
    assert host.simulated(structs.replace(SPAN, device_uuids=("GPU-a", "GPU-b")))
    assert not host.simulated(structs.replace(SPAN, device_uuids=("GPU-b", "GPU-elsewhere")))
    assert not host.simulated(SPAN)


def test_the_processors_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD  EPYC 7763\nprocessor\t: 1\nmodel name\t: other\n")
    assert read_cpu_name(cpuinfo) == "AMD EPYC 7763"
    cpuinfo.write_text("Features : fp asimd\n")
    assert read_cpu_name(cpuinfo) == "CPU"
    assert read_cpu_name(tmp_path / "none") == "CPU"
