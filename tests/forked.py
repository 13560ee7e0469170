"""``llmpower`` run as a process of its own, forked from one that has imported what its commands import.

Importing pandas, SciPy and statsmodels takes longer than most commands take for their work, and hundreds of tests run
one. A process beside each of pytest's imports them once, when the first test asks, and forks for every run: the
command has its own memory, environment, directory and two streams, goes through ``main`` as the console script does,
and ends as a program ends. What is *about* starting (imports, help that must be fast, Python's own variables) starts
the real program instead, as do the tutorial, the README and everything that runs on.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

IMPORTED = (
    *("llmpower.modelling.screening", "llmpower.modelling.streaming", "llmpower.report"),
    *("llmpower.routing", "llmpower.store", "pandas", "scipy.optimize", "statsmodels.api"),
)
MAX_REQUEST_BYTES = 1 << 17  # the environment is most of it
_server: socket.socket | None = None


def run_forked(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """What became of ``llmpower`` with these arguments; ``env`` is its whole environment, by default this process's."""
    command = [str(argument) for argument in arguments]
    request = {"argv": command, "cwd": str(cwd or Path.cwd()), "env": dict(os.environ if env is None else env)}
    server = _started()
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        socket.send_fds(server, [json.dumps(request).encode()], [stdout.fileno(), stderr.fileno()])
        process = int(server.recv(64))
        server.settimeout(timeout_s)
        try:
            status = int(server.recv(64))
        except TimeoutError:
            os.kill(process, signal.SIGKILL)
            server.settimeout(None)
            server.recv(64)
            raise subprocess.TimeoutExpired(["llmpower", *command], timeout_s) from None
        server.settimeout(None)
        said = []
        for stream in (stdout, stderr):
            stream.seek(0)
            said.append(stream.read().decode())
    return subprocess.CompletedProcess(["llmpower", *command], status, *said)


def _started() -> socket.socket:
    """Our end of the server's socket. It ends when we do, which closes this end."""
    global _server
    if _server is None:
        _server, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, __file__, str(theirs.fileno())]
            subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return _server


def _serve(requests: socket.socket) -> None:
    """Fork for each request; answer with the process's number, then with its exit code."""
    fork = multiprocessing.get_context("fork")
    # What is here stays: a process that ends need not look at it, which would copy it page by page.
    gc.freeze()
    while True:
        asked, streams, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 2)
        if not asked:
            return
        process = fork.Process(target=_become, args=(json.loads(asked), streams))
        process.start()
        for stream in streams:
            os.close(stream)
        requests.send(b"%d" % process.pid)
        process.join()
        requests.send(b"%d" % process.exitcode)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Be the command, with the caller's streams, environment and directory."""
    from llmpower.cli.main import main

    for stream, number in zip(streams, (1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.argv = ["llmpower", *request["argv"]]
    main()


if __name__ == "__main__":
    from llmpower.cli.main import COMMANDS

    sys.path.pop(0)  # this folder, which is none of a command's
    for name in (*(f"llmpower.cli.{command}" for command in COMMANDS), *IMPORTED):
        import_module(name)
    _serve(socket.socket(fileno=int(sys.argv[1])))
