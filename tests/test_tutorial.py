"""The tutorial, typed: every block in its order, in a fresh directory, with the outputs that the page shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, Block, agrees, blocks

TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.mark.parametrize(
    ("shown", "seen", "varies", "same"),
    [
        ("a 1\n", "a 1\n", False, True),
        ("a 1\n", "a 2\n", False, False),
        ("a 1.5 kJ\n", "a     12,000.25 kJ\n", True, True),
        ("a 1 J\n", "a 1 W\n", True, False),
        ("…\na … c\n…\n", "x\ny\na b c\n", False, True),
        ("…\na … c\n…\n", "x\na b\n", False, False),
        ("a\n", "a\nb\n", False, False),
    ],
)
def test_outputs_are_compared(shown: str, seen: str, varies: bool, same: bool) -> None:
    assert agrees(shown, seen, varies=varies) == same


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    found = list(blocks(TUTORIAL))
    run = [block for block in found if block.language == "sh" and block.is_run]
    assert len(run) > 8
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    work = tmp_path / "first-plan"
    outputs = [tmp_path / f"output-{number}" for number in range(len(run))]
    script = "set -e\ntrap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n"
    for block, output in zip(run, outputs, strict=True):
        script += f"{{\n{block.text}}} > {output} 2>> {tmp_path}/errors\n"
        if block is run[0]:
            script += "".join(f"cat > {file} <<'THE-END'\n{text}THE-END\n" for file, text in files(found))
    result = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    errors = (tmp_path / "errors").read_text()
    assert result.returncode == 0, f"{result.stdout}\n{errors}"
    for block, output in zip(run, outputs, strict=True):
        if block.output is not None:
            seen = output.read_text()
            assert agrees(block.output, seen, varies=block.mark == "output varies"), f"{block.name}:\n{seen}\n{errors}"
    assert (work / "report.html").stat().st_size > 10_000


def files(found: list[Block]) -> list[tuple[str, str]]:
    """What a reader writes by hand."""
    return [(block.mark.removeprefix("file: "), block.text) for block in found if block.mark.startswith("file: ")]


def environment(directory: Path) -> dict[str, str]:
    """That of somebody who has installed llmpower, at ports that nobody else has."""
    commands = directory / "bin"
    commands.mkdir()
    for name, start in (("python", ""), ("llmpower", "-m llmpower.cli.main ")):
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start}"$@"\n')
        (commands / name).chmod(0o755)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("LLMPOWER_")},
        "PATH": f"{commands}:{os.environ['PATH']}",
        "LLMPOWER_DAEMON_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
        "LLMPOWER_DAEMON_OTLP_LISTEN_ADDRESS": "127.0.0.1:0",
    }
