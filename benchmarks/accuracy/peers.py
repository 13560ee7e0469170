"""A peer's worker: one tool, asked as its documentation tells users to, for every window and GPU.

The work of a window begins at a known moment. A program calls the tool first and works when the call returns, so each
call at the beginning is made early by what it usually takes; the call at the end is made when the work ends. Where one
window follows the other and a tool has not returned from the first when it would have to be called for the second, it
is not asked about the second: in a real program the work would have waited for it. How far from its moment each call
came is reported with the results.

    python benchmarks/accuracy/peers.py TOOL WINDOWS.json > results.jsonl
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from schedule import read_windows  # beside this file

REHEARSALS = 9
"""Windows before the schedule begins, to learn how long a call at the beginning takes."""

LONGEST_ADVANCE_S = 0.1
TOLERANCE_S = 0.001
"""A call that would come later than this is not made."""

PAUSE_S = 0.3
"""Time before the next window in which a tool may be asked for figures that it gives afterwards."""

ATTEMPTS = 5
"""At starting a tool that gives up when the machine is slow."""

HELD_SAMPLES = 4000
"""Of each GPU: more than any block of windows lasts, and quick to search."""

Joules = list[float | None]
"""Of each GPU, ``None`` where the tool gives no figure."""


class Peer(Protocol):
    """One tool."""

    settings: str
    """How it was set up, for the table."""

    def begin(self) -> None:
        """A window begins."""

    def end(self) -> Joules | Callable[[], Joules]:
        """It has ended; the joules, or how to get them a little later."""


class Counter:
    """nvidia-ml-py: the difference of two reads of the energy counter."""

    settings = "nvmlDeviceGetTotalEnergyConsumption at both ends"

    def __init__(self) -> None:
        import pynvml

        pynvml.nvmlInit()
        self._read = pynvml.nvmlDeviceGetTotalEnergyConsumption
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        self._before_mj: list[int] = []

    def begin(self) -> None:
        """Read."""
        self._before_mj = [self._read(handle) for handle in self._handles]

    def end(self) -> Joules:
        """Read again."""
        after_mj = [self._read(handle) for handle in self._handles]
        return [(after - before) / 1e3 for after, before in zip(after_mj, self._before_mj, strict=True)]


class ZeusWindow:
    """Zeus's ZeusMonitor, which falls back to power × time where the counter did not move, if it can be asked to."""

    def __init__(self) -> None:
        from zeus.device.exception import ZeusBaseGPUError
        from zeus.monitor import ZeusMonitor

        self._monitor = ZeusMonitor(cpu_indices=[], approx_instant_energy=True)
        self.settings = "approx_instant_energy=True"
        try:
            self.begin()
            self.end()
        except ZeusBaseGPUError:  # cards before Ampere do not tell instantaneous power
            self._monitor = ZeusMonitor(cpu_indices=[])
            self.settings = "approx_instant_energy=False (instantaneous power is not supported)"
        self.settings += ", sync_execution=False (no CUDA here)"

    def begin(self) -> None:
        """Open a window."""
        self._monitor.begin_window("window", sync_execution=False)

    def end(self) -> Joules:
        """Close it."""
        measured = self._monitor.end_window("window", sync_execution=False)
        return [measured.gpu_energy[index] for index in self._monitor.gpu_indices]


class ZeusPower:
    """Zeus's PowerMonitor: a process that polls power, integrated over the window.

    Left alone it infers an update period of 0 (a minimum that starts at zero) and polls without a pause; 10 ms is far
    finer than it recommends (50 ms) and more accurate. A card that has neither field 185 nor 186 it cannot monitor.
    """

    def __init__(self) -> None:
        from zeus.device import get_gpus
        from zeus.monitor import PowerMonitor

        self._gpus = range(len(get_gpus()))
        self._monitor: Any = None
        self._began_s = 0.0
        self.settings = "update_period=0.01, device_instant, asked after the window"
        for attempt in range(ATTEMPTS):
            try:
                self._monitor = PowerMonitor(
                    update_period=0.01, power_domains=["device_instant"], max_samples_per_gpu=HELD_SAMPLES
                )
            except ValueError:
                self.settings = "no figure: the card does not answer the fields it needs"
            except RuntimeError:
                # Its process has ten seconds to start, which a machine that starts dozens of tools may not give it.
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            return

    def begin(self) -> None:
        """Note the time."""
        self._began_s = time.time()

    def end(self) -> Callable[[], Joules]:
        """Note the time; the energy is asked for when the polling process has handed over what it saw."""
        began_s, ended_s = self._began_s, time.time()

        def energy() -> Joules:
            if self._monitor is None:
                return [None for _ in self._gpus]
            energy_j = self._monitor.get_energy(began_s, ended_s) or {}
            return [energy_j.get(index) for index in self._gpus]

        return energy


class CodeCarbon:
    """CodeCarbon's tasks, which it offers for parts of a program; their GPU energy is the counter's difference.

    A task reports the sum over GPUs. One task's share of each GPU is what its own device objects added to that sum.
    """

    settings = "OfflineEmissionsTracker, start_task/stop_task, measure_power_secs=1"

    def __init__(self) -> None:
        from codecarbon import OfflineEmissionsTracker

        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",
            measure_power_secs=1,
            save_to_file=False,
            log_level="critical",
            allow_multiple_runs=True,
        )
        self._devices: list[Any] = []

    def begin(self) -> None:
        """Start a task."""
        self._tracker.start_task()

    def end(self) -> Joules:
        """Stop it."""
        task = self._tracker.stop_task()
        if not self._devices:
            from codecarbon.external.hardware import GPU

            (gpus,) = [each for each in self._tracker._hardware if isinstance(each, GPU)]
            self._devices = gpus.devices.devices
        joules = [device.energy_delta.kWh * 3.6e6 for device in self._devices]
        assert abs(sum(joules) - task.gpu_energy * 3.6e6) < 1e-6 * max(sum(joules), 1), "a task is not its GPUs' sum"
        return list(joules)


class Nvitop:
    """nvitop's ResourceMetricCollector: mean power of a tagged part of a program, times its duration."""

    settings = "ResourceMetricCollector(interval=0.1), mean power × duration"

    def __init__(self) -> None:
        from nvitop import Device, ResourceMetricCollector

        self._devices = Device.all()
        self._collector = ResourceMetricCollector(self._devices, interval=0.1)

    def begin(self) -> None:
        """Activate a tag."""
        self._collector.activate(tag="window")

    def end(self) -> Joules:
        """Collect and deactivate."""
        metrics = self._collector.collect()
        self._collector.deactivate(tag="window")
        duration_s = metrics["window/duration (s)"]
        means = [metrics.get(f"window/gpu:{device.index}/power_usage (W)/mean") for device in self._devices]
        return [None if mean is None or mean != mean else mean * duration_s for mean in means]


PEERS: dict[str, tuple[str, type[Any]]] = {
    "nvidia-ml-py": ("nvidia-ml-py", Counter),
    "ZeusMonitor": ("zeus", ZeusWindow),
    "Zeus PowerMonitor": ("zeus", ZeusPower),
    "CodeCarbon": ("codecarbon", CodeCarbon),
    "nvitop": ("nvitop", Nvitop),
}
"""Distribution and class of each tool."""


def rehearse(peer: Peer) -> float:
    """How long a call at the beginning takes, in seconds: the median of a few."""
    took_s = []
    for _ in range(REHEARSALS):
        before_s = time.monotonic()
        peer.begin()
        took_s.append(time.monotonic() - before_s)
        time.sleep(0.02)
        peer.end()
    return min(statistics.median(took_s), LONGEST_ADVANCE_S)


def measure(tool: str, windows_path: Path) -> None:
    """Go through the windows and print one line of JSON for each, then one about the tool."""
    # Tools write what they please to standard output; the results keep a way of their own.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    distribution, make = PEERS[tool]
    peer: Peer = make()
    advance_s = rehearse(peer)
    print(json.dumps({"ready": time.monotonic_ns()}), file=out, flush=True)
    began_late_s, ended_late_s = [], []
    results: dict[int, Joules | Callable[[], Joules]] = {}
    missed = 0
    for number, (start_ns, end_ns, _) in enumerate(read_windows(windows_path)):
        call_ns = start_ns - round(advance_s * 1e9)
        if call_ns - time.monotonic_ns() > PAUSE_S * 1e9:
            _call_in(results)
        _sleep_until(call_ns)
        if time.monotonic_ns() - call_ns > TOLERANCE_S * 1e9:
            missed += 1
            continue
        peer.begin()
        began_late_s.append((time.monotonic_ns() - start_ns) / 1e9)
        _sleep_until(end_ns)
        ended_late_s.append((time.monotonic_ns() - end_ns) / 1e9)
        results[number] = peer.end()
    time.sleep(PAUSE_S)
    _call_in(results)
    for number, joules in results.items():
        print(json.dumps({"window": number, "gpus": [{"energy_j": energy_j} for energy_j in joules]}), file=out)
    about = {
        "version": version(distribution),
        "settings": peer.settings,
        "advance_s": advance_s,
        "missed_windows": missed,
        **_late("began", began_late_s),
        **_late("ended", ended_late_s),
        "cpu_s": time.process_time(),
    }
    print(json.dumps({"about": about}), file=out, flush=True)


def _late(what: str, late_s: list[float]) -> dict[str, float | None]:
    """Median and 99th percentile of how late calls came; null where there were too few."""
    known = len(late_s) > 1
    return {
        f"{what}_late_p50_s": statistics.median(late_s) if known else None,
        f"{what}_late_p99_s": statistics.quantiles(late_s, n=100)[98] if known else None,
    }


def _call_in(results: dict[int, Joules | Callable[[], Joules]]) -> None:
    """Ask for what could not be said at the end of its window."""
    for number, joules in results.items():
        if callable(joules):
            results[number] = joules()


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(moment_ns - time.monotonic_ns(), 0) / 1e9)


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
