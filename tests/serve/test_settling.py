"""A campaign from a cold card to trials on a warm one, by the command alone."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from servers import LLMPOWER, Daemon

pytestmark = pytest.mark.usefixtures("serving")  # as slow as what needs that: a card is warm after a minute

BUSY_W, MOST_W = 350.0, 400.0
WARM_C = 25 + 45 * BUSY_W / MOST_W
"""Where the simulated card's temperature ends (csrc/sim/thermal.c); NVML tells whole degrees."""


def test_trials_begin_when_the_card_is_warm_and_the_campaign_says_so(
    socket_directory: Path, tiny_llama_directory: Path, tmp_path: Path
) -> None:
    # Power steps up once, when the daemon has started, and stays: the card grows warm for a minute from then on.
    load = tmp_path / "load"
    load.write_text(f"{time.monotonic() + 5} 56\n{1e6} {BUSY_W}\n")
    daemon = Daemon("w", socket_directory, LLMPOWER_SIM_LOAD=f"file:{load}")
    try:
        command = [*LLMPOWER, "profile", str(tiny_llama_directory), "--input-tokens", "8,16", "--output-tokens", "4,8"]
        command += ["--max-trials", "1", "--min-trials", "1", "--ci-half-width", "9", "--idle", "1", "--settle", "150"]
        command += ["--socket", str(daemon.socket), "--journal", str(tmp_path / "journal"), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    finally:
        assert daemon.end() == 0, daemon.log
    assert done.returncode == 0, done.stderr
    assert "not steady" not in done.stderr
    document = json.loads(done.stdout)
    assert document["settled_steady"] == 1
    assert document["settled_drift_c"] <= 1
    assert abs(document["settled_temperature_c"] - WARM_C) <= 4  # a degree in 15 s is as much before the end
    assert document["settled_w"] == pytest.approx(BUSY_W, rel=0.02)
    assert 15 <= document["settled_s"] < 150
    assert [cell["trials"] for cell in document["cells"]] == [1] * 4
    notes = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    assert {"note": "settled_steady", "value": 1.0} in notes
