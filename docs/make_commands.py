"""Writes docs/commands.md from the commands' own help; run it after changing an option."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from llmpower.cli.main import COMMANDS, cli

HEAD = """# Commands

Written by `python docs/make_commands.py` from the commands' own help. Every option can also be given as an environment
variable `LLMPOWER_<COMMAND>_<OPTION>`. Exit codes: 0 done, 1 the work failed, 2 the input was wrong.
"""


def main() -> None:
    """Write the page."""
    sections = [HEAD]
    for name in sorted(COMMANDS):
        command = import_module(f"llmpower.cli.{name}").command
        parent = click.Context(cli, info_name="llmpower", auto_envvar_prefix="LLMPOWER")
        with click.Context(
            command, info_name=name, parent=parent, max_content_width=100, terminal_width=100
        ) as context:
            sections.append(f"## llmpower {name}\n\n```\n{command.get_help(context)}\n```\n")
    Path(__file__).with_name("commands.md").write_text("\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
