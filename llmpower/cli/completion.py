"""``llmpower completion``: what a shell needs to complete commands, options and their values."""

from __future__ import annotations

import os
from pathlib import Path

import click

from llmpower.exceptions import InputError

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_LLMPOWER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell: str | None) -> None:
    """Print the script by which a shell completes commands, options, files and names of models.

    Without an argument the shell is that of the variable SHELL. The Debian package installs all three scripts.

    \b
    Example:
      eval "$(llmpower completion bash)"       in ~/.bashrc
      eval "$(llmpower completion zsh)"        in ~/.zshrc, after compinit
      llmpower completion fish > ~/.config/fish/completions/llmpower.fish
    """
    from click.shell_completion import get_completion_class

    from llmpower.cli.main import PROGRAM, cli

    shell = shell or _own_shell()
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, PROGRAM, VARIABLE).source(), nl=False)


def _own_shell() -> str:
    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise InputError("SHELL", name or "not set", f"has no completion; name one of {', '.join(SHELLS)}")
    return name
