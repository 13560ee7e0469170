"""The benchmark of the sampling thread runs, and says what it counted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path


def test_both_samplers_beside_a_busy_loop(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(benchmarks / "sampling_thread.py"), "--programs", "busy loop"]
    command += ["--minutes", "0.02", "--seconds", "1.2", "--pairs", "2", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "sampling_thread.json").read_text(encoding="utf-8"))["rows"]
    assert [row["sampler"] for row in rows] == ["llmpower", "nvidia-ml-py"]
    for row in rows:
        assert row["ticks"] > 0
        assert row["samples"] > 0
        assert 0 <= row["held_share"] <= 1
        assert 0 < row["lateness_p50_s"] <= row["lateness_p99_s"]
        assert row["cpu_per_sample_s"] > 0
        assert 0 <= row["stolen_share"] <= 1
        bare = row["sampler"] == "llmpower" and shutil.which("cyclictest")
        assert (row["bare_held_share"] is not None) == (row["bare_lateness_p99_s"] is not None) == bool(bare)
        assert 0 <= (row["bare_held_share"] or 0) <= 1
        low, high = row["program_slowed_quartiles"]
        assert low <= row["program_slowed"] <= high < 1
    assert rows[0]["lost"] == 0
