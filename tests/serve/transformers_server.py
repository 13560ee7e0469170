"""A real ``transformers serve``, asked over HTTP."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

from servers import LLMPOWER, Daemon, Program, free_port, wait_until


class Server(Program):
    """``transformers serve`` under ``llmpower run``, or as it is where there is no ``daemon`` to tell."""

    def __init__(self, directory: Path, model: Path, daemon: Daemon | None, *options: str) -> None:
        self.port = free_port()
        self.model = model
        serve = [str(Path(sys.executable).with_name("transformers")), "serve", str(model), "--device", "cpu"]
        serve += ["--port", str(self.port), "--host", "127.0.0.1", *options]
        measured = [] if daemon is None else [*LLMPOWER, "run", f"--socket={daemon.socket}", "--"]
        super().__init__("serve", directory, [*measured, *serve], HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        wait_until(lambda: self._healthy() or not self.runs, "the server answers", 280)
        assert self.runs, self.log

    def post(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The answer's JSON documents: one, or those of a stream."""
        body = {"model": str(self.model), **body}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read().decode()
        if not body.get("stream"):
            return [json.loads(text)]
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        return [json.loads(line) for line in lines]

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False
