"""``llmpower demo`` as a process that is ended; the whole of it takes minutes and is ``make demo``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmpower.cli import demo

DEMO = [sys.executable, "-m", "llmpower.cli.main", "demo", "--quick"]


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return str(free.getsockname()[1])


def test_a_demo_that_is_ended_leaves_no_daemon_behind(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    command = [*DEMO, "--out", str(tmp_path), "--port", free_port()]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as started:
        while not log.exists() or "metrics http" not in log.read_text():
            assert started.poll() is None
            time.sleep(0.1)
        started.terminate()
        assert started.wait() == 128 + signal.SIGTERM
    assert "stopped; 0 spans stored" in log.read_text().splitlines()[-1]


def test_libraries_show_no_bars_where_there_is_no_terminal(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+b") as stderr:
        command = [*DEMO, "--out", str(tmp_path), "--port", free_port()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as started:
            # The model with random weights is saved before.
            assert started.stdout
            assert any(line.startswith("# Measuring") for line in started.stdout)
            started.terminate()
        stderr.seek(0)
        assert b"%|" not in stderr.read()


DEAF = "import signal, sys, time; signal.signal(15, signal.SIG_IGN); print('deaf', file=sys.stderr); time.sleep(60)"


def test_a_daemon_that_does_not_end_when_it_is_asked_to_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def wait_until_deaf(process: subprocess.Popen[bytes], _: Path, log: Path) -> None:
        processes.append(process)
        while "deaf" not in log.read_text():
            time.sleep(0.01)

    monkeypatch.setattr(demo, "_llmpower", lambda _: [sys.executable, "-u", "-c", DEAF])
    monkeypatch.setattr(demo, "_wait_until_ready", wait_until_deaf)
    monkeypatch.setattr(demo, "READY_S", 0.1)
    with demo._daemon(tmp_path, 0):
        pass
    assert processes[0].returncode == -signal.SIGKILL
