"""Runs in a container: one span of 0.4 s, and what its program sees of it as JSON on stdout.

Usage: contained.py SOCKET
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import llmpower
from llmpower.spans import SpanClient


def main(path: str) -> None:
    """See the module."""
    client = SpanClient(Path(path))
    with llmpower.span(model_name="contained", client=client) as call:
        time.sleep(0.4)
    found = {
        "span_id": call.span_id,
        "spooled": client.spooled,
        "energy_j": call.energy_j,
        "pid": os.getpid(),
        "uid": os.getuid(),
        "hostname": socket.gethostname(),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "monotonic_s": time.monotonic(),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
