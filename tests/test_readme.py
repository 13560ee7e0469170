"""The README, typed: its commands run where a machine without a GPU, without root and without a network can.

What is marked as not run is at least spelled right, which tests/test_docs.py sees to for all pages. The blocks in
Python are typed in tests/inprocess/test_readme.py, where PyTorch is loaded anyway.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from pages import ROOT, Block, blocks, commands

from llmpower.cli.main import cli
from llmpower.store import Store
from llmpower.types import Measurement

BLOCKS = [block for block in blocks(ROOT / "README.md") if block.is_run]
STORE = "/var/lib/llmpower/spans.db"


def block_with(text: str) -> Block:
    (found,) = [block for block in BLOCKS if text in block.text]
    return found


def test_every_block_is_run_by_a_test_here_or_next_door() -> None:
    starts = [
        "pip install",
        "llmpower run",
        "import llmpower\n\nllmpower.instrument",
        "import llmpower\n\nmonitor",
        "llmpower fit",
    ]
    assert [next((start for start in starts if block.text.startswith(start)), block.name) for block in BLOCKS] == starts


def test_a_daemon_of_ones_own_measures_a_program_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "your_program.py").write_text(
        "import time, llmpower\n"
        "with llmpower.span(model_name='yours') as call:\n    time.sleep(0.3)\nprint(call.energy_j)\n"
    )
    llmpower_here = tmp_path / "llmpower"
    llmpower_here.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmpower.cli.main "$@"\n')
    llmpower_here.chmod(0o755)
    start = "\n".join(line for line in commands(block_with("pip install")) if not line.startswith("pip "))
    wait = "until llmpower status > status 2>&1; do sleep 0.1; done"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LLMPOWER_SOCKET": str(tmp_path / "socket"),
        "LLMPOWER_DAEMON_SOCKET": str(tmp_path / "socket"),
        "LLMPOWER_DAEMON_BACKEND": "simulated",
        "LLMPOWER_DAEMON_STORE": str(tmp_path / "spans.db"),
        "LLMPOWER_DAEMON_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
        "LLMPOWER_DAEMON_OTLP_LISTEN_ADDRESS": "127.0.0.1:0",
        "LLMPOWER_EXPORT_STORE": str(tmp_path / "spans.db"),
        "LLMPOWER_SIM_LOAD": "constant:200",
    }
    script = f"set -e\ntrap 'kill $(jobs -p)' EXIT\n{start}\n{wait}\n{block_with('llmpower run').text}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[0]) == pytest.approx(60, rel=0.2)  # 0.3 s at 200 W
    assert "yours" in (tmp_path / "measurements.csv").read_text()


def test_models_and_a_plan(
    tmp_path: Path, make_measurement: Callable[..., Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [(name, τin, τout) for name in ("small", "large") for τin in (8, 64, 512) for τout in (8, 64, 512)]
    store = Store(tmp_path / "spans.db")
    store.append(
        [
            make_measurement(
                number,
                model_name=name,
                input_tokens=τin,
                output_tokens=τout,
                end_ns=number * 60_000_000_000 + 1_000_000 * (100 + τin + 20 * τout),
                gpu_energy_j=(1 + 4 * (name == "large")) * (10 + 0.1 * τin + 4.0 * τout),
            )
            for number, (name, τin, τout) in enumerate(grid)
        ]
    )
    store.close()
    queries = "".join(f"2026-01-01T00:{at:02d}:00,{8 + 7 * at},{8 + 5 * at}\n" for at in range(60))
    for name in ("queries.csv", "tomorrow.csv"):
        (tmp_path / name).write_text(f"timestamp,input_tokens,output_tokens\n{queries}")
    (tmp_path / "accuracy.csv").write_text("model_name,accuracy\nsmall,0.5\nlarge,0.7\n")
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["export", "--store", "spans.db", "-o", "measurements.csv"]).exit_code == 0
    lines = commands(block_with("llmpower fit"))
    assert len(lines) == 4
    for line in lines:
        arguments = line.split("#")[0].replace(STORE, "spans.db").split()[1:]
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception}"
    assert (tmp_path / "report.html").exists()
    # What two pages show in Python goes on from here.
    header, rest = (tmp_path / "measurements.csv").read_text().split("\n", 1)
    (tmp_path / "trials.csv").write_text(f"{header.replace('input_tokens', 'prompt_len')}\n{rest}")
    for page in ("screening.md", "gateway.md"):
        (block,) = [block for block in blocks(ROOT / "docs" / page) if block.language == "python"]
        exec(compile(block.text, page, "exec"), {})
    assert (tmp_path / "router.json").exists()
    assert (tmp_path / "plan.csv").read_text().count("\n") == 61
