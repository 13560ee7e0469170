"""What C prints is kept out of the standard output, and nothing else is."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, sys
from llmpower.routing.solving.quiet import c_output_dropped
c = ctypes.CDLL(None)
print("first", end=" ")
c.printf(b"second ")
try:
    with c_output_dropped():
        c.printf(b"dropped ")
        raise KeyError
except KeyError:
    pass
c.printf(b"third ")
c.fflush(None)
print("last")
"""


def test_only_what_c_prints_within_the_block_is_dropped() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("first second third last\n", "")


def test_a_closed_output_stays_closed() -> None:
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" >&-', sys.executable, PROGRAM], capture_output=True, text=True)
    assert done.stdout == ""
    assert "OSError" not in done.stderr
