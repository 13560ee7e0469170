"""``llmpower run``: any program, with transformers instrumented."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from llmpower.exceptions import InputError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--model-name", metavar="N", help="Name on the spans; by default what the model was loaded from.")
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), help="The daemon's socket.")
@click.option(
    "--synchronise/--no-synchronise",
    default=None,
    help="Wait for CUDA at the start, first token and end of a call, so that its times are those of the work. The "
    "default: yes, unless LLMPOWER_SYNCHRONISE is 0.",
)
@click.argument("command_line", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    model_name: str | None, socket_path: Path | None, synchronise: bool | None, command_line: tuple[str, ...]
) -> None:
    """Run any program with transformers instrumented.

    This process becomes the program, unchanged: its signals, exit code and output are its own. Every Python that it
    starts, however it does, measures its generate() calls and batched requests; llmpower need not be installed there.
    Pythons that ignore the environment (python -I, -E, -S) or are given another are not measured.

    \b
    Example:
      llmpower run -- python serve.py --port 8000
      llmpower run --model-name llama-2-7b -- torchrun evaluate.py
      llmpower run -- transformers serve --port 8000
    """
    from llmpower.spans import check_socket_path

    environ = dict(os.environ)
    autoload = str(Path(__file__).parents[1] / "spans" / "autoload")
    # An empty entry is the current directory and stays; ours stays once, where one run starts another.
    theirs = [entry for entry in (environ.get("PYTHONPATH") or autoload).split(os.pathsep) if entry != autoload]
    environ["PYTHONPATH"] = os.pathsep.join([autoload, *theirs])
    if socket_path is not None:
        check_socket_path(socket_path.absolute())
        environ["LLMPOWER_SOCKET"] = str(socket_path.absolute())
    if model_name is not None:
        environ["LLMPOWER_MODEL_NAME"] = model_name
    if synchronise is not None:
        environ["LLMPOWER_SYNCHRONISE"] = str(int(synchronise))
    sys.stdout.flush()
    # Python ignores SIGPIPE, and what is ignored stays so in the program: give it the default that a shell gives.
    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(command_line[0], command_line, environ)
    except OSError as error:
        signal.signal(signal.SIGPIPE, previous)
        advice = f"cannot be run ({(error.strerror or str(error)).lower()}); give a program on PATH, or the path of one"
        raise InputError("CMD", command_line[0], advice) from error
