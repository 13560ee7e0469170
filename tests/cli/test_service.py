from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from llmpower.cli import service

RunCli = Callable[..., subprocess.CompletedProcess[str]]
LLMPOWER = [sys.executable, "-m", "llmpower.cli.main"]


@pytest.fixture
def staged(run_cli: RunCli, tmp_path: Path) -> Path:
    done = run_cli("service", "install", "--root", tmp_path, "--program", "/opt/llmpower/bin/llmpower", "--yes")
    assert done.returncode == 0, done.stderr
    return tmp_path


def states(run_cli: RunCli, root: Path) -> set[str]:
    done = run_cli("service", "show", "--root", root, "--json")
    return {file["state"] for file in json.loads(done.stdout)["files"]}


def test_it_says_what_it_does_does_it_and_undoes_it(run_cli: RunCli, staged: Path) -> None:
    assert states(run_cli, staged) == {"installed"}
    shown = run_cli("service", "show", "--root", staged)
    assert "runs /opt/llmpower/bin/llmpower" in shown.stdout
    done = run_cli("service", "uninstall", "--root", staged, "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step")
    assert f"remove  {staged}/etc/systemd/system/llmpower.service" in done.stdout
    assert done.stdout.endswith("done\n")
    assert states(run_cli, staged) == {"absent"}


def test_a_dry_run_changes_nothing(run_cli: RunCli, tmp_path: Path) -> None:
    command = ("service", "install", "--root", tmp_path, "--program", "/opt/llmpower/bin/llmpower", "--dry-run")
    done = run_cli(*command)
    assert done.returncode == 0, done.stderr
    assert f"write  {tmp_path}/etc/llmpower/llmpower.toml" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 130), (b"y\n", 0)])
def test_it_asks_a_person(tmp_path: Path, answer: bytes, code: int) -> None:
    ours, terminal = os.openpty()
    command = [*LLMPOWER, "service", "install", "--root", str(tmp_path), "--program", "/opt/llmpower/bin/llmpower"]
    asked = subprocess.Popen(command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.write(ours, answer)
    said, _ = asked.communicate(timeout=60)
    assert asked.returncode == code
    assert "Do this?" in said
    assert bool(list(tmp_path.iterdir())) == (code == 0)


def test_a_file_is_shown_as_it_would_be_installed(run_cli: RunCli) -> None:
    done = run_cli("service", "show", "--file", "llmpower.service", "--program", "/srv/llmpower")
    assert "\nExecStart=/srv/llmpower daemon " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("install", "--root", "{0}", "--program", "/opt/llmpower"), "--yes = not given"),
        (("install", "--root", "{0}/none", "--program", "/opt/llmpower", "--yes"), "--root = "),
        (("install", "--root", "{0}", "--program", "/root/llmpower", "--yes"), "--program = /root/llmpower"),
        (("install", "--root", "{0}", "--program", "llmpower", "--yes"), "--program = llmpower"),
        (("uninstall", "--root", "{0}", "--yes"), "service = "),
        (("show", "--file", "none"), "--file = none"),
        (("show", "--root", __file__), f"Invalid value for '--root': Directory '{__file__}' is a file."),
        (("reinstall",), "No such command"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run_cli: RunCli, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = run_cli("service", *(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"llmpower: error: {told}")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exec sleep 600", r"systemctl show \S+ llmpower\.service did not end within 0\.2 s"),
        (
            "echo 'System has not been booted' >&2; exit 1",
            r"systemctl show \S+ .* failed with 1: System has not been booted",
        ),
    ],
)
def test_where_systemctl_does_not_answer_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    be_systemctl(script, tmp_path, monkeypatch)
    monkeypatch.setattr(service, "PATIENCE_S", 0.2)
    shown = CliRunner().invoke(service.command, ["show"], catch_exceptions=False)
    assert re.fullmatch(f"systemd does not say whether it runs: {said}", shown.stdout.splitlines()[-1])
    shown = CliRunner().invoke(service.command, ["show", "--json"], catch_exceptions=False)
    assert json.loads(shown.stdout)["unit"] is None


def test_a_child_that_systemctl_leaves_behind_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    be_systemctl(f"sleep 600 & echo $! > {pid}; echo ActiveState=active", tmp_path, monkeypatch)
    try:
        shown = CliRunner().invoke(service.command, ["show", "--json"], catch_exceptions=False)
        assert json.loads(shown.stdout)["unit"]["ActiveState"] == "active"
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


def be_systemctl(script: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
    (directory / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")


def test_only_root_may_install_and_only_where_systemd_runs(run_cli: RunCli) -> None:
    if Path("/run/systemd/system").is_dir() and os.geteuid() == 0:
        pytest.skip("this would install it")
    done = run_cli("service", "install", "--program", "/bin/true", "--yes")
    assert done.returncode == 2
    assert "systemd = not running" in done.stderr if os.geteuid() == 0 else "use sudo" in done.stderr
