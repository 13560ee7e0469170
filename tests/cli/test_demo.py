"""``llmpower demo`` as a process that is ended; the whole of it takes minutes and is ``make demo``."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def test_a_demo_that_is_ended_leaves_no_daemon_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log = tmp_path / "daemon.log"
    command = [sys.executable, "-m", "llmpower.cli.main", "demo", "--quick", "--out", str(tmp_path), "--port", port]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as demo:
        while not log.exists() or "metrics http" not in log.read_text():
            assert demo.poll() is None
            time.sleep(0.1)
        demo.terminate()
        assert demo.wait() == 128 + signal.SIGTERM
    assert "stopped; 0 spans stored" in log.read_text().splitlines()[-1]
