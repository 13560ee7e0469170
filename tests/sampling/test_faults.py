"""What a user of the sampler sees of everything that can go wrong with a card."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llmpower.sampling import EPOCH, WILD, ZERO, Channel, Sampler, library_without, simulation
from llmpower.types import Field

LOST, NOT_SUPPORTED = 15, 3
STUCK = 8  # of llmpower.h


def open_with(fault: str, *, rate_hz: float = 200.0, powercap_root: Path | None = None, **settings: object) -> Sampler:
    with simulation(**{"load": "square:100,500,0.5", "fault": fault} | settings):
        return Sampler(backend="simulated", rate_hz=rate_hz, powercap_root=powercap_root)


def drain_until(sampler: Sampler, enough: Callable[[NDArray[np.void]], bool]) -> NDArray[np.void]:
    """All samples up to the drain after which there are enough of them."""
    deadline_s = time.monotonic() + 60
    samples = sampler.drain()
    while not enough(samples):
        assert time.monotonic() < deadline_s, f"in vain: {len(samples)} samples"
        time.sleep(0.02)
        samples = np.concatenate((samples, sampler.drain()))
    return samples


def good(samples: NDArray[np.void], field: Field) -> NDArray[np.void]:
    return samples[(samples["field"] == field) & (samples["status"] == 0)]


def test_a_card_that_was_lost_is_found_again_and_both_its_fields_are_marked() -> None:
    with open_with("lost:0.5,1") as sampler:
        samples = drain_until(sampler, lambda found: np.count_nonzero(found["status"] == EPOCH) == 2)
        samples = np.concatenate((samples, drain_until(sampler, lambda found: len(good(found, Field.ENERGY)) > 3)))
        errors = sampler.statistics().read_errors
    assert errors.keys() == {("gpu", LOST)}
    for field in (Field.ENERGY, Field.POWER_INSTANT):
        of_field = samples[samples["field"] == field]
        (mark,) = np.flatnonzero(of_field["status"] == EPOCH)
        assert (of_field["status"][mark:][1:] == 0).all()
        lost = np.flatnonzero(of_field["status"] == LOST)
        assert 0 < len(lost) < 20, "it backs off"
        assert lost.max() < mark


def test_a_card_that_stays_lost_is_asked_once_a_second() -> None:
    with open_with("lost:0.1") as sampler:
        samples = drain_until(sampler, lambda found: np.count_nonzero(found["status"] == LOST) >= 20)
        assert {channel.status for channel in sampler.channels()} == {LOST}
    lost = samples[(samples["status"] == LOST) & (samples["field"] == Field.ENERGY)]
    assert np.diff(lost["before_ns"])[-1] > 0.9e9


def test_a_driver_that_was_reloaded_is_initialised_again() -> None:
    with open_with("") as sampler:
        drain_until(sampler, lambda found: len(good(found, Field.ENERGY)) > 3)
        # Whoever unloads the driver leaves every client uninitialised.
        with simulation(load="constant:200"):
            ctypes.CDLL(sampler.library).nvmlShutdown()
            samples = drain_until(sampler, lambda found: np.count_nonzero(found["status"] == EPOCH) == 2)
        assert 1 in samples["status"]
        drain_until(sampler, lambda found: len(good(found, Field.POWER_INSTANT)) > 3)


def test_not_supported_now_and_then_is_a_failed_read_and_no_break() -> None:
    with open_with("not_supported:0.3") as sampler:
        assert sampler.devices[0].has_energy_counter
        assert sampler.devices[0].has_power
        samples = drain_until(
            sampler, lambda found: np.count_nonzero(found["status"]) > 10 and len(good(found, Field.ENERGY)) > 10
        )
    assert set(samples["status"]) == {0, NOT_SUPPORTED}


def test_a_zero_is_a_failed_read_and_never_a_value() -> None:
    with open_with("zero:0.3,0.1") as sampler:
        samples = drain_until(sampler, lambda found: np.count_nonzero(found["status"]) > 10)
        errors = sampler.statistics().read_errors
    assert errors.keys() == {("gpu", ZERO)}
    assert (samples["value"][samples["status"] == 0] > 0).all()
    assert (np.diff(good(samples, Field.ENERGY)["value"]) >= 0).all(), "a zero would look like a reset"


def test_megawatts_and_a_counter_below_zero_are_failed_reads() -> None:
    with open_with("wild:0.3,0.1") as sampler:
        samples = drain_until(sampler, lambda found: np.count_nonzero(found["status"]) > 50)
        errors = sampler.statistics().read_errors
    assert errors.keys() == {("gpu", WILD)}
    assert {Field.ENERGY, Field.POWER_INSTANT} <= set(samples["field"][samples["status"] == WILD])
    assert (np.diff(good(samples, Field.ENERGY)["value"].astype(np.int64)) >= 0).all()
    assert good(samples, Field.POWER_INSTANT)["value"].max() < 1000 * 1_000_000


def test_a_counter_that_is_reset_goes_back_and_is_read_on() -> None:
    with open_with("reset:0.5") as sampler:
        samples = drain_until(
            sampler, lambda found: (np.diff(good(found, Field.ENERGY)["value"].astype(np.int64)) < 0).any()
        )
    # For the first tick it shows 0, which is no value; the marks are for breaks that the values do not show.
    assert set(samples["status"]) <= {0, ZERO}


@pytest.mark.parametrize("fault", ["freeze:3,0.9", "skip:0.1"])
def test_updates_that_do_not_come_do_not_spoil_the_lock(fault: str) -> None:
    def energy() -> Channel:
        (found,) = (channel for channel in sampler.channels() if channel.field is Field.ENERGY)
        return found

    with open_with(fault, rate_hz=100.0) as sampler:
        start_s = time.monotonic()
        # A busy machine may break the lock too; then it comes back.
        drain_until(sampler, lambda _: time.monotonic() - start_s > 4.5 and energy().locked)
        assert energy().period_s == pytest.approx(0.1, rel=0.02)


def test_a_call_that_hangs_stops_its_card_and_not_the_cpu_packages(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("max_energy_range_uj", "1000000"), ("energy_uj", "5")):
        (zone / name).write_text(f"{text}\n")
    with open_with("hang:0.5,2", powercap_root=tmp_path) as sampler:
        deadline_s = time.monotonic() + 60
        while not (hung := [channel for channel in sampler.channels() if (channel.in_call_s or 0) > 1.0]):
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
        assert [sampler.devices[channel.device].kind for channel in hung] == ["gpu"]
        assert hung[0].silent_s is not None
        assert hung[0].silent_s > 1.0
        sampler.drain()
        samples = drain_until(sampler, lambda found: (found["device"] == 1).any())
        assert not (samples["device"] == 0).any() or not [c for c in sampler.channels() if c.in_call_s]
        drain_until(sampler, lambda found: len(good(found[found["device"] == 0], Field.ENERGY)) > 0)


def test_after_a_call_that_hung_reads_come_on_as_before() -> None:
    with open_with("no_energy,hang:0.5,2", rate_hz=100.0) as sampler:
        drain_until(sampler, lambda found: (found["after_ns"] - found["before_ns"] > 1e9).any())
        time.sleep(1.5)  # the plan of reads is rebuilt each second
        assert min(channel.effective_hz for channel in sampler.channels()) > 1.0


def test_a_call_that_never_returns_does_not_keep_a_program_from_ending() -> None:
    # In a process of its own: the thread that was left behind keeps the library and its settings.
    program = """
import time
from llmpower.exceptions import LlmpowerError
from llmpower.sampling import Sampler
sampler = Sampler(backend="simulated", powercap_root=None)
sampler.start()
while not any((channel.in_call_s or 0) > 0.1 for channel in sampler.channels()):
    time.sleep(0.02)
for act in (sampler.stop, sampler.start):
    try:
        act()
    except LlmpowerError as error:
        print(error)
sampler.close()
"""
    environment = os.environ | {"LLMPOWER_SIM_LOAD": "constant:200", "LLMPOWER_SIM_FAULT": "hang:0.2,30"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=25, check=True
    )
    assert done.stdout.splitlines() == [
        "a driver call does not return, so the sampling thread was left behind; see dmesg",
        f"the sampling thread could not be started (code {STUCK})",
    ]


def test_a_gpu_that_answers_for_its_module_only_says_so() -> None:
    with open_with("gh200") as sampler:
        assert sampler.of_module == {sampler.devices[0].uuid}
        samples = drain_until(sampler, lambda found: len(good(found, Field.POWER_INSTANT)) > 5)
    assert (samples["status"] == 0).all()
    plain = open_with("")
    assert plain.of_module == frozenset()
    plain.close()


def test_a_mig_instance_is_its_parent_and_is_never_a_device_of_its_own() -> None:
    sampler = open_with("mig", gpus=2)
    assert len(sampler.devices) == 2
    library = ctypes.CDLL(sampler.library)
    for parent in sampler.devices:
        handle, uuid = ctypes.c_void_p(), ctypes.create_string_buffer(96)
        assert library.nvmlDeviceGetHandleByUUID(parent.uuid.encode(), ctypes.byref(handle)) == 0
        for number in range(2):
            instance = ctypes.c_void_p()
            assert library.nvmlDeviceGetMigDeviceHandleByIndex(handle, number, ctypes.byref(instance)) == 0
            assert library.nvmlDeviceGetUUID(instance, uuid, 96) == 0
            assert uuid.value.startswith(b"MIG-")
            assert sampler.device_of(uuid.value.decode()) == parent
            # As a program has it from CUDA, which does not tell instances from GPUs.
            assert sampler.device_of(uuid.value.decode().replace("MIG-", "GPU-")) == parent
        assert sampler.device_of(parent.uuid) == parent
    assert sampler.device_of("MIG-elsewhere") is sampler.device_of("GPU-elsewhere") is None
    sampler.close()


@pytest.mark.parametrize(
    ("symbols", "fields"),
    [
        # The counter has a second way in, instant power has none on a card whose plain power is the mean.
        (["nvmlDeviceGetTotalEnergyConsumption"], {Field.ENERGY, Field.POWER_INSTANT}),
        (["nvmlDeviceGetFieldValues"], {Field.ENERGY, Field.POWER_AVERAGE}),
        (["nvmlDeviceGetFieldValues", "nvmlDeviceGetTotalEnergyConsumption"], {Field.POWER_AVERAGE}),
        (["nvmlDeviceGetHandleByUUID", "nvmlDeviceGetArchitecture"], {Field.ENERGY, Field.POWER_INSTANT}),
    ],
)
def test_an_old_driver_is_used_for_what_it_has(symbols: list[str], fields: set[Field], tmp_path: Path) -> None:
    library = library_without(symbols, tmp_path)
    with simulation(load="constant:200", preset="h100"):
        sampler = Sampler(nvml_library=str(library), powercap_root=None, rate_hz=200)
    with sampler:
        samples = drain_until(sampler, lambda found: len(found) > 20)
    assert (samples["status"] == 0).all()
    assert set(samples["field"]) == fields


def test_a_lost_card_is_found_again_without_a_look_up_by_uuid(tmp_path: Path) -> None:
    library = library_without(["nvmlDeviceGetHandleByUUID"], tmp_path)
    with simulation(load="constant:200", fault="lost:0.3,0.5"):
        sampler = Sampler(nvml_library=str(library), powercap_root=None, rate_hz=200)
    with sampler:
        drain_until(sampler, lambda found: np.count_nonzero(found["status"] == EPOCH) == 2)


def test_a_card_that_cannot_be_opened_is_known_by_its_number_and_those_after_it_keep_theirs() -> None:
    with simulation(gpus=3, fault="lost:0@1"), Sampler(backend="simulated", powercap_root=None) as sampler:
        assert sampler.unopened == {1: 15}
        assert [(device.index, device.number) for device in sampler.devices] == [(0, 0), (1, 2)]
        assert [device.uuid[-1] for device in sampler.devices] == ["0", "2"]
    with simulation(gpus=3), Sampler(backend="simulated", powercap_root=None) as sampler:
        assert sampler.unopened == {}


def test_cards_of_other_jobs_are_not_missed() -> None:
    fault = "no_permission@0,no_permission@2"
    with simulation(gpus=3, fault=fault), Sampler(backend="simulated", powercap_root=None) as sampler:
        assert sampler.unopened == {}
        assert [(device.index, device.number) for device in sampler.devices] == [(0, 1)]


def test_a_card_has_the_name_that_the_kernels_messages_use_where_the_driver_tells(tmp_path: Path) -> None:
    with simulation(gpus=2), Sampler(backend="simulated", powercap_root=None) as sampler:
        assert [device.pci_bus_id for device in sampler.devices] == ["00000000:01:00.0", "00000000:02:00.0"]
    library = library_without(["nvmlDeviceGetPciInfo_v3"], tmp_path)
    with Sampler(backend="nvml", nvml_library=str(library), powercap_root=None) as sampler:
        assert sampler.devices[0].pci_bus_id == ""
