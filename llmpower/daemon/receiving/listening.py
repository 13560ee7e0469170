"""The socket at which the daemon listens, made where it may be and nowhere else."""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from llmpower.exceptions import InputError
from llmpower.spans.daemon_socket import check_socket_path

OPTION = "--socket"


def listen(path: Path) -> socket.socket:
    """A socket at ``path`` for its owner and group (mode 0660), in place of that of a daemon that died.

    Raises:
        InputError: another daemon answers there, something else lies there, or nothing can be created there.
    """
    check_socket_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        _clear(path)
        listener.bind(os.fspath(path))
        # Before listen(2), so that nobody connects whom the mode would keep out.
        path.chmod(0o660)
        listener.listen(64)
    except OSError as error:
        listener.close()
        advice = f"no socket can be made there ({error.strerror}); give a path in a directory that you may write to"
        raise InputError(OPTION, path, advice) from error
    except InputError:
        listener.close()
        raise
    return listener


def _clear(path: Path) -> None:
    """Remove the socket of a daemon that is no more.

    Raises:
        InputError: a daemon lives there, or it is not a socket.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise InputError(OPTION, path, "this is a file of another kind; move it away, or give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        refused = probe.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
    if not refused:
        raise InputError(OPTION, path, "another daemon answers there; stop it, or give another path")
    path.unlink()
