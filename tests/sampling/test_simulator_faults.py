"""Every fault and cost that the simulated card can be asked for, as a client of NVML meets it.

Reads keep the time before and after themselves, and only reads that lie wholly inside or outside a fault are judged:
a slow machine gives fewer of them, and never other answers.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from llmpower.exceptions import DeviceError
from llmpower.sampling import library_without, simulation, true_energy_j

NOT_SUPPORTED, NOT_FOUND, GPU_IS_LOST = 3, 6, 15
WATTS = 200.0
V100_TICK_S = 0.022


class FieldValue(ctypes.Structure):
    _fields_ = [
        ("id", ctypes.c_uint32),
        ("scope", ctypes.c_uint32),
        ("timestamp", ctypes.c_int64),
        ("latency_us", ctypes.c_int64),
        ("type", ctypes.c_uint32),
        ("code", ctypes.c_int32),
        ("value", ctypes.c_uint64),
    ]


@dataclass(frozen=True)
class Read:
    before_s: float
    after_s: float
    code: int
    value: int


class Card:
    """NVML's own calls on one simulated machine, by ctypes; times are seconds since nvmlInit, give or take its call."""

    def __init__(self, library: Path) -> None:
        self.nvml = ctypes.CDLL(str(library))
        start_ns = time.monotonic_ns()
        assert self.nvml.nvmlInit_v2() == 0
        self.init_ns = time.monotonic_ns()
        self.slack_s = (self.init_ns - start_ns) / 1e9

    def handle(self, index: int = 0) -> ctypes.c_void_p:
        found = ctypes.c_void_p()
        assert self.nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(found)) == 0
        return found

    def now_s(self) -> float:
        return (time.monotonic_ns() - self.init_ns) / 1e9

    def energy(self, handle: ctypes.c_void_p) -> Read:
        value = ctypes.c_ulonglong()
        before_s = self.now_s()
        code = self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(value))
        return Read(before_s, self.now_s(), code, value.value)

    def power(self, handle: ctypes.c_void_p) -> Read:
        value = ctypes.c_uint()
        before_s = self.now_s()
        code = self.nvml.nvmlDeviceGetPowerUsage(handle, ctypes.byref(value))
        return Read(before_s, self.now_s(), code, value.value)

    def field(self, handle: ctypes.c_void_p, number: int, scope: int = 0) -> FieldValue:
        found = FieldValue(id=number, scope=scope)
        assert self.nvml.nvmlDeviceGetFieldValues(handle, 1, ctypes.byref(found)) == 0
        return found

    def uuid(self, handle: ctypes.c_void_p) -> bytes:
        text = ctypes.create_string_buffer(96)
        assert self.nvml.nvmlDeviceGetUUID(handle, text, 96) == 0
        return text.value

    def by_uuid(self, uuid: bytes) -> tuple[int, ctypes.c_void_p]:
        found = ctypes.c_void_p()
        return self.nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(found)), found

    def energies(self, handle: ctypes.c_void_p, until_s: float) -> list[Read]:
        reads = [self.energy(handle)]
        while reads[-1].after_s < until_s:
            time.sleep(0.002)
            reads.append(self.energy(handle))
        return reads

    def true_j(self, time_s: float) -> float:
        found = true_energy_j(0, self.init_ns + int(time_s * 1e9))
        assert found is not None
        return found


@contextmanager
def card(library: Path | None = None, **settings: object) -> Iterator[Card]:
    with simulation(**{"preset": "v100", "load": f"constant:{WATTS}"} | settings) as shipped:
        opened = Card(library or shipped)
    try:
        yield opened
    finally:
        opened.nvml.nvmlShutdown()


def test_a_freeze_shows_one_value_and_then_catches_up() -> None:
    with card(fault="freeze:0.2,0.6") as gpu:
        reads = gpu.energies(gpu.handle(), until_s=1.0)
        frozen = {read.value for read in reads if read.before_s > 0.2 and read.after_s < 0.8 - gpu.slack_s}
        after = [read for read in reads if read.before_s > 0.8]
        assert len({read.value for read in reads if read.after_s < 0.2 - gpu.slack_s}) > 1
        assert len(frozen) == 1
        for read in after:
            assert gpu.true_j(read.before_s - V100_TICK_S) <= read.value / 1e3 <= gpu.true_j(read.after_s)


def test_a_reset_counts_from_zero_again() -> None:
    with card(fault="reset:0.3") as gpu:
        reads = gpu.energies(gpu.handle(), until_s=0.6)
        before = [read for read in reads if read.after_s < 0.3 - gpu.slack_s]
        after = [read for read in reads if read.before_s > 0.3]
        assert before[-1].value / 1e3 > gpu.true_j(0) - WATTS
        for read in after:
            least_j = WATTS * (read.before_s - 0.3 - V100_TICK_S)
            assert least_j <= read.value / 1e3 <= WATTS * (read.after_s + gpu.slack_s - 0.3)


def test_a_lost_gpu_comes_back_under_its_uuid_and_not_under_its_handle() -> None:
    with card(fault="lost:0.2,0.3@1", gpus=2) as gpu:
        first, second = gpu.handle(0), gpu.handle(1)
        uuid = gpu.uuid(second)
        assert gpu.energy(second).code == 0
        while (lookup := gpu.by_uuid(uuid))[0] == 0:
            time.sleep(0.005)
        assert lookup[0] == GPU_IS_LOST
        assert gpu.energy(second).code == gpu.power(second).code == GPU_IS_LOST
        assert gpu.energy(first).code == 0
        while (lookup := gpu.by_uuid(uuid))[0] != 0:
            time.sleep(0.005)
        assert gpu.now_s() > 0.5 - gpu.slack_s
        assert gpu.energy(second).code == GPU_IS_LOST
        assert gpu.energy(lookup[1]).code == 0
        assert gpu.uuid(lookup[1]) == uuid


def test_reads_fail_or_are_zero_now_and_then() -> None:
    with card(fault="not_supported:0.3,zero:0.2@0", gpus=2) as gpu:
        handles = gpu.handle(0), gpu.handle(1)
        reads = [[gpu.energy(handle) for _ in range(1000)] for handle in handles]
        fields = [gpu.power(handles[0]) for _ in range(500)]
    failed = [sum(read.code == NOT_SUPPORTED for read in each) for each in reads]
    assert all(250 < count < 350 for count in failed)
    assert 90 < sum(read.code == 0 and read.value == 0 for read in reads[0]) < 190
    assert all(read.value > 0 for read in reads[1] if read.code == 0)
    assert {read.value for read in fields if read.code == 0} == {0, 200_000}


def test_faults_that_begin_later_leave_the_start_alone() -> None:
    with card(fault="not_supported:0.9,3600,zero:0.9,3600") as gpu:
        assert all(read.code == 0 and read.value > 0 for read in [gpu.energy(gpu.handle()) for _ in range(50)])


def test_a_hung_call_holds_every_other_and_not_the_truth() -> None:
    with card(fault="hang:0.1,1.0@1", gpus=2) as gpu:
        handles = gpu.handle(0), gpu.handle(1)
        while gpu.now_s() < 0.1:
            time.sleep(0.01)
        reads: dict[int, Read] = {}
        hung = threading.Thread(target=lambda: reads.setdefault(1, gpu.energy(handles[1])))
        hung.start()
        time.sleep(0.2)
        queued = threading.Thread(target=lambda: reads.setdefault(0, gpu.energy(handles[0])))
        queued.start()
        truth_j = gpu.true_j(gpu.now_s())
        assert hung.is_alive()
        assert queued.is_alive()
        hung.join()
        queued.join()
        assert truth_j > 0
        assert all(read.code == 0 and read.after_s > 1.1 - gpu.slack_s for read in reads.values())
        assert gpu.energy(handles[1]).code == 0


def test_skipped_updates_leave_gaps_of_two_periods() -> None:
    class Sample(ctypes.Structure):
        _fields_ = [("time_us", ctypes.c_uint64), ("value", ctypes.c_uint64)]

    with card(fault="skip:0.4") as gpu:
        kind, count, samples = ctypes.c_int(), ctypes.c_uint(200), (Sample * 200)()
        arguments = (gpu.handle(), 0, ctypes.c_ulonglong(0), ctypes.byref(kind), ctypes.byref(count), samples)
        assert gpu.nvml.nvmlDeviceGetSamples(*arguments) == 0
    gaps = [round((b.time_us - a.time_us) / 20_000) for a, b in pairwise(samples[:120])]
    assert count.value == 120
    assert 0.45 < gaps.count(1) / len(gaps) < 0.75
    assert gaps.count(2) > 10


def test_grace_hopper_answers_for_its_module_alone() -> None:
    with card(preset="h100", fault="gh200") as gpu:
        instant, module = gpu.field(gpu.handle(), 186), gpu.field(gpu.handle(), 186, scope=1)
        coherent = ctypes.c_uint()
        assert gpu.nvml.nvmlDeviceGetC2cModeInfoV(gpu.handle(), ctypes.byref(coherent)) == 0
    assert (instant.code, module.code, coherent.value) == (NOT_SUPPORTED, 0, 1)
    assert module.value == (WATTS + 100) * 1e3
    with card(preset="h100") as gpu:
        assert gpu.field(gpu.handle(), 186).code == 0
        assert gpu.field(gpu.handle(), 186, scope=1).code == NOT_SUPPORTED
        assert gpu.nvml.nvmlDeviceGetC2cModeInfoV(gpu.handle(), ctypes.byref(coherent)) == NOT_SUPPORTED


def test_instances_of_mig_draw_what_their_parent_draws() -> None:
    with card(preset="a100", fault="mig@1", gpus=2) as gpu:
        parent, instance, found = gpu.handle(1), ctypes.c_void_p(), ctypes.c_void_p()
        current, pending = ctypes.c_uint(), ctypes.c_uint()
        for index, enabled in ((0, 0), (1, 1)):
            assert gpu.nvml.nvmlDeviceGetMigMode(gpu.handle(index), ctypes.byref(current), ctypes.byref(pending)) == 0
            assert current.value == enabled
        uuids = []
        for index in (0, 1):
            assert gpu.nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, index, ctypes.byref(instance)) == 0
            assert gpu.nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(instance, ctypes.byref(found)) == 0
            assert found.value == parent.value
            assert gpu.power(instance).value == gpu.power(parent).value == WATTS * 1e3
            assert gpu.energy(instance).code == 0
            uuids.append(gpu.uuid(instance))
            assert gpu.by_uuid(uuids[-1])[1].value == instance.value
        assert gpu.nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, 2, ctypes.byref(instance)) == NOT_FOUND
        assert gpu.nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu.handle(0), 0, ctypes.byref(found)) == NOT_SUPPORTED
        assert len(set(uuids)) == 2
        assert all(uuid.startswith(b"MIG-") for uuid in uuids)


def test_symbols_that_an_old_driver_lacks(tmp_path: Path) -> None:
    absent = ["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetFieldValues"]
    library = library_without(absent, tmp_path)
    for symbol in absent:
        with pytest.raises(AttributeError):
            getattr(ctypes.CDLL(str(library)), symbol)
    with card(library=library) as gpu:
        assert gpu.power(gpu.handle()).value == WATTS * 1e3
    with pytest.raises(DeviceError, match="exports no such function"):
        library_without(["nvmlDeviceGetWishes"], tmp_path)


def test_a_call_costs_its_latency_and_looks_at_the_counter_within_it() -> None:
    with card(latency="energy=3ms") as gpu:
        handle = gpu.handle()
        reads = [gpu.energy(handle) for _ in range(60)]
        for read in reads:
            assert gpu.true_j(read.before_s - V100_TICK_S) <= read.value / 1e3 <= gpu.true_j(read.after_s)
    taken_s = sorted(read.after_s - read.before_s for read in reads)
    assert taken_s[0] > 0.0004
    assert taken_s[30] > 0.0025
    assert taken_s[-1] > 0.004


def test_calls_of_several_threads_queue() -> None:
    with card(latency="energy=3ms", gpus=4) as gpu:
        handles = [gpu.handle(index) for index in range(4)]
        reads: list[Read] = []
        threads = [
            threading.Thread(target=lambda h=handle: reads.extend(gpu.energy(h) for _ in range(10)))
            for handle in handles
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(reads) == 40
    # Side by side they would take a quarter of this.
    assert max(read.after_s for read in reads) - min(read.before_s for read in reads) > 40 * 0.003 * 0.8
    returned_s = sorted(read.after_s for read in reads)
    waited_for = [sum(read.before_s < at < read.after_s for at in returned_s) for read in reads]
    assert sorted(waited_for)[20] >= 2


def test_each_field_of_one_call_costs_its_own_latency() -> None:
    with card(preset="h100", latency="instant=2ms,energy=6ms") as gpu:
        handle = gpu.handle()
        latencies_us = [[gpu.field(handle, number).latency_us for _ in range(15)] for number in (186, 83, 185)]
    instant, energy, average = (sorted(each)[7] for each in latencies_us)
    assert 1000 < instant < 4000 < energy < 12000
    assert average == 0


@pytest.mark.parametrize("integrator", ["full", "part_time"])
def test_a_part_time_counter_is_blind_between_its_windows(integrator: str) -> None:
    # In step with the sensor, every window sees one phase of the wave.
    with card(preset="a100", load="square:100,500,0.101,0.25", integrator=integrator) as gpu:
        reads = gpu.energies(gpu.handle(), until_s=1.5)
        moves = [(old, new) for old, new in pairwise(reads) if new.value != old.value]
        (old_first, first), (old_last, last) = moves[0], moves[-1]
        least_j = gpu.true_j(old_last.before_s) - gpu.true_j(first.after_s)
        most_j = gpu.true_j(last.after_s) - gpu.true_j(old_first.before_s)
    counted_j = (last.value - first.value) / 1e3
    if integrator == "full":
        assert least_j - 0.001 <= counted_j <= most_j + 0.001
    else:
        assert counted_j < 0.9 * least_j or counted_j > 1.1 * most_j
