"""Completion, in the shells themselves where they are installed, and what it costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import run_forked

from llmpower.cli.completion import SHELLS
from llmpower.cli.main import COMMANDS
from llmpower.cli.values import FORMS
from llmpower.modelling.forms import FORM_NAMES

INTERACTIVE = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), 'eval "$(llmpower completion bash)"'),
    "zsh": (("zsh", "-f", "-i"), 'autoload -U compinit; compinit -D; eval "$(llmpower completion zsh)"'),
    "fish": (("fish", "--no-config", "-i"), "llmpower completion fish | source"),
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A directory with ``llmpower`` in it, as a PATH has one."""
    script = tmp_path / "bin" / "llmpower"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m llmpower.cli.main "$@"\n')
    script.chmod(0o755)
    return script.parent


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models.json"
    path.write_text(json.dumps({"models": [{"model_name": name} for name in ("llama-7b", "llama-70b", "mistral")]}))
    return path


def completed(*words: str, incomplete: str = "", **environ: str) -> list[str]:
    """What bash would be offered after ``words``."""
    line = ["llmpower", *words, incomplete]
    asked = {"_LLMPOWER_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(line), "COMP_CWORD": str(len(line) - 1)}
    command = [sys.executable, "-m", "llmpower.cli.main"]
    done = subprocess.run(
        command, env=os.environ | asked | environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_at_the_press_of_a_key(
    shell: str, program: Path, models: Path, on_terminal: Callable[..., Any]
) -> None:
    command, load = INTERACTIVE[shell]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{shell} is not installed here")
    path = f"{program}:{os.environ['PATH']}"
    terminal = on_terminal(*command, PATH=path, PS1="$ ", HOME=str(program), columns=400)
    terminal.type(f"{load}; echo rea''dy\r")
    terminal.wait_until(lambda text: "\nready" in text)
    terminal.type("llmpower predi\t")
    terminal.wait_until(lambda text: "llmpower predict" in text)
    terminal.type(f"--models {models} --model mi\t")
    terminal.wait_until(lambda text: "--model mistral" in text)
    terminal.type("\x03")


def test_commands_come_from_the_table_with_what_they_do() -> None:
    assert completed() == list(COMMANDS)
    assert completed(incomplete="st") == ["status"]


def test_values_are_offered(models: Path, receiver: Any, tmp_path: Path) -> None:
    assert completed("fit", "--form", incomplete="pap") == ["paper", "paper+intercept"]
    assert completed("daemon", "--backend") == ["auto", "nvml", "simulated"]
    assert completed("predict", "--models", str(models), "--model") == ["llama-7b", "llama-70b", "mistral"]
    assert completed("route", "--models", str(models), "--only", incomplete="llama-7") == ["llama-7b", "llama-70b"]
    assert completed("route", "--models", str(models), "--share", incomplete="m") == ["mistral="]
    assert completed("profile", "--form", incomplete="pa") == ["paper"]
    receiver.status = {"models": [{"model_name": "served"}]}
    assert completed("export", "--model", LLMPOWER_SOCKET=str(receiver.path)) == ["served"]
    assert completed("export", "--model", LLMPOWER_SOCKET=str(tmp_path / "none")) == []


@pytest.mark.parametrize("text", [None, "", "[1]", '{"models": 3}', '{"models": [{"model_name": 3}, {}]}'])
def test_a_file_that_is_none_offers_nothing(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "models.json"
    if text is not None:
        path.write_text(text)
    assert completed("predict", "--models", str(path), "--model") == []


def test_forms_are_those_that_are_fitted() -> None:
    assert ("auto", *FORM_NAMES) == FORMS


def test_no_key_pressed_imports_numpy() -> None:
    program = (
        "import sys\n"
        "from click.shell_completion import BashComplete\n"
        "from llmpower.cli.main import COMMANDS, cli\n"
        "shell = BashComplete(cli, {}, 'llmpower', '_LLMPOWER_COMPLETE')\n"
        "for name in COMMANDS:\n"
        "    assert shell.get_completions([name], '--'), name\n"
        "heavy = {'numpy', 'pandas', 'torch', 'msgspec', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_shell_is_the_users_own_unless_it_is_named() -> None:
    def completion(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return run_forked("completion", *arguments, env=os.environ | environ)

    assert completion(SHELL="/usr/bin/fish").stdout == completion("fish").stdout != ""
    refused = completion(SHELL="/bin/sh")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == ("llmpower: error: SHELL = sh: has no completion; name one of bash, zsh, fish\n")
