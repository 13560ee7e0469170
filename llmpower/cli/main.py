"""The root command, and the one place where errors become exit codes.

A command's module is named in :data:`COMMANDS` beside its one-line help. Listing the commands therefore imports
none of them; ``tests/cli/test_help.py`` compares the lines here with the commands' own docstrings.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

from llmpower import __version__
from llmpower.exceptions import LlmpowerError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "completion": "Print the script by which a shell completes commands, options, files and names of models.",
    "daemon": "Sample power, receive spans, store joules, serve metrics.",
    "demo": "Run the whole chain on this machine: daemon, model, profile, fit, route, report.",
    "devices": "List every device with its sources, periods and call latencies.",
    "doctor": "Say what can be measured here, what cannot, why, and how to fix it.",
    "export": "Write measurements from a store to CSV, Parquet or JSON lines.",
    "fit": "Fit workload models of energy and runtime to measurements.",
    "predict": "Predict joules and seconds of one query from fitted models.",
    "profile": "Measure a model over a grid of input and output lengths.",
    "report": "Write one self-contained HTML page of fits, measurements and plans.",
    "route": "Assign a workload's queries to models at least cost.",
    "run": "Run any program with transformers instrumented.",
    "service": "Install the daemon as a systemd service, show it, remove it.",
    "simulate": "Replay a trace in time order: the online router against other strategies and the optimum.",
    "status": "Show what the daemon is doing.",
    "top": "Watch watts, requests and joules per token as they come.",
}


PROGRAM, PREFIX = "llmpower", "LLMPOWER"

# Only our own output fails so without a name: files are written by who says which, as an InputError.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


# What only a compiler puts into a checkout.
UNBUILT = re.compile("cannot import name '_(sampler|tally|exchange)'")


class _ReaderGone(Exception):
    """Nobody reads our output any more."""


class FittingContext(click.Context):
    """Writes help as wide as the terminal."""

    def make_formatter(self) -> click.HelpFormatter:
        """Imported when help is asked for."""
        from llmpower.cli.help_text import FittingFormatter

        return FittingFormatter(width=self.terminal_width, max_width=self.max_content_width)


class LazyGroup(click.Group):
    """A group whose commands live in ``llmpower.cli.<name>`` and are imported when asked for."""

    context_class = FittingContext

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (Click's signature)
        """Names of all commands, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (as above)
        """The command object, from the module of the same name."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"llmpower.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        _complete(command, f"{PREFIX}_{cmd_name.upper()}")
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; a reader of our output who goes away is no failure, as Click would have it."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell is offered, from the table: a key pressed must not import every command."""
        from click.shell_completion import CompletionItem

        commands = [CompletionItem(name, help=said) for name, said in COMMANDS.items() if name.startswith(incomplete)]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"auto_envvar_prefix": PREFIX, "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
@click.pass_context
def cli(context: click.Context) -> None:
    """Joules per LLM request: measure them, model them, route by them.

    \b
    Example:
      llmpower demo                          the whole chain on this machine
      llmpower daemon &                      sample power and receive spans
      llmpower run -- python serve.py        measure a program's generate() calls
      llmpower fit measurements.csv          e(τin, τout) and r(τin, τout) per model
    """
    from llmpower.cli.layout import colours_wanted

    # Whether output goes to a terminal Click asks by itself.
    context.color = colours_wanted(os.environ)


def _complete(command: click.Command, prefix: str) -> None:
    """Give a command help that fits, and options the variables that users know; Click names them as our code does."""
    command.context_class = FittingContext
    for option in command.params:
        if isinstance(option, click.Option) and option.envvar is None:
            option.envvar = f"{prefix}_{re.sub('[^A-Za-z0-9]+', '_', option.opts[-1].lstrip('-')).upper()}"
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            _complete(below, f"{prefix}_{name.upper()}")


def main() -> None:
    """Run the command that the arguments name; :mod:`llmpower.__main__` calls it."""
    # Where Python found it closed (`>&-`) there is no stream; what would be printed is not wanted.
    sys.stdout, sys.stderr = (stream or os.fdopen(_nowhere(), "w") for stream in (sys.stdout, sys.stderr))
    # Not every terminal's encoding has ≤ and τ: an escape in their place, as Python itself does on stderr.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = cli(prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except LlmpowerError as error:
        print(f"{_priority()}llmpower: error: {_one_line(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        print(f"llmpower: error: {_one_line(error.format_message())}{_help_hint(error)}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "llmpower"):
            raise
        from llmpower.cli.doctor import EXTRAS

        # What no extra brings pip installs always; the Debian package holds the daemon's dependencies alone.
        extra = next((f"[{extra}]" for extra, (modules, _) in EXTRAS.items() if missing in modules), "")
        advice = f"this command needs it; pip install 'llmpower{extra}' in a Python environment of your own"
        print(f"llmpower: error: {missing} = not installed: {advice}", file=sys.stderr)
        sys.exit(2)
    except ImportError as error:
        if not UNBUILT.search(str(error)):
            raise
        import shlex
        from pathlib import Path

        checkout = str(Path(__file__).parents[2])
        advice = f"its C extension is missing; pip install -e {shlex.quote(checkout)} builds it"
        print(f"llmpower: error: {checkout} = not built: {advice}", file=sys.stderr)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("llmpower: interrupted", file=sys.stderr)
        sys.exit(130)
    except (_ReaderGone, BrokenPipeError):
        # `llmpower … | head`: that is its right.
        _drop_output()
        sys.exit(0)
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        _drop_output()
        said = f"standard output = {error.strerror}: not all was written; make room there, or send it elsewhere"
        print(f"llmpower: error: {said}", file=sys.stderr)
        sys.exit(2)
    # What there is goes with the process; looking through it for garbage first takes 20 ms where NumPy is among it.
    gc.freeze()
    sys.exit(status if isinstance(status, int) else 0)


def _drop_output() -> None:
    """What Python still has to write goes nowhere, or it would complain when it ends."""
    os.dup2(_nowhere(), sys.stdout.fileno())


def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)


def _priority() -> str:
    """What makes the line an error in the journal, for a service that could not start; nothing anywhere else."""
    if "JOURNAL_STREAM" not in os.environ:
        return ""
    from llmpower.daemon.logs import is_journal

    return "<3>" if is_journal(sys.stderr) else ""


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())


def _help_hint(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f" See '{error.ctx.command_path} --help'."
    return ""


if __name__ == "__main__":
    main()
