"""A real NVIDIA GPU: what the simulated one cannot show. Skipped where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from llmpower.sampling import Sampler
from llmpower.sampling.sampler import NVML_LIBRARY
from llmpower.types import Field

pytestmark = pytest.mark.gpu

RUN = Path(__file__).parents[2] / "benchmarks" / "gpu" / "run.py"


@pytest.fixture(scope="module", autouse=True)
def _card() -> None:
    # In a process of its own: in this one a test of the simulated library may have loaded that under the same name.
    program = f"import ctypes; print(ctypes.CDLL({NVML_LIBRARY!r}).nvmlInit_v2())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"no {NVML_LIBRARY}: this machine has no NVIDIA driver")
    if done.stdout.strip() != "0":
        pytest.skip("the NVIDIA driver does not start; see nvidia-smi")


def test_every_gpu_answers_and_is_real() -> None:
    with Sampler(backend="nvml", powercap_root=None) as sampler:
        time.sleep(1.0)
        samples = sampler.drain()
        gpus = [device for device in sampler.devices if device.kind == "gpu"]
        assert gpus
        for device in gpus:
            assert not device.simulated
            assert device.uuid.startswith(("GPU-", "MIG-"))
            own = samples[(samples["device"] == device.index) & (samples["status"] == 0)]
            assert len(own) > 0
            power_w = own[own["field"] != Field.ENERGY]["value"] / 1e6
            assert np.all((power_w > 0) & (power_w < 2000))


def test_the_counter_never_goes_back_and_agrees_with_power_within_reason() -> None:
    with Sampler(backend="nvml", powercap_root=None) as sampler:
        if not sampler.devices[0].has_energy_counter:
            pytest.skip(f"{sampler.devices[0].name} has no energy counter")
        time.sleep(5.0)
        samples = sampler.drain()
    own = samples[(samples["device"] == 0) & (samples["status"] == 0)]
    counter, power = own[own["field"] == Field.ENERGY], own[own["field"] != Field.ENERGY]
    assert np.all(np.diff(counter["value"]) >= 0)
    counter_w = (counter["value"][-1] - counter["value"][0]) / 1e6 / ((np.ptp(counter["after_ns"])) / 1e9)
    assert counter_w == pytest.approx(power["value"].mean() / 1e6, rel=0.25)


def test_the_benchmark_of_the_card_runs(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    command = [sys.executable, str(RUN), "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("gpu-*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert not found["simulated"]
    assert found["soak"]["read_errors"] == {}
    assert found["soak"]["dropped"] == found["soak"]["unsettled"] == 0
