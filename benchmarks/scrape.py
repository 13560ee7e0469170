"""What one scrape costs: our server against prometheus_client's, on the same snapshot, in turn.

A node of 8 GPUs and 50 models, every bucket of the histograms with an exemplar, over HTTP on loopback. Prometheus asks
for OpenMetrics and gzip, so that is the row that counts.

    python benchmarks/scrape.py [--gpus 8] [--models 50] [--runs 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import threading
import time
import urllib.request
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CollectorRegistry, MetricsHandler

from llmpower.metrics import DeviceState, FieldState, LlmpowerCollector, MetricsServer, ModelAccounts, Snapshot
from llmpower.types import Device, Measurement, Span

REQUESTS = {
    "text": {"Accept": "text/plain"},
    "text, gzip": {"Accept": "text/plain", "Accept-Encoding": "gzip"},
    "OpenMetrics": {"Accept": "application/openmetrics-text; version=1.0.0"},
    "OpenMetrics, gzip": {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"},
}
Times = tuple[float, float]
"""Wall and processor time, in seconds."""

SPANS_OF_MODEL = 800
"""Enough, spread evenly over the decades, for one in each bucket."""


def main() -> None:
    """Measure, print a table, and write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--models", type=int, default=50)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    snapshot = make_snapshot(arguments.gpus, arguments.models)
    registry = CollectorRegistry()
    registry.register(LlmpowerCollector(lambda: snapshot))
    theirs = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(registry))
    threading.Thread(target=theirs.serve_forever, daemon=True).start()
    with MetricsServer("127.0.0.1", 0, registry) as ours:
        urls = {"llmpower": ours.url, "prometheus_client": f"http://127.0.0.1:{theirs.server_port}/metrics"}
        taken: dict[str, dict[str, list[Times]]] = {row: {name: [] for name in urls} for row in REQUESTS}
        lines = fetch(urls["llmpower"], REQUESTS["text"])[1].count(b"\n")
        for _ in range(arguments.runs):
            for row, headers in REQUESTS.items():
                for name, url in urls.items():
                    taken[row][name].append(fetch(url, headers)[0])
    theirs.shutdown()

    medians = {row: {name: median(times) for name, times in of.items()} for row, of in taken.items()}
    print(
        f"{arguments.gpus} GPUs, {arguments.models} models, {lines} lines; medians of {arguments.runs}, ms wall (CPU)"
    )
    print(f"{'':20}{'llmpower':>16}{'prometheus_client':>20}{'CPU ratio':>12}")
    for row, of in medians.items():
        ours_s, theirs_s = of["llmpower"], of["prometheus_client"]
        shown = [f"{times[0] * 1e3:.1f} ({times[1] * 1e3:.1f})" for times in (ours_s, theirs_s)]
        print(f"{row:20}{shown[0]:>16}{shown[1]:>20}{ours_s[1] / theirs_s[1]:>12.2f}")
    if arguments.json:
        result = {
            "what": "wall and processor time of a scrape over HTTP, medians",
            "gpus": arguments.gpus,
            "models": arguments.models,
            "lines": lines,
            "runs": arguments.runs,
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "median_wall_and_cpu_s": medians,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def median(times: list[Times]) -> Times:
    """Of wall and of processor time, each for itself."""
    wall_s, cpu_s = zip(*times, strict=True)
    return statistics.median(wall_s), statistics.median(cpu_s)


def fetch(url: str, headers: dict[str, str]) -> tuple[Times, bytes]:
    """Seconds that the answer took, and its body as it came."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as response:
        body: bytes = response.read()
    return (time.perf_counter() - start_s, time.process_time() - start_cpu_s), body


def make_snapshot(gpus: int, models: int) -> Snapshot:
    """A busy node."""
    chance = random.Random(0)
    accounts = ModelAccounts()
    for number in range(models):
        name = f"organisation/model-{number}"
        for request in range(SPANS_OF_MODEL):
            accounts.add(_measurement(name, f"{number:016x}{request:016x}", chance))
        for phase in ("prefill", "decode", "unsplit"):
            for kind in ("gpu", "cpu"):
                accounts.book(name, phase, kind, chance.uniform(1e3, 1e6))
    return Snapshot(
        version="0",
        backend="nvml",
        devices=tuple(_device(number, chance) for number in range(gpus)),
        models=accounts.freeze(),
    )


def _measurement(model_name: str, span_id: str, chance: random.Random) -> Measurement:
    span = Span(
        span_id=span_id,
        model_name=model_name,
        device_uuids=(),
        start_ns=0,
        first_token_ns=None,
        end_ns=round(10 ** chance.uniform(6.5, 12)),
        input_tokens=512,
        output_tokens=128,
        batch_size=1,
        hostname="node",
        pid=1,
    )
    return Measurement(
        span=span,
        system="1× card",
        started_at=datetime.now(UTC),
        gpu_energy_j=10 ** chance.uniform(-1.5, 6),
        gpu_energy_std_j=1.0,
        cpu_energy_j=None,
        cpu_energy_std_j=None,
        prefill_energy_j=None,
        decode_energy_j=None,
        quality=chance.choice(("measured", "interpolated", "modelled")),
        method="counter",
        allocated=False,
        simulated=False,
    )


def _device(number: int, chance: random.Random) -> DeviceState:
    uuid = f"GPU-{number:08x}-0000-4000-8000-000000000000"
    return DeviceState(
        Device(uuid, number, "NVIDIA H100 80GB HBM3", "gpu", False, True, True, "550.54.15", number=number),
        chance.uniform(100, 700),
        chance.uniform(1e6, 1e8),
        5e5,
        4e5,
        {"stalled": 0.0},
        {name: FieldState("ok", 100.0, 99.5, True, 0.001, 0.1) for name in ("energy", "power_instant")},
    )


if __name__ == "__main__":
    main()
