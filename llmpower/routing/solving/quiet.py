"""Keeps what a library in C prints out of a document on the standard output.

HiGHS, as scipy ships it, prints a line of its own whenever it repairs a whole-numbered solution, and no option stops
that. ``route --json`` promises one JSON document and nothing else. So the process's standard output is /dev/null for
the moment: what Python and C have in their buffers is written before, and a thread that writes meanwhile is not heard.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_alone = Lock()


@contextmanager
def c_output_dropped() -> Iterator[None]:
    """While the block runs, file descriptor 1 is /dev/null."""
    c = ctypes.CDLL(None)
    with _alone:
        if sys.stdout is not None:
            sys.stdout.flush()
        c.fflush(None)
        try:
            kept = os.dup(1)
        except OSError:  # closed already: there is nothing to keep clean
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        try:
            yield
        finally:
            c.fflush(None)
            os.dup2(kept, 1)
            os.close(kept)
