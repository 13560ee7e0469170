"""A server of OpenAI's API that counts words for tokens and knows the length parameters it is configured to know."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

EARLY = 2
"""Tokens after which it ends an answer of which it does not know that it shall not."""


class Server(ThreadingHTTPServer):
    """Runs in threads from the start until :meth:`close`.

    Args:
        paths: those that it has, below /v1.
        knows: ``vllm``, ``transformers``, or neither.
        strict: refuses fields that it does not know, as transformers does.
        template: tokens that it adds to a prompt.
        streams: whether a stream says its usage.
        key: what it asks for.
        models: their names.
        token_s: seconds that it takes for a token of an answer.
    """

    daemon_threads = True

    def __init__(
        self,
        *,
        paths: tuple[str, ...] = ("completions", "chat/completions"),
        knows: str = "vllm",
        strict: bool = False,
        template: int = 1,
        streams: bool = True,
        key: str | None = None,
        models: tuple[str, ...] = ("tiny",),
        token_s: float = 0.0,
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths, self.knows, self.strict, self.template = paths, knows, strict, template
        self.streams, self.key, self.models, self.token_s = streams, key, models, token_s
        self.bodies: list[Mapping[str, Any]] = []
        self.gate: threading.Barrier | None = None
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        """End."""
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self._answer(200, {"data": [{"id": name} for name in self.server.models]})

    def do_POST(self) -> None:
        server, path = self.server, self.path.removeprefix("/v1/")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
            return self._answer(401, {"error": "no key"})
        if path not in server.paths:
            return self._answer(404, {"error": "no such path"})
        words = {"vllm": {"min_tokens", "ignore_eos"}, "transformers": {"generation_config"}}
        known = words.get(server.knows, set())
        others = set().union(*words.values()) - known
        if server.strict and others & set(body):
            return self._answer(422, {"error": f"unexpected {others & set(body)}"})
        if server.gate:
            server.gate.wait(timeout=20)
        server.bodies.append(body)
        text = body["messages"][0]["content"] if path.startswith("chat") else body["prompt"]
        output_tokens = body["max_tokens"] if known & set(body) else min(body["max_tokens"], EARLY)
        time.sleep(server.token_s * output_tokens)
        usage = {"prompt_tokens": len(text.split()) + server.template, "completion_tokens": output_tokens}
        if not body.get("stream"):
            return self._answer(200, {"choices": [{"text": "x"}], "usage": usage})
        events: list[dict[str, Any]] = [{"choices": [{"text": "x"}]}] * output_tokens
        if path.startswith("chat"):
            deltas = [{"role": "assistant", "content": ""}, *[{"content": "x"}] * output_tokens, {}]
            events = [{"choices": [{"delta": delta}]} for delta in deltas]
        events += [{"choices": [], "usage": usage}] if server.streams else []
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self.send_response(200)
        self.end_headers()
        with suppress(BrokenPipeError):  # the client may have been killed
            self.wfile.write("".join([*lines, "data: [DONE]\n\n"]).encode())
        return None

    def _answer(self, status: int, document: object) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""
