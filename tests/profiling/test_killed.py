"""A real campaign beside a real daemon, killed at any moment: what is done is done, and nothing is done twice."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import LLMPOWER, Daemon, Program, wait_until

from llmpower.store import iter_rows

CELLS, TRIALS = 6, 3
KILLED_AT = (1, 7, 14)
"""Trials in the journal."""


@pytest.fixture
def daemon(socket_directory: Path) -> Iterator[Daemon]:
    daemon = Daemon("k", socket_directory, LLMPOWER_SIM_LOAD="constant:200")
    yield daemon
    assert daemon.end() == 0, daemon.log


def trials_in(journal: Path) -> list[dict[str, object]]:
    """Whole lines of trials; a kill may have torn the last one."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    return [line for line in map(json.loads, lines) if "span_id" in line]


def kill_after(campaign: Program, journal: Path, trials: int) -> None:
    """Kill it once there are this many trials."""
    wait_until(lambda: len(trials_in(journal)) >= trials or not campaign.runs, "some trials are done", 120)
    assert campaign.runs, campaign.log
    campaign.process.send_signal(signal.SIGKILL)
    campaign.end()


def test_a_campaign_that_is_killed_again_and_again_ends_as_one_that_was_not(
    daemon: Daemon, serve: Callable[..., Any], tmp_path: Path
) -> None:
    journal = tmp_path / "journal.jsonl"
    command = [*LLMPOWER, "profile", f"--endpoint={serve(token_s=0.01).url}", "--spans=client", "--resume", "--json"]
    command += [f"--socket={daemon.socket}", f"--journal={journal}", "--input-tokens=4,8,16", "--output-tokens=2,8"]
    command += [f"--min-trials={TRIALS}", f"--max-trials={TRIALS}", "--pause=0", "--idle=0.5", "--settle=0"]
    for number, trials in enumerate(KILLED_AT):
        kill_after(Program(f"campaign-{number}", tmp_path, command), journal, trials)
    done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=120)

    document = json.loads(done.stdout)
    assert [cell["trials"] for cell in document["cells"]] == [TRIALS] * CELLS
    assert all(cell["mean_energy_j"] > 0 for cell in document["cells"])
    assert document["idle_before_w"] == pytest.approx(200, rel=0.1)
    assert document["idle_after_w"] == pytest.approx(200, rel=0.1)
    journaled = [str(trial["span_id"]) for trial in trials_in(journal)]
    assert len(set(journaled)) == len(journaled) == CELLS * TRIALS
    wait_until(lambda: daemon.status()["spans"]["pending"] == 0, "all are stored")
    stored = Counter(str(span_id) for (span_id,) in iter_rows(daemon.store, columns=["span_id"]))
    assert set(journaled) <= set(stored)
    assert max(stored.values()) == 1
    # One that had been sent and was not yet in the journal when the kill came, at most, each time.
    assert len(stored) <= CELLS * TRIALS + len(KILLED_AT)
