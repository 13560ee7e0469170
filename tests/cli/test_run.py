from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path
from typing import Any

import pytest

from llmpower.spans import SpanClient

PROGRAM = """
import sys
import torch
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(model.generate(torch.arange(3, 9).unsqueeze(0), max_new_tokens=4, do_sample=False).tolist())
sys.exit(7)
"""


def llmpower_run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmpower.cli.main", "run", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that knows nothing of llmpower."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


def test_a_program_is_measured_without_touching_it(receiver: Any, program: Path, tiny_llama_directory: Path) -> None:
    command = [sys.executable, program, tiny_llama_directory]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    result = llmpower_run("--socket", receiver.path, "--", *command)
    assert (result.stdout, result.stderr, result.returncode) == (plain.stdout, plain.stderr, 7)
    (span,) = receiver.wait_for_spans(1)
    assert (span.model_name, span.input_tokens, span.output_tokens) == ("tiny-llama", 6, 4)
    assert span.first_token_ns is not None


CHILDREN = """
import multiprocessing
import subprocess
import sys


def generate(length):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    model.generate(torch.arange(3, 9).unsqueeze(0), max_new_tokens=length, min_new_tokens=length, do_sample=False)


if __name__ == "__main__" and len(sys.argv) == 2:
    through_a_shell = subprocess.Popen(["sh", "-c", f"{sys.executable} -m program {sys.argv[1]} again; exit 5"])
    spawned = multiprocessing.get_context("spawn").Process(target=generate, args=(3,))
    spawned.start()
    spawned.join()
    print(spawned.exitcode, through_a_shell.wait())
elif __name__ == "__main__":
    generate(4)
"""


@pytest.fixture
def foreign_python(tmp_path: Path) -> Path:
    """An environment that has transformers and, where llmpower is installed for editing, no llmpower."""
    venv.create(tmp_path / "theirs", symlinks=True)
    packages = next((tmp_path / "theirs" / "lib").glob("python3*")) / "site-packages"
    # What .pth files add to our own packages, as llmpower, is not added here.
    (packages / "theirs.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return tmp_path / "theirs" / "bin" / "python"


def test_the_processes_that_a_program_of_another_environment_starts_are_measured(
    receiver: Any, tmp_path: Path, foreign_python: Path, tiny_llama_directory: Path
) -> None:
    (tmp_path / "program.py").write_text(CHILDREN)
    command = ["sh", "-c", f"exec {foreign_python} -m program {tiny_llama_directory}"]
    result = llmpower_run("--socket", receiver.path, "--", *command, PYTHONPATH=str(tmp_path))
    assert (result.stdout, result.returncode) == ("0 5\n", 0), result.stderr
    spans = receiver.wait_for_spans(2)
    assert sorted(span.output_tokens for span in spans) == [3, 4]
    assert len({span.pid for span in spans}) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_is_the_programs_own(number: signal.Signals, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    code = f"import signal, sys, pathlib, time; signal.signal({int(number)}, lambda *a: sys.exit(40)); "
    # A signal that comes just before a sleep begins does not end it.
    code += f"pathlib.Path({str(ready)!r}).touch(); [time.sleep(0.1) for _ in range(600)]"
    command = [sys.executable, "-m", "llmpower.cli.main", "run", "--", sys.executable, "-c", code]
    process = subprocess.Popen(command)
    while not ready.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(30) == 40


def test_a_program_that_a_signal_kills_is_seen_to_be_killed() -> None:
    assert llmpower_run("sh", "-c", "kill -9 $$").returncode == -9


def test_standard_input_is_the_programs_own() -> None:
    command = [sys.executable, "-m", "llmpower.cli.main", "run", "--", "cat"]
    assert subprocess.run(command, input=b"through\n", capture_output=True, check=True).stdout == b"through\n"


def test_one_run_within_another_leaves_one_entry_on_the_path(tmp_path: Path) -> None:
    code = "import os; print(os.environ['PYTHONPATH'].split(os.pathsep)[1:], os.environ['LLMPOWER_SYNCHRONISE'])"
    inner = [sys.executable, "-m", "llmpower.cli.main", "run", "--", sys.executable, "-c", code]
    result = llmpower_run("--no-synchronise", "--", *inner, PYTHONPATH=f"{tmp_path}:")
    assert result.stdout == f"{[str(tmp_path), '']} 0\n"


def test_without_a_daemon_the_program_runs_and_one_line_says_so(
    socket_directory: Path, program: Path, tiny_llama_directory: Path
) -> None:
    socket = socket_directory / "nobody.sock"
    result = llmpower_run("--socket", socket, "--", sys.executable, program, tiny_llama_directory)
    assert result.returncode == 7
    (line,) = [line for line in result.stderr.splitlines() if "llmpower" in line]
    assert str(socket) in line
    assert "llmpower daemon" in line


def test_the_program_gets_its_arguments_its_environment_and_our_settings() -> None:
    code = "import os, sys; print(sys.argv[1:], *(os.environ.get(name) for name in sys.argv[1].split(',')))"
    names = "LLMPOWER_MODEL_NAME,LLMPOWER_SOCKET,OTHER"
    result = llmpower_run(
        *("--model-name", "tiny", "--socket", "relative.sock"),
        *(sys.executable, "-c", code, names, "--model-name", "-x", "--"),
        OTHER="kept",
    )
    assert result.stdout == f"{[names, '--model-name', '-x', '--']} tiny {Path.cwd() / 'relative.sock'} kept\n"


def test_the_path_that_the_program_had_stays_behind_ours(tmp_path: Path) -> None:
    result = llmpower_run(
        sys.executable, "-c", "import sitecustomize, theirs; print(theirs.__file__)", PYTHONPATH=str(tmp_path)
    )
    assert "No module named 'theirs'" in result.stderr
    (tmp_path / "theirs.py").touch()
    result = llmpower_run(
        sys.executable, "-c", "import sitecustomize, theirs; print(theirs.__file__)", PYTHONPATH=str(tmp_path)
    )
    assert result.stdout == f"{tmp_path / 'theirs.py'}\n"


def test_a_pipe_that_closes_ends_the_program_as_it_would_in_a_shell() -> None:
    result = llmpower_run("bash", "-c", "kill -PIPE $$; echo survived")
    assert (result.stdout, result.returncode) == ("", -13)


@pytest.mark.parametrize("command", ["no-such-program-here", "/etc/passwd"])
def test_a_command_that_cannot_be_run_is_one_line(command: str) -> None:
    result = llmpower_run("--", command)
    assert (result.stdout, result.returncode) == ("", 2)
    assert result.stderr.startswith(f"llmpower: error: CMD = {command}: cannot be run")
    assert result.stderr.count("\n") == 1


def test_no_command_is_one_line() -> None:
    result = llmpower_run("--model-name", "tiny")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


def test_a_socket_path_that_is_too_long_is_one_line() -> None:
    result = llmpower_run("--socket", "/" + "x" * 120, "--", "true")
    assert result.returncode == 2
    assert "--socket" in result.stderr
    assert SpanClient().dropped == 0
