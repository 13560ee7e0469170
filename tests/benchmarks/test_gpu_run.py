"""The benchmark of a real card, as far as it goes without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_every_part_runs_on_the_simulated_card(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(benchmarks / "gpu" / "run.py"), "--simulated", "--quick", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("gpu-simulated-*.json")
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["simulated"]
    for field in found["fields"].values():
        assert field["failed"] == 0
        assert 0.05 < field["period_s"] < 0.2
    assert 0.5 < found["agreement"]["power_instant_over_counter"] < 2
    (work,) = found["repeated"]
    assert work["times"] == work["llmpower"]["known"] == 4
    assert work["by_counter_j"] > 0
    for shape in found["spans"]:
        assert len(shape["calls"]) == 2
        assert all(call["gpu_energy_j"] > 0 for call in shape["calls"])
        assert all(call["output_tokens"] == shape["output_tokens"] for call in shape["calls"])
    assert set(found["cost"]) == {"0 Hz", "100 Hz", "1000 Hz"}
    soak = found["soak"]
    assert soak["calls"] > 0
    assert (soak["unsettled"], soak["unavailable"], soak["dropped"], soak["read_errors"]) == (0, 0, 0, {})
    assert abs(soak["out_of_balance_j"]) < 1e-6


def test_a_counter_is_read_beside_bursts_and_studied_again_from_the_file(benchmarks: Path, tmp_path: Path) -> None:
    command, kept = [sys.executable, str(benchmarks / "gpu" / "counter.py")], str(tmp_path / "reads.npz")
    of_card = subprocess.run(
        [*command, "--simulated", "--quick", "--keep", kept], capture_output=True, text=True, check=True
    )
    of_file = subprocess.run([*command, "--from", kept], capture_output=True, text=True, check=True)
    assert of_card.stdout == of_file.stdout
    found = json.loads(of_card.stdout)
    assert 0.099 < found["period_s"] < 0.101
    assert found["bursts"][0]["times"] == 30
    assert 50 < found["driver_samples"]["spacing_ms"]["p50"] < 150
