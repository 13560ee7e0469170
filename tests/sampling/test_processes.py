"""Who computes on a card, through every layout in which drivers have reported it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from llmpower.sampling import Sampler, describe_status, library_without, simulation

V3, V2, V1 = (f"nvmlDeviceGetComputeRunningProcesses{version}" for version in ("_v3", "_v2", ""))
NOT_SUPPORTED, FUNCTION_NOT_FOUND = 3, 13


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The file by which the simulated driver knows its processes: two on the first GPU, three on the second."""
    path = tmp_path / "processes"
    path.write_text("0 100\n1 101\n0 102\n1 103\n1 2147483647\n")
    return path


@pytest.mark.parametrize("fault", ["", "wide_processes"])
@pytest.mark.parametrize("absent", [(), (V3,), (V3, V2)], ids=["v3", "v2", "v1"])
def test_every_layout_gives_the_same_ids(tmp_path: Path, listed: Path, absent: tuple[str, ...], fault: str) -> None:
    library = library_without(absent, tmp_path)
    with simulation(gpus=2, processes=listed, fault=fault), Sampler(nvml_library=str(library)) as sampler:
        found = [sampler.processes(gpu) for gpu in sampler.devices[:2]]
    assert found == [(0, {100, 102}), (0, {101, 103, 2**31 - 1})]


def test_a_driver_without_the_call_is_told_from_one_on_which_nobody_computes(tmp_path: Path, listed: Path) -> None:
    library = library_without((V3, V2, V1), tmp_path)
    with simulation(processes=listed), Sampler(nvml_library=str(library)) as sampler:
        assert sampler.processes(sampler.devices[0]) == (FUNCTION_NOT_FOUND, frozenset())
    with simulation(processes=tmp_path / "nobody"), Sampler(backend="simulated") as sampler:
        assert sampler.processes(sampler.devices[0]) == (0, frozenset())


def test_a_refusal_is_of_one_gpu_and_has_a_name(listed: Path) -> None:
    with simulation(gpus=2, processes=listed, fault="no_processes@0"), Sampler(backend="simulated") as sampler:
        first, second = (sampler.processes(gpu) for gpu in sampler.devices[:2])
    assert first == (NOT_SUPPORTED, frozenset())
    assert describe_status(first[0]) == "Not Supported (NVML code 3)"
    assert second[0] == 0


def test_they_come_and_go_while_the_card_is_sampled(listed: Path) -> None:
    with simulation(processes=listed), Sampler(backend="simulated", powercap_root=None) as sampler:
        (gpu,) = sampler.devices
        assert sampler.processes(gpu) == (0, {100, 102})
        listed.write_text("0 7\n")
        assert sampler.processes(gpu) == (0, {7})
        listed.unlink()
        assert sampler.processes(gpu) == (0, frozenset())


def test_closing_waits_for_who_is_asking(listed: Path) -> None:
    with simulation(processes=listed, latency="processes=400ms"):
        sampler = Sampler(backend="simulated", powercap_root=None)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(sampler.processes(sampler.devices[0])))
    asking.start()
    time.sleep(0.05)
    sampler.close()
    asking.join()
    assert answers == [(0, {100, 102})]
