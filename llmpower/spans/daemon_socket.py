"""Where the daemon listens, and how it is asked something.

Programs that send spans never wait for it (:mod:`~llmpower.spans.client`). Whoever asks does: somebody wants to know.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from llmpower.exceptions import DaemonUnreachableError, InputError
from llmpower.spans.packets import MAX_PACKET_BYTES, WireError
from llmpower.spans.replies import decode_measurement, decode_status
from llmpower.spans.spool import spool_directory
from llmpower.spans.wire import MAX_WAIT_MS, MeasurementRequest, Message, StatusRequest, encode
from llmpower.types import Measurement, Span

SYSTEM_SOCKET = Path("/run/llmpower/llmpower.sock")
MAX_SOCKET_PATH_BYTES = 107
"""``sun_path`` holds 108 bytes, the last of them NUL."""

_GRACE_S = 2.0
"""A daemon that rests looks once a second who has waited for long enough."""

_Answer = TypeVar("_Answer")


def default_socket_path(environ: Mapping[str, str] = os.environ, system_socket: Path = SYSTEM_SOCKET) -> Path:
    """Where the daemon is looked for: ``LLMPOWER_SOCKET``, the system's daemon if there is one, the user's own.

    The system's daemon has left its spool there when it is away, in a restart for one: a program that starts meanwhile
    finds it by that, unless the user has a daemon running.
    """
    if named := environ.get("LLMPOWER_SOCKET"):
        return Path(named)
    runtime = environ.get("XDG_RUNTIME_DIR")
    directory = Path(runtime, "llmpower") if runtime else Path(f"/tmp/llmpower-{os.getuid()}")
    own_socket = directory / system_socket.name
    try:
        if system_socket.exists() or (spool_directory(system_socket).is_dir() and not own_socket.exists()):
            return system_socket
    except PermissionError:
        # It is there and closed to us. Going elsewhere would hide that; connecting will say so.
        return system_socket
    return own_socket


def check_socket_path(path: Path) -> None:
    """Refuse a path that no Unix socket can have.

    Raises:
        InputError: it is longer than the kernel allows.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        advice = f"a socket's path holds at most {MAX_SOCKET_PATH_BYTES} bytes, this one has {length}; choose a shorter"
        raise InputError("--socket", path, advice)


def request_status(path: Path, timeout_s: float = 2.0) -> dict[str, Any]:
    """Ask the daemon at ``path`` what it is doing, waiting at most ``timeout_s`` for each step.

    Raises:
        InputError: the path is too long for a socket.
        DaemonUnreachableError: nobody answers there, or not in our language.
    """
    return _ask(path, StatusRequest(), decode_status, timeout_s)


def request_measurement(path: Path, span: Span, timeout_s: float) -> Measurement | None:
    """Ask the daemon at ``path`` what it measured of a span of this user's; ``None`` where it does not know in time.

    The daemon waits for up to ``timeout_s`` seconds until it does, a minute at most.

    Raises:
        InputError: the path is too long for a socket.
        DaemonUnreachableError: nobody answers there, or not in our language.
    """
    request = MeasurementRequest(span.span_id, round(min(max(0.0, timeout_s * 1e3), MAX_WAIT_MS)))
    return _ask(path, request, lambda packet: decode_measurement(packet, span), request.wait_ms / 1e3 + _GRACE_S)


def _ask(path: Path, request: Message, decode: Callable[[bytes], _Answer], timeout_s: float) -> _Answer:
    check_socket_path(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(timeout_s)
            connection.connect(os.fspath(path))
            connection.send(encode(request))
            packet = connection.recv(MAX_PACKET_BYTES + 1)
    except TimeoutError as error:
        advice = f"the daemon did not answer within {timeout_s:g} s; look at its log"
        raise DaemonUnreachableError("--socket", path, advice) from error
    except OSError as error:
        raise DaemonUnreachableError("--socket", path, advice_on(error, path)) from error
    if not packet:
        advice = "the daemon closed the connection without an answer; look at its log"
        raise DaemonUnreachableError("--socket", path, advice)
    try:
        return decode(packet)
    except WireError as error:
        advice = f"what answers is not this version of llmpower ({error}); restart the daemon"
        raise DaemonUnreachableError("--socket", path, advice) from error


def advice_on(error: OSError, path: Path) -> str:
    """Why no daemon answers at ``path``, and what to do about it."""
    if isinstance(error, PermissionError):
        return "this user may not open the daemon's socket; join its group, or start your own 'llmpower daemon'"
    if isinstance(error, BlockingIOError):
        return "the daemon is there and does not keep up; look at 'llmpower status'"
    reason = (error.strerror or str(error)).lower()
    if path == SYSTEM_SOCKET:
        return (
            f"no daemon answers there ({reason}); 'systemctl status llmpower' says why, 'journalctl -u llmpower' more"
        )
    return (
        f"no daemon answers there ({reason}); start one with 'llmpower daemon', or name its socket in LLMPOWER_SOCKET"
    )
