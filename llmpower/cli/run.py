"""``llmpower run``: any program, with transformers instrumented."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click

from llmpower.exceptions import InputError


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--model-name", metavar="N", help="Name that the spans bear; by default what the model was loaded from.")
@click.option("--socket", "socket_path", type=click.Path(path_type=Path), help="The daemon's socket.")
@click.argument("command_line", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(model_name: str | None, socket_path: Path | None, command_line: tuple[str, ...]) -> None:
    """Run any program with transformers instrumented.

    The program is replaced for this one, unchanged: every Python that it starts measures its generate() calls, and
    its exit code is the command's. Pythons that ignore the environment (python -I, -E, -S) are not measured.

    \b
    Example:
      llmpower run -- python serve.py --port 8000
      llmpower run --model-name llama-2-7b -- torchrun train.py
    """
    from llmpower.spans import check_socket_path

    environ = dict(os.environ)
    autoload = str(Path(__file__).parents[1] / "spans" / "autoload")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, [autoload, environ.get("PYTHONPATH")]))
    if socket_path is not None:
        check_socket_path(socket_path.absolute())
        environ["LLMPOWER_SOCKET"] = str(socket_path.absolute())
    if model_name is not None:
        environ["LLMPOWER_MODEL_NAME"] = model_name
    sys.stdout.flush()
    # Python ignores SIGPIPE, and what is ignored stays so in the program: give it the default that a shell gives.
    previous = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(command_line[0], command_line, environ)
    except OSError as error:
        signal.signal(signal.SIGPIPE, previous)
        advice = f"cannot be run ({(error.strerror or str(error)).lower()}); give a program on PATH, or the path of one"
        raise InputError("CMD", command_line[0], advice) from error
