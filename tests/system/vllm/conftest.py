"""The real vLLM on this machine's CPU, for the tests of this folder; they skip where no environment is named.

Puts the helper modules of system tests on the path: tests are collected without packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import Program, free_port, wait_until

HERE = Path(__file__).parent
START_S = 900.0
"""vLLM is up in 50 s on two cores that it has for itself."""


class Vllm(Program):
    """``vllm serve`` with SmolLM2, which tells ``endpoint`` of its requests every second.

    Its sockets go to ``scratch``, whose name is short: vLLM leaves them behind when it ends.
    """

    def __init__(self, python: Path, model: Path, directory: Path, scratch: Path, endpoint: str) -> None:
        self.port = free_port()
        super().__init__(
            "vllm",
            directory,
            [
                "setsid",  # so that nothing of it is left behind
                str(python.with_name("vllm")),
                "serve",
                str(model),
                f"--port={self.port}",
                "--host=127.0.0.1",
                "--served-model-name=smollm2",
                "--max-model-len=1024",
                "--dtype=float32",
                "--enforce-eager",
                f"--otlp-traces-endpoint={endpoint}",
            ],
            VLLM_TARGET_DEVICE="cpu",
            VLLM_CPU_KVCACHE_SPACE="1",
            HF_HUB_OFFLINE="1",
            TMPDIR=str(scratch),
            OTEL_SERVICE_NAME="smollm2",
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
            OTEL_BSP_SCHEDULE_DELAY="1000",
        )
        try:
            wait_until(lambda: self._answers() or not self.runs, "vLLM answers", START_S)
            assert self.runs, self.log
        except BaseException:
            self.end()
            raise

    def chat(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        """What it answers: ``id``, ``usage``, ``choices``."""
        asked = {"model": "smollm2", "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
        with self._open("/v1/chat/completions", json.dumps(asked).encode()) as response:
            return dict(json.load(response))

    def end(self) -> int:
        status = super().end()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return status

    def _open(self, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": "application/json"}
        )
        return urllib.request.urlopen(request, timeout=300)

    def _answers(self) -> bool:
        try:
            with self._open("/health"):
                return True
        except OSError:
            return False


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of the environment that ``install.sh`` has made."""
    if "LLMPOWER_VLLM" not in os.environ:
        pytest.skip("LLMPOWER_VLLM names no environment with vLLM; 'make test-vllm' does")
    return Path(os.environ["LLMPOWER_VLLM"], "bin", "python")


@pytest.fixture(scope="session")
def model(vllm_python: Path) -> Path:
    """SmolLM2 as a directory, made once and kept beside the environment."""
    directory = vllm_python.parents[1] / "smollm2"
    if not (directory / "tokenizer_config.json").exists():
        subprocess.run([str(vllm_python), str(HERE / "make_model.py"), str(directory)], check=True, timeout=600)
    return directory


@pytest.fixture
def endpoint() -> str:
    """Where the daemon takes spans."""
    return f"http://127.0.0.1:{free_port()}/v1/traces"


@pytest.fixture
def vllm(vllm_python: Path, model: Path, tmp_path: Path, socket_directory: Path, endpoint: str) -> Iterator[Vllm]:
    server = Vllm(vllm_python, model, tmp_path, socket_directory, endpoint)
    yield server
    server.end()
