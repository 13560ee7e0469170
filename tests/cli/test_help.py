"""The documentation of the command line is part of it, and a gap fails the build."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
from forked import run_forked

from llmpower.cli.main import COMMANDS, FittingContext, cli

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_an_example_and_the_line_that_the_root_shows(name: str) -> None:
    command = import_module(f"llmpower.cli.{name}").command
    assert isinstance(command, click.Command)
    assert command.help is not None
    assert "Example:" in command.help
    assert command.help.strip().startswith(COMMANDS[name].rstrip("."))
    assert all(option.help for option in command.params if isinstance(option, click.Option) and not option.hidden)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_is_no_wider_than_its_terminal_and_examples_still_say_the_same(name: str, columns: int) -> None:
    with cli.make_context("llmpower", [name]) as parent:
        command = cli.get_command(parent, name)
        assert command is not None
        narrow, wide = (
            FittingContext(command, parent, name, terminal_width=room, auto_envvar_prefix="LLMPOWER").get_help()
            for room in (columns, 200)
        )
    assert max(map(len, narrow.splitlines())) <= columns
    assert examples(narrow) == examples(wide)


def examples(text: str) -> list[list[str]]:
    """The commands below Example:, as a shell would read them."""
    below = text.split("Example:\n")[1].split("\n\n")[0]
    return [shlex.split(line) for line in below.replace("\\\n", "").splitlines() if line.strip().startswith("llmpower")]


def test_the_readme_names_the_commands_that_a_newcomer_needs() -> None:
    for name in ("daemon", "run", "profile", "export", "fit", "route", "doctor"):
        assert f"llmpower {name}" in README


def test_the_root_lists_every_command_and_imports_none() -> None:
    program = (
        "import sys; sys.argv = ['llmpower', '--help']\n"
        "from llmpower.cli.main import cli\n"
        "try:\n    cli()\nexcept SystemExit:\n    pass\n"
        "print(*[name for name in sys.modules if name.startswith('llmpower.cli.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert done.stderr.split() == [f"llmpower.cli.{name}" for name in ("main", "layout", "help_text")]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("nonsense",), "nonsense"),
        (("fit",), "SOURCE"),
        (("fit", "x.csv", "--form", "cubic"), "cubic"),
        (("status", "--sockets", "x"), "--sockets"),
        (("devices", "--seconds", "soon"), "soon"),
        (("route",), "--models"),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_code_two(arguments: tuple[str, ...], named: str) -> None:
    done = run_forked(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("llmpower: error: ")
    assert named in done.stderr


def test_options_have_environment_variables() -> None:
    with cli.make_context("llmpower", ["status"]) as context:
        assert context.auto_envvar_prefix == "LLMPOWER"


def test_version() -> None:
    import llmpower

    assert run_forked("--version").stdout.strip() == f"llmpower, version {llmpower.__version__}"
