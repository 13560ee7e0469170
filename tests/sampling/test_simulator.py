"""The simulated card against its own specification, and against a client that knows nothing of us."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llmpower.exceptions import DeviceError
from llmpower.sampling import Sampler, simulated_library, simulation, true_energy_j
from llmpower.types import Field


def sampled(seconds: float, **settings: object) -> tuple[np.ndarray, Sampler]:
    with simulation(**settings):
        sampler = Sampler(backend="simulated", powercap_root=None, rate_hz=1000)
    with sampler:
        time.sleep(seconds)
        sampler.stop()
        return sampler.drain(), sampler


@pytest.mark.parametrize(("preset", "period_s"), [("v100", 0.020), ("a100", 0.101), ("rtx4090", 0.1), ("h100", 0.1)])
def test_power_is_held_for_the_presets_period(preset: str, period_s: float) -> None:
    samples, _ = sampled(1.6, preset=preset, load="square:100,300,0.73")
    power = samples[samples["field"] == Field.POWER_INSTANT]
    changed_ns = power["after_ns"][1:][np.diff(power["value"]) != 0]
    assert np.median(np.diff(changed_ns)) / 1e9 == pytest.approx(period_s, rel=0.05)


def test_the_true_energy_of_a_square_wave() -> None:
    with simulation(load="square:100,500,0.2,0.25"):
        sampler = Sampler(backend="simulated", powercap_root=None)
    second = 1_000_000_000
    a, b = true_energy_j(0, 40 * second), true_energy_j(0, 50 * second)
    assert a is not None
    assert b is not None
    assert b - a == pytest.approx(10 * (0.25 * 500 + 0.75 * 100))
    sampler.close()


def test_a_scripted_waveform_repeats(tmp_path: Path) -> None:
    script = tmp_path / "load.txt"
    script.write_text("# a prefill and a decode\n0.5 620\n1.5 340\n2 60\n")
    with simulation(load=f"file:{script}"):
        sampler = Sampler(backend="simulated", powercap_root=None)
    second = 1_000_000_000
    values = [true_energy_j(0, t * second) for t in (0, 4, 8)]
    assert values == [0.0, pytest.approx(940), pytest.approx(1880)]
    assert true_energy_j(0, second // 4) == pytest.approx(155)
    sampler.close()


def test_gain_and_offset_show_in_the_counter_and_not_in_the_truth() -> None:
    samples, _ = sampled(1.0, preset="v100", load="constant:200", gain=1.05, offset_w=3)
    energy = samples[samples["field"] == Field.ENERGY]
    seconds = (energy["after_ns"][-1] - energy["after_ns"][0]) / 1e9
    shown_w = (energy["value"][-1] - energy["value"][0]) / 1e6 / seconds
    assert shown_w == pytest.approx(1.05 * 200 + 3, rel=0.06)
    assert samples[samples["field"] == Field.POWER_INSTANT]["value"][-1] == pytest.approx(213e6, rel=1e-3)


def test_joules_follow_the_work_of_this_machine() -> None:
    with simulation(load="cpu"):
        sampler = Sampler(backend="simulated", powercap_root=None, rate_hz=200)
    with sampler:
        time.sleep(0.1)
        start_ns = time.monotonic_ns()
        while time.monotonic_ns() < start_ns + 700_000_000:
            pass
        time.sleep(0.1)
        busy_j = true_energy_j(0, start_ns + 650_000_000), true_energy_j(0, start_ns + 50_000_000)
    assert busy_j[0] is not None
    assert busy_j[1] is not None
    # One processor at least was ours: its share of the range between idle and full comes on top of idle.
    floor_w = 55 + 0.7 * (400 - 55) / (os.cpu_count() or 1)
    assert (busy_j[0] - busy_j[1]) / 0.6 > floor_w


def test_two_processes_see_one_card() -> None:
    program = """
import json, sys, time
from llmpower.sampling import Sampler, true_energy_j
sampler = Sampler(backend="simulated", powercap_root=None)
print(json.dumps(true_energy_j(0, int(sys.argv[1]))))
"""
    moment = time.monotonic_ns() - 1_000_000_000
    environment = os.environ | {"LLMPOWER_SIM_LOAD": "square:100,500,0.3"}
    command = [sys.executable, "-c", program, str(moment)]
    found = [
        json.loads(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=20).stdout)
        for _ in range(2)
    ]
    assert found[0] == found[1] > 0


@pytest.mark.parametrize(
    "setting",
    [
        {"preset": "gtx480"},
        {"gpus": 9},
        {"load": "triangle:1"},
        {"fault": "gremlins"},
        {"latency": "slow"},
        {"integrator": "half"},
        {"gain": "big"},
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, object], capfd: pytest.CaptureFixture[str]) -> None:
    with simulation(**setting), pytest.raises(DeviceError) as caught:
        Sampler(backend="simulated")
    [(name, value)] = setting.items()
    said = f": LLMPOWER_SIM_{name.upper()} = {value}: "
    assert said in str(caught.value)
    assert "the simulated GPU does not start" in str(caught.value), "and not a driver, nor dmesg"
    assert capfd.readouterr().err == "", "whoever catches it says it, in one line"


def test_another_client_is_told_which_setting_makes_no_sense() -> None:
    program = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).nvmlInit_v2())"
    command = [sys.executable, "-c", program, str(simulated_library())]
    done = subprocess.run(command, env=os.environ | {"LLMPOWER_SIM_GPUS": "9"}, capture_output=True, text=True)
    assert done.returncode == 2, "invalid argument"
    assert done.stderr == "simulated NVML: LLMPOWER_SIM_GPUS = 9: want a number from 1 to 8\n"


def test_nvidia_ml_py_runs_against_it_unchanged() -> None:
    program = """
import json, pynvml as n
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
asked = [n.NVML_FI_DEV_POWER_INSTANT, n.NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 1]
fields = n.nvmlDeviceGetFieldValues(handles[1], asked)
print(json.dumps({
    "name": n.nvmlDeviceGetName(handles[0]),
    "same": n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(handles[2]))),
    "uuid": n.nvmlDeviceGetUUID(handles[2]),
    "power_mw": n.nvmlDeviceGetPowerUsage(handles[1]),
    "energy_mj": n.nvmlDeviceGetTotalEnergyConsumption(handles[1]),
    "instant_mw": fields[0].value.uiVal,
    "counter_mj": fields[1].value.ullVal,
    "unknown_field": fields[2].nvmlReturn,
}))
n.nvmlShutdown()
try:
    n.nvmlDeviceGetCount()
except n.NVMLError_Uninitialized:
    pass
else:
    raise SystemExit("counted devices after shutdown")
"""
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(simulated_library().parent),
        "LLMPOWER_SIM_LOAD": "constant:123",
        "LLMPOWER_SIM_GPUS": "3",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["name"].startswith("Simulated")
    assert found["same"] == found["uuid"]
    assert found["power_mw"] == found["instant_mw"] == pytest.approx(123_000, abs=1)
    assert found["counter_mj"] >= found["energy_mj"] > 0
    assert found["unknown_field"] == 3


def test_what_other_tools_ask_for_has_an_answer() -> None:
    program = """
import json, time, pynvml as n
n.nvmlInit()
gpu = n.nvmlDeviceGetHandleByIndex(1)
pci = n.nvmlDeviceGetPciInfo(gpu)
assert n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByPciBusId(pci.busId)) == n.nvmlDeviceGetUUID(gpu)
assert n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByPciBusId(pci.busIdLegacy)) == n.nvmlDeviceGetUUID(gpu)
memory, memory_v2 = n.nvmlDeviceGetMemoryInfo(gpu), n.nvmlDeviceGetMemoryInfo(gpu, version=n.nvmlMemory_v2)
assert memory.total == memory.free + memory.used == memory_v2.total == 80 << 30
low, high = n.nvmlDeviceGetPowerManagementLimitConstraints(gpu)
assert low < n.nvmlDeviceGetEnforcedPowerLimit(gpu) == n.nvmlDeviceGetPowerManagementDefaultLimit(gpu) == high
# The card may warm or cool by a degree between two calls.
calls = (n.nvmlDeviceGetTemperature, n.nvmlDeviceGetTemperatureV, n.nvmlDeviceGetTemperature)
celsius = [call(gpu, 0) for call in calls]
assert celsius in (sorted(celsius), sorted(celsius, reverse=True)) and 25 <= min(celsius) <= max(celsius) <= 70
assert n.nvmlDeviceGetUtilizationRates(gpu).gpu == 50
assert n.nvmlDeviceGetEncoderUtilization(gpu)[0] == n.nvmlDeviceGetDecoderUtilization(gpu)[0] == 0
assert n.nvmlDeviceGetComputeRunningProcesses(gpu) == n.nvmlDeviceGetGraphicsRunningProcesses(gpu) == []
assert n.nvmlDeviceGetMigMode(gpu) == [0, 0]
assert n.nvmlDeviceGetArchitecture(gpu) == n.NVML_DEVICE_ARCH_AMPERE
assert n.nvmlDeviceGetCudaComputeCapability(gpu) == (8, 0)
assert n.nvmlSystemGetCudaDriverVersion() > 12000
for refused in (n.nvmlDeviceGetC2cModeInfoV, n.nvmlDeviceGetFanSpeed, n.nvmlDeviceGetSerial):
    try:
        refused(gpu)
    except n.NVMLError_NotSupported:
        continue
    raise SystemExit(f"{refused} answers")
kind, samples = n.nvmlDeviceGetSamples(gpu, n.NVML_TOTAL_POWER_SAMPLES, 0)
last_us = samples[-1].timeStamp
try:
    newer = [s.timeStamp > last_us for s in n.nvmlDeviceGetSamples(gpu, n.NVML_TOTAL_POWER_SAMPLES, last_us)[1]]
except n.NVMLError_NotFound:
    newer = []
print(json.dumps({
    "kind": kind,
    "newer": all(newer) and len(newer) < len(samples),
    "time_us": [s.timeStamp for s in samples],
    "power_mw": [s.sampleValue.uiVal for s in samples],
    "now_us": time.time() * 1e6,
    "instant_mw": n.nvmlDeviceGetFieldValues(gpu, [n.NVML_FI_DEV_POWER_INSTANT])[0].value.uiVal,
}))
"""
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(simulated_library().parent),
        "LLMPOWER_SIM_LOAD": "square:100,400,60",  # as much as the card may draw
        "LLMPOWER_SIM_GPUS": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == 1
    assert found["newer"]
    gaps_us = np.diff(found["time_us"])
    assert len(gaps_us) == 119
    assert np.median(gaps_us) == pytest.approx(101_000, rel=0.01)
    assert gaps_us.std() == pytest.approx(2**0.5 * 1000, rel=0.4)
    # The buffer ends with the reading that shows, or the next one has come meanwhile.
    assert found["now_us"] - found["time_us"][-1] < 10e6
    assert found["now_us"] > found["time_us"][-1]
    assert min(found["power_mw"]) >= 100_000
    assert max(found["power_mw"]) <= 400_000
    assert found["instant_mw"] in range(100_000, 400_001)
