"""Runs in the guest until it is killed: some threads send spans, and note what becomes of each.

Usage: load.py NOTES SPANS_PER_SECOND

A span is acknowledged when the block around it has ended and the client has counted it as spooled. NOTES gets a line
for each span, its id and whether it is ``acknowledged``, written before the thread starts another.
"""

from __future__ import annotations

import os
import sys
import threading
import time

import llmpower
from llmpower.spans.client import SpanClient

THREADS = 4


def send(notes: int, interval_s: float, number: int) -> None:
    """Send spans by a client of this thread's own."""
    client = SpanClient()
    while True:
        spooled = client.spooled
        with llmpower.span(model_name=f"model-{number}", input_tokens=10, client=client) as span:
            time.sleep(interval_s)
            span.output_tokens = 5
        state = "acknowledged" if client.spooled > spooled else "dropped"
        os.write(notes, f"{span.span_id} {state}\n".encode())


def main(notes: str, spans_per_second: str) -> None:
    """See the module."""
    descriptor = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    interval_s = THREADS / float(spans_per_second)
    threads = [threading.Thread(target=send, args=(descriptor, interval_s, number)) for number in range(THREADS)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
