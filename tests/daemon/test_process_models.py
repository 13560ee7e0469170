"""A daemon that compares its requests with models, as its users meet it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from daemon_process import LLMPOWER, Daemon, running
from models_file import make_model, write_models

from llmpower.spans.client import SpanClient


def test_requests_are_held_against_the_models_given(start: Callable[..., Daemon], tmp_path: Path) -> None:
    file = write_models(
        tmp_path,
        make_model("llama", joules_per_token=10.0, system=""),
        make_model("real", joules_per_token=10.0, system="", simulated=False),
    )
    daemon = start(f"--models={file}")
    assert f"requests are compared with {file}: llama (SIMULATED), real" in daemon.log()
    client = SpanClient(daemon.socket)
    for number, model_name in enumerate(("llama", "real", "unheard-of")):
        with running(client, f"span-{number}", model_name=model_name):
            time.sleep(0.6)
    status = daemon.wait_until(lambda status: status["spans"]["stored"] == 3)
    assert status["drift"]["outcomes"] == {"compared": 1, "simulated": 1, "no_model": 1}
    (chart,) = status["drift"]["charts"]
    # 20 tokens at 10 J, against a card that draws 100 to 300 W for 0.6 s.
    assert 50 / 200 < chart["ratio"] < 250 / 200
    samples = daemon.scrape()
    labels = {"model_name": "llama", "sharing": "alone", "simulated": "true"}
    assert daemon.total(samples, "llmpower_model_compared_spans_total", **labels) == 1
    assert daemon.total(samples, "llmpower_model_energy_ratio", **labels) > 0
    told = subprocess.run(
        [*LLMPOWER, "status", f"--socket={daemon.socket}"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "llama (alone) SIMULATED" in told
    assert f"compared    with 2 models of {file}: compared 1, no_model 1, simulated 1\n" in told
    client.close()


def test_models_that_cannot_be_read_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    command = [*LLMPOWER, "daemon", "--backend=simulated", f"--store={tmp_path / 's.db'}", f"--socket={tmp_path / 's'}"]
    ended = subprocess.run(
        [*command, f"--models={tmp_path / 'none.json'}", "--web.listen-address=127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert f"--models = {tmp_path / 'none.json'}: cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr
