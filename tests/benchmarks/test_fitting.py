from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_both_kinds_of_table_are_read_and_fitted(benchmarks: Path, tmp_path: Path) -> None:
    command = [sys.executable, benchmarks / "fitting.py", "--rows=2000", "--models=2", "--runs=1"]
    # So few rows are fitted slower than they are read; what is judged is a million.
    done = subprocess.run([*command, f"--json={tmp_path}/fitting.json"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    result = json.loads((tmp_path / "fitting.json").read_text())
    for kind in ("campaign", "traffic"):
        assert min(result[kind].values()) > 0
        assert result[kind]["time_ratio"] == result[kind]["fit_s"] / result[kind]["read_s"]
