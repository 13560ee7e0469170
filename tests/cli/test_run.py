from __future__ import annotations

import os
import subprocess
import sys
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
