"""The real vLLM under concurrent chats, with the real daemon listening: nothing patched, nothing imitated."""

from __future__ import annotations

import itertools
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from servers import Daemon, wait_until

CHATS = 50
HOLD_S = 60.0
"""Longer than a chat takes here among 50, on two cores that others use too."""

PROMPTS = ("Hello!", "Count to ten.", "What is a watt, and what is a joule? Explain it to a child in three sentences.")

Start = Callable[[], Daemon]


@pytest.fixture
def start(tmp_path: Path, endpoint: str) -> Iterator[Start]:
    """Starts the daemon, again and again if need be, always in the same places."""
    started: list[Daemon] = []

    def start() -> Daemon:
        options = (f"--otlp.listen-address={urlsplit(endpoint).netloc}", f"--otlp.hold={HOLD_S}")
        started.append(Daemon("daemon", tmp_path, *options))
        return started[-1]

    yield start
    for daemon in started:
        daemon.end()


def rows(daemon: Daemon) -> dict[str, sqlite3.Row]:
    """What the store has, by the id that vLLM's API has given the request."""
    with sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True) as database:
        database.row_factory = sqlite3.Row
        found = database.execute(
            "SELECT *, json_extract(attributes, '$.\"gen_ai.request.id\"') AS request_id FROM measurements"
        ).fetchall()
    assert len({row["request_id"] for row in found}) == len(found), "no request twice"
    return {row["request_id"]: row for row in found}


def chat(vllm: Any, pool: ThreadPoolExecutor, count: int) -> list[Future[dict[str, Any]]]:
    prompts = itertools.cycle(PROMPTS)
    return [pool.submit(vllm.chat, next(prompts), 4 + number % 29) for number in range(count)]


def accepted(daemon: Daemon) -> int:
    return int(daemon.status()["otlp"]["spans"].get("accepted", 0))


def joules(daemon: Daemon) -> dict[str, float]:
    (card,) = daemon.status()["devices"]
    return {name: card[name] for name in ("energy_j", "inference_j", "idle_j", "unattributed_j")}


def agree(answer: dict[str, Any], row: sqlite3.Row) -> None:
    assert row["model_name"] == "smollm2"
    assert row["input_tokens"] == answer["usage"]["prompt_tokens"]
    assert row["output_tokens"] == answer["usage"]["completion_tokens"]


@pytest.mark.timeout(2400)
def test_every_chat_is_measured_and_what_was_acknowledged_survives_a_kill(
    start: Start, request: pytest.FixtureRequest
) -> None:
    daemon = start()
    vllm = request.getfixturevalue("vllm")
    with ThreadPoolExecutor(CHATS) as pool:
        # In the middle of fifty chats the daemon is killed, when it has acknowledged some of them.
        chats = chat(vllm, pool, CHATS)
        wait_until(lambda: accepted(daemon) >= 3, "some chats are accepted", 300)
        assert not all(each.done() for each in chats), "the kill comes in the middle"
        acknowledged = accepted(daemon)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(30)
        assert len(rows(daemon)) < acknowledged, "those are nowhere but in the spool"
        daemon = start()
        first = [each.result() for each in chats]
        wait_until(lambda: len(rows(daemon)) >= CHATS, "all are stored", 3 * HOLD_S)
        found = rows(daemon)
        for answer in first:
            agree(answer, found[answer["id"]])
        # Fifty more, with the same daemon from beginning to end: no joule may be missing.
        wait_until(lambda: daemon.status()["spans"]["pending"] == 0, "the first fifty are settled", 3 * HOLD_S)
        before = joules(daemon)
        second = [each.result() for each in chat(vllm, pool, CHATS)]
    wait_until(lambda: len(rows(daemon)) >= 2 * CHATS, "all are stored", 3 * HOLD_S)
    after, found = joules(daemon), rows(daemon)
    measured = [found[answer["id"]] for answer in second]
    for answer, row in zip(second, measured, strict=True):
        agree(answer, row)
        assert row["gpu_energy_j"] > 0
        assert row["prefill_energy_j"] + row["decode_energy_j"] == pytest.approx(row["gpu_energy_j"])
    used = {name: after[name] - before[name] for name in after}
    assert sum(row["gpu_energy_j"] for row in measured) == pytest.approx(used["inference_j"], rel=1e-6)
    assert used["energy_j"] == pytest.approx(used["inference_j"] + used["idle_j"] + used["unattributed_j"], rel=1e-9)
    status = daemon.status()
    assert status["spans"]["late"] == 0
    assert "refused" not in status["otlp"]["spans"]
    assert status["otlp"]["answers"].keys() == {"200"}
    print(f"\n{CHATS} chats: {used} J; spans {status['otlp']['spans']}; killed with {acknowledged} acknowledged")  # noqa: T201 (the figures, for who runs it)
