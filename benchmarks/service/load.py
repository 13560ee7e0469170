"""A program that serves requests: a given number of spans a second, and how long each call that reports one takes.

Spans begin on a schedule that does not wait for anything and last some 20 ms, so that several run on each GPU at any
time. The time of every ``begin()`` and ``finish()`` is kept; at its end the program prints one JSON line.

    python benchmarks/service/load.py SOCKET --rate 5000 --seconds 60 --gpus UUID,UUID,… --models 50
"""

from __future__ import annotations

import argparse
import array
import gc
import json
import os
import time
from collections import deque
from pathlib import Path

from llmpower.spans import SpanClient
from llmpower.types import Span

RUNTIME_NS = 20_000_000
BURST_S = 0.002
"""A schedule of single spans would ask for a timer of 200 µs, which costs the machine more than the spans do."""


def main() -> None:
    """Report spans, then figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("socket", type=Path)
    parser.add_argument("--rate", type=float, default=5000.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--gpus", required=True)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--name", default=str(os.getpid()))
    arguments = parser.parse_args()
    print(json.dumps(run(arguments)))


def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Report spans as the command line says; figures of the calls, in seconds."""
    gpus = arguments.gpus.split(",")
    client = SpanClient(arguments.socket)
    finish_ns, begin_ns = array.array("q"), array.array("q")
    running: deque[tuple[int, int]] = deque()
    number = 0
    # What a program's own rubbish costs it is not what the call costs.
    gc.collect()
    gc.disable()
    start_ns = time.monotonic_ns()
    end_ns = start_ns + round(arguments.seconds * 1e9)
    while (now_ns := time.monotonic_ns()) < end_ns or running:
        due = int((min(now_ns, end_ns) - start_ns) * arguments.rate / 1e9)
        while number < due:
            before_ns = time.perf_counter_ns()
            client.begin(f"{arguments.name}-{number}", time.monotonic_ns())
            begin_ns.append(time.perf_counter_ns() - before_ns)
            running.append((number, time.monotonic_ns()))
            number += 1
        while running and time.monotonic_ns() - running[0][1] >= RUNTIME_NS:
            which, began_ns = running.popleft()
            ended_ns = time.monotonic_ns()
            span = Span(
                span_id=f"{arguments.name}-{which}",
                model_name=f"model-{which % arguments.models}",
                device_uuids=(gpus[which % len(gpus)],),
                start_ns=began_ns,
                first_token_ns=began_ns + RUNTIME_NS // 4,
                end_ns=ended_ns,
                input_tokens=512,
                output_tokens=128,
                batch_size=1,
                hostname="benchmark",
                pid=os.getpid(),
            )
            before_ns = time.perf_counter_ns()
            client.finish(span)
            finish_ns.append(time.perf_counter_ns() - before_ns)
        time.sleep(BURST_S)
    took_s = (time.monotonic_ns() - start_ns) / 1e9
    client.close()
    return {
        "spans": number,
        "spans_per_s": number / took_s,
        "acknowledged": client.spooled,
        "dropped": client.dropped,
        "finish_s": _quantiles(finish_ns),
        "begin_s": _quantiles(begin_ns),
        "cpu_share": time.process_time() / took_s,
    }


def _quantiles(values_ns: array.array[int]) -> dict[str, float]:
    ordered = sorted(values_ns)
    named = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: ordered[min(int(q * len(ordered)), len(ordered) - 1)] / 1e9 for name, q in named.items()}


if __name__ == "__main__":
    main()
