"""A daemon in a process of its own, as its users meet it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llmpower.spans.client import SpanClient
from llmpower.spans.daemon_socket import request_status
from llmpower.types import Span

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
LLMPOWER = [sys.executable, "-m", "llmpower.cli.main"]


class Daemon:
    """A running ``llmpower daemon`` on the simulated card, whose load is a square wave of 100 and 300 W."""

    def __init__(self, directory: Path, *options: str, **environ: str) -> None:
        self.store = directory / "spans.db"
        self.socket = directory / "s.sock"
        self.errors = directory / "stderr"
        powercap = directory / "powercap"
        powercap.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [
                *LLMPOWER,
                "daemon",
                "--backend=simulated",
                f"--store={self.store}",
                f"--socket={self.socket}",
                "--web.listen-address=127.0.0.1:0",
                "--otlp.listen-address=127.0.0.1:0",
                f"--powercap-root={powercap}",
                *options,
            ],
            env={**os.environ, "LLMPOWER_SIM_LOAD": "square:100,300,0.7", **environ},
            stderr=self.errors.open("w"),
            stdout=subprocess.PIPE,
        )
        # The socket of a daemon that was killed may still lie there; the log is this one's own.
        while "metrics http" not in self.log():
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return self.errors.read_text()

    def status(self) -> dict[str, Any]:
        return request_status(self.socket, 10.0)

    def scrape(self) -> Samples:
        with urllib.request.urlopen(self.status()["metrics_url"], timeout=10) as response:
            text = response.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, samples: Samples, name: str, **labels: str) -> float:
        return sum(
            value for (found, of), value in samples.items() if found == name and labels.items() <= dict(of).items()
        )

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline_s = time.monotonic() + 60
        while not condition(status := self.status()):
            assert time.monotonic() < deadline_s, f"in vain: {status}"
            time.sleep(0.05)
        return status

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def running(client: SpanClient, span_id: str, **fields: Any) -> Iterator[None]:
    """A span around the block, reported as programs report theirs."""
    start_ns = time.monotonic_ns()
    client.begin(span_id, start_ns)
    yield
    end_ns = time.monotonic_ns()
    values: dict[str, Any] = {
        "model_name": "llama",
        "device_uuids": (),
        "first_token_ns": (start_ns + end_ns) // 2,
        "input_tokens": 10,
        "output_tokens": 20,
        "batch_size": 1,
        "hostname": "host",
        "pid": os.getpid(),
    }
    client.finish(Span(span_id=span_id, start_ns=start_ns, end_ns=end_ns, **values | fields))
