"""The programs of these tests, each a process of its own that is asked from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmpower.exceptions import DaemonUnreachableError
from llmpower.spans.daemon_socket import request_status

LLMPOWER = [sys.executable, "-m", "llmpower.cli.main"]


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Return once ``condition()`` is true.

    Raises:
        AssertionError: it has not become so in ``seconds``.
    """
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {seconds:.0f} s in vain until {what}"
        time.sleep(0.1)


def free_port() -> int:
    """A port of loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Program:
    """A process whose output goes to a file."""

    def __init__(self, name: str, directory: Path, command: list[str], **environ: str) -> None:
        self.log_file = directory / f"{name}.log"
        self._stderr = self.log_file.open("w")
        self.process = subprocess.Popen(
            command, env=os.environ | environ, stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr
        )

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def end(self) -> int:
        """Ask it to end, and return its exit status."""
        if self.runs:
            self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(30)
        finally:
            self._stderr.close()


class Daemon(Program):
    """``llmpower daemon`` on simulated cards."""

    def __init__(self, name: str, directory: Path, *options: str, **environ: str) -> None:
        self.port = free_port()
        self.socket = directory / f"{name}.sock"
        self.store = directory / f"{name}.db"
        command = [
            *LLMPOWER,
            "daemon",
            "--backend=simulated",
            f"--socket={self.socket}",
            f"--store={self.store}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--otlp.listen-address=127.0.0.1:0",
            *options,
        ]
        super().__init__(name, directory, command, **environ)
        wait_until(lambda: self._answers() or not self.runs, f"{name} answers")
        assert self.runs, self.log

    def status(self) -> dict[str, Any]:
        """What it says to ``llmpower status``."""
        return request_status(self.socket, 10.0)

    def _answers(self) -> bool:
        try:
            return bool(self.status())
        except DaemonUnreachableError:
            return False


class Prometheus(Program):
    """A real Prometheus on loopback, with its database in ``directory``."""

    def __init__(self, directory: Path, config: Path) -> None:
        port = free_port()
        self._url = f"http://127.0.0.1:{port}"
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ]
        super().__init__("prometheus", directory, command)
        wait_until(lambda: self._ready() or not self.runs, "Prometheus is ready")
        assert self.runs, self.log

    def get(self, path: str, **parameters: str) -> Any:
        """The ``data`` of its HTTP API's answer.

        Raises:
            AssertionError: it answers with an error, such as a query that does not parse.
        """
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        return list(self.get("query", query=expr)["result"])

    def value(self, expr: str) -> float | None:
        """The value of a query that has one, or ``None``."""
        found = self.query(expr)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False
