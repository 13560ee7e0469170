"""``llmpower top`` before a real daemon, on a real terminal."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from daemon_process import LLMPOWER, Daemon, running

from llmpower.spans.client import SpanClient


def test_a_screen_of_a_daemon_that_comes_and_goes(
    start: Callable[..., Daemon], on_terminal: Callable[..., Any]
) -> None:
    daemon = start()
    terminal = on_terminal(*LLMPOWER, "top", "--socket", daemon.socket, "--interval", "0.25")
    terminal.wait_until(lambda text: "REQ IN ALL" in text)
    assert "SIMULATED" in terminal.text
    assert terminal.lines[23].startswith("q: quit")

    client = SpanClient(daemon.socket)
    with running(client, "one"):
        terminal.wait_until(lambda text: "requests  1 running" in text)
        time.sleep(0.3)
    terminal.wait_until(lambda text: any(line.startswith("llama") for line in text.splitlines()))
    card = next(line for line in terminal.lines if line.startswith("0 "))
    # A power between those of the wave, within its sensor's error, and the simulated A100's limit.
    power, limit = card.split()[-8:-6]
    assert 80 < float(power) < 330
    assert float(limit) == 400
    assert "yellow" in terminal.colours or "brown" in terminal.colours

    terminal.resize(120, 30)
    terminal.wait_until(lambda text: "OF LIMIT" in text and terminal.lines[29].startswith("q: quit"))
    terminal.resize(40, 10)
    terminal.wait_until(lambda _: terminal.lines[9].startswith("q: quit"))
    terminal.resize(80, 24)

    daemon.end()
    terminal.wait_until(lambda text: "NO ANSWER for" in text)
    assert "llama" in terminal.text
    again = start()
    terminal.wait_until(lambda text: "NO ANSWER" not in text and f"pid {again.process.pid}" in text)
    terminal.type("a")
    terminal.wait_until(lambda text: "since the daemon began" in text)
    terminal.type("xq")
    assert terminal.wait() == 0
    assert terminal.is_as_before()
    assert b"\x1b[?1049l" in terminal.written  # back to what stood there before
    client.close()


@pytest.mark.parametrize(("typed", "number", "code"), [("\x03", None, 0), ("", signal.SIGTERM, 143)])
def test_however_it_ends_the_terminal_is_left_as_it_was(
    daemon: Daemon, on_terminal: Callable[..., Any], typed: str, number: int | None, code: int
) -> None:
    terminal = on_terminal(*LLMPOWER, "top", "--socket", daemon.socket, NO_COLOR="1")
    terminal.wait_until(lambda text: "REQ IN ALL" in text)
    assert terminal.colours <= {"default"}
    if number is None:
        terminal.type(typed)
    else:
        terminal.process.send_signal(number)
    assert terminal.wait() == code
    assert terminal.is_as_before()
    assert b"\x1b[?1049l" in terminal.written
    assert "Traceback" not in terminal.text
