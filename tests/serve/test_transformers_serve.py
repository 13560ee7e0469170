"""A real ``transformers serve``, run as its users would, beside a real daemon: the tokens of its bills are ours."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from scripted import word_tokenizer
from servers import Daemon, wait_until
from transformers_server import Server

from llmpower.store import iter_rows

pytestmark = pytest.mark.usefixtures("serving")

WORDS = [f"w{number}" for number in range(5, 120)]
COLUMNS = ("input_tokens", "output_tokens", "model_name", "allocated", "time_to_first_token_s", "prefill_energy_j")


@pytest.fixture
def model(tiny_llama: Any, tiny_llama_directory: Path) -> Path:
    tiny_llama.generation_config.eos_token_id = None
    tiny_llama.save_pretrained(tiny_llama_directory)
    word_tokenizer().save_pretrained(tiny_llama_directory)
    return tiny_llama_directory


def usage(documents: list[dict[str, Any]]) -> tuple[int, int]:
    """What the server says that a request was: prompt and completion tokens."""
    (found,) = [document["usage"] for document in documents if document.get("usage")]
    return found["prompt_tokens"], found["completion_tokens"]


def ask(server: Server, number: int) -> tuple[int, int]:
    """One request of many kinds, and its bill."""
    text = " ".join(WORDS[: 3 + number])
    settings = {"max_tokens": 4 + 2 * number, "temperature": 0, "seed": 1}
    if number % 3 == 0:
        return usage(server.post("/v1/completions", prompt=text, **settings))
    messages = [{"role": "user", "content": text}]
    stream = {"stream": True, "stream_options": {"include_usage": True}} if number % 3 == 1 else {}
    return usage(server.post("/v1/chat/completions", messages=messages, **settings, **stream))


@pytest.mark.parametrize(
    "options",
    [(), ("--continuous-batching", "--cb-num-blocks", "64", "--cb-max-batch-tokens", "256")],
    ids=["one by one", "continuous batching"],
)
def test_every_answer_is_a_measurement_with_the_tokens_of_its_usage(
    options: tuple[str, ...], daemon: Daemon, model: Path, tmp_path: Path
) -> None:
    server = Server(tmp_path, model, daemon, *options)
    try:
        with ThreadPoolExecutor(8) as pool:
            bills = list(pool.map(lambda number: ask(server, number), range(16)))
    finally:
        server.end()
    assert all(prompt > 0 and completion > 0 for prompt, completion in bills)
    assert len(set(bills)) == 16, "each can be told from the others"
    wait_until(lambda: len(measurements(daemon)) >= 16, "all are stored")
    rows = measurements(daemon)
    assert Counter((row["input_tokens"], row["output_tokens"]) for row in rows) == Counter(bills)
    assert {row["model_name"] for row in rows} == {"tiny-llama"}
    assert all(row["time_to_first_token_s"] > 0 for row in rows)
    assert all(row["prefill_energy_j"] is not None for row in rows)
    # One by one the server makes its callers wait for each other; batched, they run side by side.
    assert any(row["allocated"] for row in rows) is bool(options)


def measurements(daemon: Daemon) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in iter_rows(daemon.store, columns=COLUMNS)]
