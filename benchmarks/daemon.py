"""How light the daemon is, compared with nvitop-exporter on one simulated node of 8 GPUs, idle and under load.

Both run at the same time against the same simulated library and are scraped alike. Then the daemon alone takes spans,
5,000 a second and after that 500, from a program whose calls are timed. Bars are in the table; what fails one fails the
run (exit code 1).

    python benchmarks/daemon.py [--minutes 30] [--seconds 60] [--json benchmarks/results/daemon.json]

Socket and spool lie in memory (/dev/shm), as /run does on a server; the database lies on the disk of --directory.
Figures are the machine's as well as ours: where something else runs (the load average is kept with the figures), times
of calls are those of a busy machine, and processor time counts caches that others have emptied.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from service.processes import Watch

from llmpower.sampling.simulator import simulated_library
from llmpower.spans import request_status
from llmpower.store import iter_rows

HERE = Path(__file__).parent
PEER = HERE.parent / ".venv-bench" / "bin" / "nvitop-exporter"
GPUS, MODELS = 8, 50
SIMULATION = {"LLMPOWER_SIM_GPUS": str(GPUS), "LLMPOWER_SIM_LOAD": "square:100,300,0.7", "LLMPOWER_SIM_PRESET": "h100"}
SETTLE_S = 20.0
"""Calibration and the imports' memory are behind both by then."""

SCRAPE_EVERY_S = 5.0

BARS = {
    "idle_rss_mb": 60.0,
    "idle_cpu_percent": 2.0,
    "load_shortfall_percent": 1.0,
    "load_lost": 0,
    "load_finish_p99_us": 100.0,
    "scrape_ms": 25.0,
    "steady_rss_growth_mb": 2.0,
}
"""None may be exceeded."""


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(url: str) -> tuple[float, int]:
    """Seconds and bytes of one scrape."""
    start_s = time.perf_counter()
    with urllib.request.urlopen(url, timeout=30) as response:
        size = len(response.read())
    return time.perf_counter() - start_s, size


@contextmanager
def process(command: list[str], log: Path, **environ: str) -> Iterator[int]:
    """A program in the background, ended with the block; its pid."""
    with log.open("w") as errors:
        program = subprocess.Popen(command, env={**os.environ, **environ}, stdout=errors, stderr=errors)
    try:
        yield program.pid
    finally:
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(30)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def wait_for(url: str, log: Path) -> None:
    """Until somebody answers there."""
    deadline_s = time.monotonic() + 60
    while True:
        try:
            scrape(url)
            return
        except OSError:
            if time.monotonic() > deadline_s:
                sys.exit(f"nobody answers at {url}:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)


class Node:
    """The daemon on a simulated node, and what it is asked."""

    def __init__(self, stack: ExitStack, memory: Path, disk: Path) -> None:
        self.socket, self.store = memory / "s.sock", disk / "spans.db"
        self.url = f"http://127.0.0.1:{free_port()}/metrics"
        log = disk / "daemon.log"
        command = [sys.executable, "-m", "llmpower.cli.main", "daemon", "--backend=simulated", f"--store={self.store}"]
        command += [f"--socket={self.socket}", f"--web.listen-address={self.url[7:].partition('/')[0]}"]
        self.pid = stack.enter_context(process(command, log, **SIMULATION))
        wait_for(self.url, log)
        devices = request_status(self.socket, 30.0)["devices"]
        self.gpus = ",".join(device["uuid"] for device in devices if device["kind"] == "gpu")

    def load(self, rate: float, seconds: float, name: str) -> subprocess.Popen[str]:
        """A program that reports spans."""
        command = [sys.executable, str(HERE / "service" / "load.py"), str(self.socket), "--gpus", self.gpus]
        command += ["--rate", str(rate), "--seconds", str(seconds), "--models", str(MODELS), "--name", name]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait_until_stored(self) -> None:
        """Until nothing is on its way any more."""
        deadline_s = time.monotonic() + 300
        quiet = 0
        while quiet < 4 and time.monotonic() < deadline_s:
            status = request_status(self.socket, 30.0)
            spans, store = status["spans"], status["store"]
            quiet = 0 if spans["spooled_bytes"] or spans["pending"] or store["waiting"] else quiet + 1
            time.sleep(0.3)

    def stored(self, name: str) -> int:
        """How many of a program's spans the database has."""
        return len(self._rows(name))

    def without_joules(self, name: str) -> int:
        """How many of these were measured too late, or not at all."""
        return sum(energy_j is None for energy_j in self._rows(name))

    def _rows(self, name: str) -> list[object]:
        rows = iter_rows(self.store, columns=("span_id", "gpu_energy_j"))
        return [energy_j for span_id, energy_j in rows if str(span_id).startswith(f"{name}-")]


def idle(node: Node, peer: tuple[int, str] | None, seconds: float) -> dict[str, Any]:
    """Both side by side, without spans."""
    time.sleep(SETTLE_S)
    watched = {"llmpower": (Watch(node.pid), node.url)}
    if peer is not None:
        watched["nvitop-exporter"] = (Watch(peer[0]), peer[1])
    scrapes: dict[str, list[float]] = {name: [] for name in watched}
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for name, (watch, url) in watched.items():
            scrapes[name].append(scrape(url)[0])
            watch.look()
        time.sleep(SCRAPE_EVERY_S)
    return {
        name: asdict(watch.stop()) | {"scrape_p50_s": statistics.median(scrapes[name])}
        for name, (watch, _) in watched.items()
    }


def under_load(node: Node, rate: float, seconds: float, name: str) -> dict[str, Any]:
    """Spans at a rate: what the calls take, what the daemon takes, and what arrives."""
    watch = Watch(node.pid)
    program = node.load(rate, seconds, name)
    while program.poll() is None:
        watch.look()
        time.sleep(1.0)
    output, _ = program.communicate()
    cost = watch.stop()
    node.wait_until_stored()
    figures: dict[str, Any] = json.loads(output)
    rejected = request_status(node.socket, 30.0)["spans"]["rejected"]
    stored = node.stored(name)
    figures |= {"daemon": asdict(cost), "stored": stored, "lost": figures["spans"] - stored, "rejected": rejected}
    figures["without_joules"] = node.without_joules(name)
    return figures | {"daemon_rss_by_second": watch.rss_bytes[:: max(len(watch.rss_bytes) // 60, 1)]}


def scrapes(node: Node, count: int = 50) -> dict[str, Any]:
    """Scrapes of 8 GPUs and 50 models, each of a snapshot of its own: nothing can have been kept."""
    found = []
    for _ in range(count):
        found.append(scrape(node.url))
        time.sleep(0.3)
    seconds = sorted(taken for taken, _ in found)
    return {"p50_s": statistics.median(seconds), "p90_s": seconds[int(0.9 * count)], "bytes": found[-1][1]}


def judge(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each figure that has a bar, and whether it holds."""
    ours, load, steady = result["idle"]["llmpower"], result["load"], result["steady"]
    figures = {
        "idle_rss_mb": ours["rss_max_bytes"] / 2**20,
        "idle_cpu_percent": 100 * ours["cpu_share"],
        "load_shortfall_percent": 100 * (1 - load["spans_per_s"] / result["rate"]),
        "load_lost": load["lost"],
        "load_finish_p99_us": load["finish_s"]["p99"] * 1e6,
        "scrape_ms": result["scrape"]["p50_s"] * 1e3,
        "steady_rss_growth_mb": steady["growth_bytes"] / 2**20,
    }
    return {name: {"figure": value, "bar": BARS[name], "holds": value <= BARS[name]} for name, value in figures.items()}


def main() -> None:
    """Measure, print a table, write the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of load, and of rest")
    parser.add_argument("--minutes", type=float, default=30.0, help="of 500 spans a second")
    parser.add_argument("--rate", type=float, default=5000.0, help="spans a second under load")
    parser.add_argument("--directory", type=Path, help="on whose disk the database lies")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        disk = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        load_before = os.getloadavg()
        node = Node(stack, memory, disk)
        peer = None
        if PEER.exists():
            port, log = free_port(), disk / "peer.log"
            libraries = disk / "lib"
            libraries.mkdir()
            shutil.copy(simulated_library(), libraries / "libnvidia-ml.so.1")
            command = [str(PEER), "-B", "127.0.0.1", "-p", str(port)]
            environ = {"LD_LIBRARY_PATH": str(libraries), **SIMULATION}
            pid = stack.enter_context(process(command, log, **environ))
            peer = pid, f"http://127.0.0.1:{port}/metrics"
            wait_for(peer[1], log)
        result: dict[str, Any] = {
            "what": "the daemon on a simulated node of 8 GPUs, at its default rate, beside nvitop-exporter",
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "rate": arguments.rate,
            "seconds": arguments.seconds,
            "minutes": arguments.minutes,
            "load_average_before": load_before,
            "idle": idle(node, peer, arguments.seconds),
        }
        if peer is not None:
            os.kill(peer[0], signal.SIGTERM)
        result["load"] = under_load(node, arguments.rate, arguments.seconds, "load")
        result["scrape"] = scrapes(node)
        result["steady"] = under_load(node, 500.0, arguments.minutes * 60, "steady")
        memories = result["steady"]["daemon_rss_by_second"]
        # After what came before has been let go of, and what is kept of ten minutes is there.
        result["steady"]["growth_bytes"] = memories[-1] - max(memories[: len(memories) // 3 + 1])
        result["load_average_after"] = os.getloadavg()
    result["bars"] = judge(result)
    report(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(0 if all(bar["holds"] for bar in result["bars"].values()) else 1)


def report(result: dict[str, Any]) -> None:
    """Print the figures."""
    print(f"{'idle, 8 GPUs':24}{'CPU of a core':>16}{'RSS':>12}{'scrape':>12}")
    for name, cost in result["idle"].items():
        memory = f"{cost['rss_max_bytes'] / 2**20:.1f} MB"
        print(f"{name:24}{cost['cpu_share']:>15.2%}{memory:>13}{cost['scrape_p50_s'] * 1e3:>9.1f} ms")
    for kind in ("load", "steady"):
        figures, call, cost = result[kind], result[kind]["finish_s"], result[kind]["daemon"]
        times = ", ".join(f"{name} {call[name] * 1e6:.0f} µs" for name in ("p50", "p99", "p999"))
        print(
            f"\n{kind}: {figures['spans_per_s']:.0f} spans/s, {figures['spans']} sent, {figures['lost']} lost, "
            f"{figures['without_joules']} without joules; "
            f"finish() {times}; daemon {cost['cpu_share']:.0%} of a core, {cost['rss_max_bytes'] / 2**20:.1f} MB"
        )
    scraped = result["scrape"]
    print(f"\nscrape of 8 GPUs x 50 models: {scraped['p50_s'] * 1e3:.1f} ms, {scraped['bytes']} bytes\n")
    for name, bar in result["bars"].items():
        print(f"{'holds' if bar['holds'] else 'FAILS':8}{name:24}{bar['figure']:>10.2f}  (bar {bar['bar']})")


if __name__ == "__main__":
    main()
