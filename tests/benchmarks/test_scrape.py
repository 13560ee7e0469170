from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_both_servers_are_asked_in_every_way(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, benchmarks / "scrape.py", "--gpus=1", "--models=2", "--runs=1"]
    done = subprocess.run([*command, f"--json={tmp_path}/scrape.json"], capture_output=True, text=True, check=True)
    assert "OpenMetrics, gzip" in done.stdout
    result = json.loads((tmp_path / "scrape.json").read_text())
    assert [list(of) for of in result["median_wall_and_cpu_s"].values()] == [["llmpower", "prometheus_client"]] * 4
    assert all(min(times) > 0 for of in result["median_wall_and_cpu_s"].values() for times in of.values())
