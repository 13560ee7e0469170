"""``llmpower top`` where nobody watches: one frame, or lines of JSON."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import run_forked
from statuses import answer

TOP = [sys.executable, "-m", "llmpower.cli.main", "top"]


def top(*options: object, **changes: Any) -> subprocess.CompletedProcess[str]:
    return run_forked("top", *options, **changes)


def test_where_output_is_no_terminal_it_is_one_frame(receiver: Any) -> None:
    receiver.status = answer()
    ended = top("--socket", receiver.path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "SIMULATED" in ended.stdout
    assert "figures   since the daemon began" in ended.stdout
    assert "\x1b" not in ended.stdout
    assert top("--socket", receiver.path, "--once").stdout.splitlines()[1:] == ended.stdout.splitlines()[1:]


def test_colours_are_forced_into_a_pipe(receiver: Any) -> None:
    receiver.status = answer()
    ended = top("--socket", receiver.path, env={"PATH": "", "FORCE_COLOR": "1"})
    assert "\x1b[33mSIMULATED" in ended.stdout


def test_json_is_one_object_a_line_until_ctrl_c(receiver: Any) -> None:
    receiver.status = answer(100.0)
    command = [*TOP, "--socket", str(receiver.path), "--json", "--interval", "0.25"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ticks = [json.loads(process.stdout.readline())]
    receiver.status = answer(101.0)
    ticks.append(json.loads(process.stdout.readline()))
    receiver.close()
    while ticks[-1]["connected"]:
        ticks.append(json.loads(process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert (ticks[0]["window_s"], ticks[1]["window_s"]) == (None, 1.0)
    assert ticks[1]["devices"][0]["power_w"] == 251.26
    assert set(ticks[-1]) == {"time", "connected", "lost_s", "error"}


def test_once_in_json_is_one_document(receiver: Any) -> None:
    receiver.status = answer()
    ended = top("--socket", receiver.path, "--once", "--json")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["simulated"] is True


def test_without_a_daemon_it_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for options in ((), ("--json",), ("--once",)):
        ended = top("--socket", tmp_path / "none.sock", *options)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith(f"llmpower: error: --socket = {tmp_path}/none.sock: no daemon answers there")
        assert ended.stderr.count("\n") == 1


def test_a_reader_that_goes_is_no_error(receiver: Any) -> None:
    receiver.status = answer()
    command = [*TOP, "--socket", str(receiver.path), "--json", "--interval", "0.25"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    deadline_s = time.monotonic() + 30
    while process.poll() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    assert process.returncode == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""


@pytest.mark.parametrize(("name", "why"), [("nonsense", "is not known"), ("dumb", "no way to write anywhere")])
def test_a_terminal_that_cannot_be_filled_is_one_line(
    name: str, why: str, receiver: Any, on_terminal: Callable[..., Any]
) -> None:
    receiver.status = answer()
    terminal = on_terminal(*TOP, "--socket", receiver.path, TERM=name)
    assert terminal.wait() == 2
    said = terminal.text.replace("\n", "")
    assert said.startswith(f"llmpower: error: TERM = {name}: such a terminal ")
    assert why in said
    assert said.endswith("or use --once")
    assert terminal.is_as_before()


def test_it_can_be_stopped_and_gone_on_with(receiver: Any, on_terminal: Callable[..., Any]) -> None:
    receiver.status = answer()
    shell = on_terminal("bash", "--norc", "--noprofile", "-i", PS1="$ ")
    shell.type(f"{' '.join(TOP)} --socket {receiver.path} --interval 0.25\r")
    shell.wait_until(lambda text: "REQ IN ALL" in text)
    shell.type("\x1a")
    shell.wait_until(lambda text: "Stopped" in text)
    shell.type("fg\r")
    shell.wait_until(lambda text: "Stopped" not in text and text.startswith("llmpower top"))
    shell.type("q")
    shell.wait_until(lambda text: text.rstrip().splitlines()[-1].startswith("$"))
