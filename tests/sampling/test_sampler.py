from __future__ import annotations

import ctypes
import gc
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from llmpower.exceptions import DeviceError, LlmpowerError
from llmpower.sampling import SAMPLE_DTYPE, Sampler, calibrate, low_level, monotonic_ns, simulation, true_energy_j
from llmpower.types import Field


def open_simulated(rate_hz: float = 200.0, powercap_root: Path | None = None, **settings: object) -> Sampler:
    with simulation(**{"load": "square:100,500,0.5"} | settings):
        return Sampler(backend="simulated", rate_hz=rate_hz, powercap_root=powercap_root)


def test_every_read_is_kept_with_the_times_around_it() -> None:
    with open_simulated(gpus=2) as sampler:
        time.sleep(0.5)
        samples = sampler.drain()
        statistics = sampler.statistics()
    assert samples.dtype == SAMPLE_DTYPE
    assert set(samples["device"]) == {0, 1}
    assert set(samples["field"]) == {Field.ENERGY, Field.POWER_INSTANT}
    assert (samples["status"] == 0).all()
    assert (samples["before_ns"] <= samples["after_ns"]).all()
    assert (np.diff(samples["before_ns"]) >= 0).all()
    assert statistics.samples_total >= len(samples) > 100
    assert statistics.dropped_total == 0
    assert sum(statistics.lateness_counts) == statistics.ticks_total == statistics.samples_total


def test_the_energy_counter_follows_the_true_joules() -> None:
    with open_simulated() as sampler:
        time.sleep(1.2)
        samples = sampler.drain()
        energy = samples[samples["field"] == Field.ENERGY]
        first, last = energy[0], energy[-1]
        true_j = [true_energy_j(0, int(read["before_ns"])) for read in (first, last)]
    measured_j = (last["value"] - first["value"]) / 1e6
    assert true_j[0] is not None
    assert true_j[1] is not None
    # Each end of a raw counter difference is off by at most one tick at full power.
    assert measured_j == pytest.approx(true_j[1] - true_j[0], abs=2 * 0.105 * 500)
    assert (np.diff(energy["value"]) >= 0).all()


def test_a_full_ring_counts_what_it_loses() -> None:
    with simulation(load="constant:200"):
        sampler = Sampler(backend="simulated", rate_hz=1000, powercap_root=None, ring_capacity=64)
    with sampler:
        time.sleep(0.5)
        statistics = sampler.statistics()
        samples = sampler.drain()
    assert statistics.dropped_total > 0
    assert statistics.samples_total == 64
    assert statistics.samples_total + statistics.dropped_total <= statistics.ticks_total + 1
    assert (np.diff(samples["before_ns"]) >= 0).all()


def test_calibration_finds_the_periods_of_the_preset() -> None:
    with open_simulated(preset="v100", load="square:60,280,0.37") as sampler:
        time.sleep(1.5)
        samples = sampler.drain()
    energy, power = calibrate(samples, 0, Field.ENERGY), calibrate(samples, 0, Field.POWER_INSTANT)
    assert energy.period_s == pytest.approx(0.020, rel=0.15)
    assert power.period_s == pytest.approx(0.020, rel=0.15)
    assert energy.latency_p50_s is not None
    assert energy.latency_p99_s is not None
    assert 0 < energy.latency_p50_s <= energy.latency_p99_s
    assert calibrate(samples, 7, Field.ENERGY).period_s is None


def test_reads_that_fail_are_counted_and_backed_off() -> None:
    with open_simulated(fault="lost_after:20") as sampler:
        time.sleep(1.0)
        samples = sampler.drain()
        statistics = sampler.statistics()
    lost = samples[samples["status"] == 15]
    assert len(lost) > 0
    assert statistics.read_errors == {("gpu", 15): len(lost)}
    # 200 Hz on two fields would be 400 reads; a lost device is asked ever less often.
    assert len(lost) < 40


def test_a_card_without_a_counter_says_so() -> None:
    sampler = open_simulated(fault="no_energy")
    assert not sampler.devices[0].has_energy_counter
    assert sampler.devices[0].has_power
    sampler.close()


def test_stop_and_start_again_and_close_twice() -> None:
    sampler = open_simulated()
    for _ in range(3):
        sampler.start()
        sampler.start()
        time.sleep(0.05)
        sampler.stop()
        sampler.stop()
    assert len(sampler.drain()) > 0
    sampler.close()
    sampler.close()
    with pytest.raises(LlmpowerError, match="closed"):
        sampler.drain()


def test_whoever_is_inside_a_call_when_it_is_closed_gets_an_answer() -> None:
    """The memory a call looks at stays until it is over, and what comes later is refused by name."""
    sampler = open_simulated()
    sampler.start()
    time.sleep(0.1)
    sampler.stop()
    samples = sampler.statistics().samples_total
    inside = sampler._open_handle()  # as a call in another thread has it
    sampler.close()
    assert low_level.statistics(inside)["samples"] == samples
    assert low_level.drain(inside, np.zeros(4096, SAMPLE_DTYPE)) == samples > 0
    assert low_level.processes(inside, 0)[0] == 0
    with pytest.raises(LlmpowerError, match="closed"):
        sampler.statistics()


def test_many_threads_may_use_stop_and_close_it_at_once() -> None:
    acts: list[Callable[[Sampler], object]] = [
        Sampler.statistics,
        Sampler.channels,
        Sampler.start,
        Sampler.stop,
        lambda sampler: sampler.processes(sampler.devices[0]),
        lambda sampler: sampler.rest(True),
    ]

    def until_closed(sampler: Sampler, act: Callable[[Sampler], object]) -> str:
        while True:
            try:
                act(sampler)
            except LlmpowerError as error:
                return str(error)

    with ThreadPoolExecutor(len(acts)) as pool:
        for _ in range(20):
            sampler = open_simulated()
            ends = [pool.submit(until_closed, sampler, act) for act in acts]
            time.sleep(0.02)
            sampler.close()
            assert {end.result(timeout=10) for end in ends} == {"this sampler is closed; open a new one"}
    assert not [t for t in Path("/proc/self/task").iterdir() if "llmpower" in (t / "comm").read_text()]


def test_what_threads_used_is_known_after_they_have_ended() -> None:
    used_s = [0.0]
    with open_simulated(1000.0, gpus=4) as sampler:
        for _ in range(20):
            sampler.start()
            time.sleep(0.02)
            sampler.stop()
            used_s.append(sampler.statistics().cpu_time_s)
    assert (np.diff(used_s) > 0).all()


def test_a_thousand_starts_leave_neither_threads_nor_descriptors() -> None:
    def footprint() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (counts, not paths)

    open_simulated().close()
    before = footprint()
    sampler = open_simulated()
    for _ in range(1000):
        sampler.start()
        sampler.stop()
    sampler.close()
    for _ in range(20):
        with open_simulated():
            pass
    assert footprint() == before


def test_collected_without_close() -> None:
    sampler = open_simulated()
    sampler.start()
    del sampler
    gc.collect()
    assert not [t for t in Path("/proc/self/task").iterdir() if "llmpower" in (t / "comm").read_text()]


def test_a_forked_child_may_close_and_exit() -> None:
    with open_simulated() as sampler:
        child = os.fork()
        if child == 0:
            drained = len(sampler.drain())
            sampler.close()
            os._exit(0 if drained == 0 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.1)
        assert len(sampler.drain()) > 0


def test_a_forked_child_may_sample_though_its_parent_was_in_a_call() -> None:
    # Calls of 20 ms each, one after the other: hardly a moment at which no thread of the parent is in one.
    with open_simulated(rate_hz=100, latency="energy=20ms,instant=20ms"):
        time.sleep(0.1)
        for _ in range(3):
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)  # instead of waiting for ever
                with open_simulated(rate_hz=100) as own:
                    time.sleep(0.1)
                    os._exit(0 if len(own.drain()) else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_forked_child_cannot_start_the_parents_sampler() -> None:
    sampler = open_simulated()
    child = os.fork()
    if child == 0:
        try:
            sampler.start()
        except LlmpowerError as error:
            os._exit(0 if "forked" in str(error) else 2)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    sampler.close()
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.parametrize("ending", ["pass", "import os; os.kill(os.getpid(), 15)", "raise SystemExit(3)", "1 / 0"])
def test_the_interpreter_exits_while_sampling(ending: str) -> None:
    program = f"""
from llmpower.sampling import Sampler
sampler = Sampler(backend="simulated", rate_hz=1000)
sampler.start()
{ending}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    expected = {"pass": 0, "raise SystemExit(3)": 3, "1 / 0": 1}.get(ending, -15)
    assert done.returncode == expected, done.stderr


def test_sampling_goes_on_while_no_python_thread_can_run() -> None:
    # A call through PyDLL keeps the GIL for as long as it takes, and this one leaves the processors to others.
    sleep_us = ctypes.PyDLL(None).usleep
    with open_simulated(rate_hz=500) as sampler:
        start_ns = monotonic_ns()
        assert sleep_us(999_999) == 0
        end_ns = monotonic_ns()
        before_ns = sampler.drain()["before_ns"]
    # Not a speed, which on a loaded machine is what others leave: a sampler that needed the GIL would have one at most.
    assert ((before_ns > start_ns) & (before_ns < end_ns)).sum() > 1


def test_the_thread_asks_for_short_turns_of_the_processor() -> None:
    own_us = _slice_us(0)
    if not own_us:
        pytest.skip("this kernel has no slices to ask for (Linux 6.12)")
    with open_simulated():
        time.sleep(0.1)
        names = {int(task.name): (task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()}
        slices_us = [_slice_us(thread) for thread, name in names.items() if name == "llmpower-sample"]
    assert slices_us == [100.0]
    assert _slice_us(0) == own_us, "only the sampling thread is concerned"


def _slice_us(thread: int) -> float:
    """What sched_getattr(2) says of a thread; 0 where the kernel has no such thing."""
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, thread, attributes, len(attributes), 0) == 0
    runtime_ns: int = struct.unpack_from("Q", attributes, 24)[0]
    return runtime_ns / 1000


@pytest.mark.parametrize(
    ("library", "said"),
    [("{d}/none.so", "give --nvml-library"), ("libm.so.6", "not an NVML library"), (__file__, "not an")],
)
def test_a_library_that_is_missing_or_of_the_wrong_kind(library: str, said: str, tmp_path: Path) -> None:
    library = library.format(d=tmp_path)
    with pytest.raises(DeviceError, match=said) as caught:
        Sampler(nvml_library=library)
    assert library in str(caught.value)
    assert f"{library}: {library}" not in str(caught.value), "the loader names it too"
    assert caught.value.exit_code == 2


def test_a_driver_that_does_not_answer_is_an_error_and_no_reason_to_simulate() -> None:
    with simulation(fault="init") as library, pytest.raises(DeviceError, match="Driver Not Loaded"):
        Sampler(backend="auto", nvml_library=str(library))


def test_without_a_driver_auto_is_the_simulated_card() -> None:
    sampler = Sampler(backend="auto", powercap_root=None)
    if sampler.backend == "nvml":
        pytest.skip("this machine has a driver")
    assert sampler.devices[0].simulated
    sampler.close()


def test_rates_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DeviceError, match="--rate = 0"):
        Sampler(backend="simulated", rate_hz=0)


@pytest.mark.parametrize("share", [0.0, 2.0, float("nan")])
def test_shares_of_the_time_that_make_no_sense_are_refused(share: float) -> None:
    with pytest.raises(DeviceError, match=f"--max-read-share = {share}: must lie between 0.001 and 1 of wall time"):
        Sampler(backend="simulated", max_read_share=share)


def test_slow_calls_are_made_as_often_as_their_share_of_the_time_allows() -> None:
    with (
        simulation(load="constant:200", latency="energy=20ms") as library,
        Sampler(nvml_library=library, powercap_root=None, max_read_share=0.25) as sampler,
    ):
        deadline_s = time.monotonic() + 30
        # A quarter of the time is eleven calls a second; the usual share is one, and would take a minute.
        while sum(channel.reads for channel in sampler.channels() if channel.field == Field.ENERGY) < 60:
            assert time.monotonic() < deadline_s
            time.sleep(0.1)


def test_at_rest_it_reads_less_and_at_the_end_of_it_everything_at_once() -> None:
    def rates(sampler: Sampler) -> dict[Field, float]:
        return {channel.field: channel.effective_hz for channel in sampler.channels()}

    def wait_for(sampler: Sampler, energy_hz: float) -> None:
        deadline_s = time.monotonic() + 30
        while rates(sampler)[Field.ENERGY] != pytest.approx(energy_hz, rel=0.01):
            assert time.monotonic() < deadline_s, rates(sampler)
            time.sleep(0.02)

    with open_simulated(rate_hz=100.0) as sampler:
        wait_for(sampler, 100.0)
        assert rates(sampler)[Field.POWER_INSTANT] == pytest.approx(100.0)
        sampler.rest(True)
        wait_for(sampler, 25.0)
        assert rates(sampler)[Field.POWER_INSTANT] == pytest.approx(4.0), "on which nothing but eyes depends"
        requested = {channel.field: channel.requested_hz for channel in sampler.channels()}
        assert requested == pytest.approx(rates(sampler)), "nobody is to be told that calls are slow"
        sampler.drain()
        time.sleep(0.5)
        sampler.rest(False)
        since_ns = monotonic_ns()
        wait_for(sampler, 100.0)
        fields: list[int] = []
        deadline_s = time.monotonic() + 30
        while not {int(Field.ENERGY), int(Field.POWER_INSTANT)} <= set(fields):
            assert time.monotonic() < deadline_s, fields
            samples = sampler.drain()
            fields += samples["field"][samples["before_ns"] >= since_ns].tolist()
            time.sleep(0.02)
        # Power that waited for its turn at rest would come after many reads of the counter.
        assert int(Field.POWER_INSTANT) in fields[:4]
