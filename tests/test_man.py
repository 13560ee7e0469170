"""Man pages are made from the commands, and readers of man pages have nothing to say against them."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from llmpower.cli.main import COMMANDS, cli

PAGES = dict(runpy.run_path(str(Path(__file__).parents[1] / "docs" / "make_man.py"))["pages"]())
READERS: dict[str, Callable[[Path], list[str]]] = {
    "man": lambda page: ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", str(page)],
    "groff": lambda page: ["groff", "-k", "-man", "-ww", "-Tutf8", str(page)],
    "mandoc": lambda page: ["mandoc", "-T", "lint", "-W", "warning", str(page)],
}


def test_every_command_has_a_page_and_the_first_names_them_all() -> None:
    assert {f"llmpower-{name}.1" for name in COMMANDS} < set(PAGES)
    assert {"llmpower.1", "llmpower-service-install.1"} < set(PAGES)
    assert all(rf"llmpower\-{name}\fR(1)" in PAGES["llmpower.1"] for name in COMMANDS)


def test_a_page_has_every_option_its_variable_and_the_examples() -> None:
    root = click.Context(cli)
    for name in COMMANDS:
        page = PAGES[f"llmpower-{name}.1"].replace(r"\-", "-")
        command = cli.get_command(root, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert all(opt in page for opt in option.opts)
                assert str(option.envvar) in page
        assert ".SH EXAMPLES\n" in page
        assert f"llmpower {name}" in page.partition(".SH EXAMPLES")[2]


@pytest.mark.parametrize("reader", sorted(READERS))
def test_readers_have_nothing_to_say_against_them(reader: str, tmp_path: Path) -> None:
    if shutil.which(reader) is None:
        pytest.skip(f"{reader} is not installed here")
    for name, text in PAGES.items():
        page = tmp_path / name
        page.write_text(text, encoding="utf-8")
        done = subprocess.run(
            READERS[reader](page),
            env=os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.stderr, done.returncode) == ("", 0), f"{name}: {done.stdout}"


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    if shutil.which("man") is None:
        pytest.skip("man is not installed here")
    page = tmp_path / "llmpower-top.1"
    page.write_text(PAGES[page.name], encoding="utf-8")
    environ = os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""}
    shown = subprocess.run(READERS["man"](page), env=environ, capture_output=True, text=True, check=True).stdout
    shown = re.sub("\x1b\\[[0-9;]*m|.\x08", "", shown)
    assert "llmpower top --json --interval 10 | jq '.devices[].power_w'" in shown
    assert "NOW W      the latest reading" in shown
