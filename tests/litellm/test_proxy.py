"""LiteLLM's own proxy before two real servers of models, routed by a policy: clients ask for ``llmpower``."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted import word_tokenizer
from servers import Program, free_port, wait_until
from two_models import NAMES, two_models

from llmpower.routing import Workload, make_policy, route, save_policy

ACCESS = "POST /v1/chat/completions"
REQUESTS = 24


@pytest.fixture
def directory(tmp_path: Path, tiny_llama: Any) -> Path:
    """Two models, and a policy that sends half of the queries to each."""
    directory = tmp_path
    tiny_llama.generation_config.eos_token_id = None
    for name in NAMES:
        tiny_llama.save_pretrained(directory / name)
        word_tokenizer().save_pretrained(directory / name)
    workload = Workload.from_tokens([8, 64, 100, 200], [8, 64, 10, 30])
    plan = route(two_models(), workload, {"small": 0.5, "large": 0.7}, shares=dict.fromkeys(NAMES, 0.5))
    save_policy(make_policy(plan), directory / "policy.json")
    return directory


@pytest.fixture
def servers(directory: Path) -> Iterator[dict[str, tuple[int, Program]]]:
    """``transformers serve``, one a model: port and process by name."""
    found = {}
    for name in NAMES:
        port = free_port()
        serve = [str(Path(sys.executable).with_name("transformers")), "serve", str(directory / name), "--device", "cpu"]
        serve += ["--port", str(port), "--host", "127.0.0.1"]
        found[name] = port, Program(name, directory, serve, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    for port, program in found.values():
        wait_until(lambda port=port, program=program: answers(port, "/health") or not program.runs, "it serves", 280)
        assert program.runs, program.log
    yield found
    for _, program in found.values():
        program.end()


class Proxy(Program):
    """``litellm --config``, with the policy in its environment."""

    def __init__(self, environment: Path, directory: Path, ports: dict[str, int]) -> None:
        self.port, self.state = free_port(), directory / "state.json"
        config = {
            "model_list": [
                {
                    "model_name": name,
                    "litellm_params": {
                        "model": f"openai/{directory / name}",
                        "api_base": f"http://127.0.0.1:{port}/v1",
                        "api_key": "none",
                    },
                }
                for name, port in ports.items()
            ],
            "litellm_settings": {"callbacks": ["llmpower.gateways.litellm.routing"]},
        }
        # JSON is YAML.
        (directory / "config.yaml").write_text(json.dumps(config))
        command = [str(environment / "bin" / "litellm"), "--config", str(directory / "config.yaml")]
        super().__init__(
            "proxy",
            directory,
            [*command, "--host", "127.0.0.1", "--port", str(self.port)],
            LLMPOWER_GATEWAY_POLICY=str(directory / "policy.json"),
            LLMPOWER_GATEWAY_STATE=str(self.state),
            LLMPOWER_GATEWAY_PERIOD="100",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
        )
        wait_until(lambda: answers(self.port, "/health/liveliness") or not self.runs, "the proxy serves", 280)
        assert self.runs, self.log

    def served(self) -> int:
        """Queries of the period that the state on the disk knows of."""
        return sum(json.loads(self.state.read_text())["served"]) if self.state.exists() else 0

    def ask(self, model: str, words: int, **body: Any) -> str:
        """What comes back of a chat, as text."""
        message = {"role": "user", "content": " ".join(f"w{5 + number}" for number in range(words))}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/chat/completions",
            data=json.dumps(
                {"model": model, "messages": [message], "temperature": 0, "max_tokens": 6, **body}
            ).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            return str(response.read().decode())


def answers(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_requests_are_shared_between_real_servers_and_learnt_from(
    litellm_environment: Path, directory: Path, servers: dict[str, tuple[int, Program]]
) -> None:
    ports = {name: port for name, (port, _) in servers.items()}
    proxy = Proxy(litellm_environment, directory, ports)
    try:
        ask_and_look(proxy, servers)
    finally:
        proxy.end()
    # A proxy that is started again goes on with its quotas.
    again = Proxy(litellm_environment, directory, ports)
    try:
        for _ in range(4):
            again.ask("llmpower", 6)
        wait_until(lambda: again.served() == REQUESTS + 4, "what is new is saved")
    finally:
        again.end()


def ask_and_look(proxy: Proxy, servers: dict[str, tuple[int, Program]]) -> None:
    def served() -> dict[str, int]:
        return {name: program.log.count(ACCESS) for name, (_, program) in servers.items()}

    before = served()
    for number in range(REQUESTS):
        body = {"stream": True} if number % 3 == 0 else {"metadata": {"tags": ["chat"]}}
        text = proxy.ask("llmpower", 4 + 3 * (number % 8), **body)
        assert "w" in text or "data:" in text
    wait_until(lambda: sum(served().values()) - sum(before.values()) == REQUESTS, "all are in the servers' logs")
    routed = {name: count - before[name] for name, count in served().items()}
    # Whoever asks for a model by its name gets it, and no quota hears of it.
    proxy.ask("small", 5)
    wait_until(lambda: served()["small"] - before["small"] == routed["small"] + 1, "the last is in the log")
    wait_until(lambda: proxy.served() == REQUESTS, "what was learnt is saved")
    state = json.loads(proxy.state.read_text())
    policy = json.loads((proxy.state.parent / "policy.json").read_text())
    assert {model["name"]: count for model, count in zip(policy["models"], state["served"], strict=True)} == routed
    # Every answer was learnt from, streamed ones too, with the tag as its application.
    labels = {label for label, *_ in state["lengths"]}
    assert labels == {None, "chat"}
    learnt = sum(n for label, width, _, n, *_ in state["lengths"] if label is None and width == 2)
    assert learnt == pytest.approx(REQUESTS, rel=0.05)
