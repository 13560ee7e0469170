"""The llmpower worker: its public path from samples and spans to joules, as the daemon takes it.

One process: the sampler's thread at the daemon's rate, and one Python thread that drains, begins, adds and settles in
the daemon's rhythm. The true joules come from here as well, since the simulated library is open in this process. What
was sampled is kept for replay.py, which settles it again without waiting for it.

    python benchmarks/accuracy/ours.py LIBRARY WINDOWS.json SAMPLES.npz > results.jsonl
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from schedule import Moments, read_windows  # beside this file

from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.daemon.accounting.engine import HOLD_S, SETTLE_DELAY_S
from llmpower.daemon.pace import STEP_S
from llmpower.sampling import Sampler, true_energy_j
from llmpower.types import Device, Span

RATE_HZ = 100.0
"""The daemon's default."""

FINISH_S = 30.0
"""For so long the last windows are waited for; they take about a second."""

Event = tuple[int, int, int]
"""A moment, whether a window begins then (1) or ends (0), and its number."""


class Meter:
    """What the daemon does with samples and spans, without its sockets and files."""

    def __init__(self, devices: Sequence[Device], windows: Sequence[Moments]) -> None:
        self.devices = devices
        self.joules: dict[str, Joules] = {}
        self._windows = windows
        self._timelines = {device.uuid: Timeline(device, HOLD_S) for device in devices}
        self._ledger = Ledger(self._timelines, HOLD_S)

    @property
    def done(self) -> bool:
        """Whether every window of every GPU is settled."""
        return len(self.joules) == len(self._windows) * len(self.devices)

    def events(self) -> list[Event]:
        """Beginnings and ends of the windows in order."""
        begins = [(start_ns, 1, number) for number, (start_ns, _, _) in enumerate(self._windows)]
        ends = [(end_ns, 0, number) for number, (_, end_ns, _) in enumerate(self._windows)]
        return sorted(begins + ends)

    def happen(self, event: Event) -> None:
        """A span of every GPU begins or has ended."""
        _, begins, window = event
        start_ns, end_ns, first_token_ns = self._windows[window]
        for gpu, device in enumerate(self.devices):
            span_id = f"{window}/{gpu}"
            if begins:
                self._ledger.begin(span_id, start_ns)
            else:
                span = Span(span_id, "m", (device.uuid,), start_ns, first_token_ns, end_ns, 512, 128, 1, "h", 1)
                self._ledger.add(span)

    def step(self, samples: NDArray[np.void], now_ns: int) -> None:
        """Take in what was sampled and settle what can be settled."""
        for device in self.devices:
            own = samples[samples["device"] == device.index]
            columns = (own[name] for name in ("before_ns", "after_ns", "value", "status", "field"))
            self._timelines[device.uuid].extend(*columns)
        for joules in self._ledger.settle(now_ns - round(SETTLE_DELAY_S * 1e9)):
            self.joules[joules.span.span_id] = joules

    def result(self, window: int, gpu: int) -> dict[str, object]:
        """What was found for one window of one GPU."""
        joules = self.joules.get(f"{window}/{gpu}")
        return {
            "energy_j": None if joules is None else joules.gpu_energy_j,
            "std_j": None if joules is None else joules.gpu_energy_std_j,
            "quality": "unavailable" if joules is None else joules.quality,
        }


def measure(library: Path, windows_path: Path, samples_path: Path) -> None:
    """Go through the windows and print one line of JSON for each, then one about the sampler."""
    windows = list(read_windows(windows_path))
    sampler = Sampler(backend="nvml", nvml_library=str(library), powercap_root=None, rate_hz=RATE_HZ)
    meter = Meter(sampler.devices, windows)
    drains: list[tuple[int, NDArray[np.void]]] = []

    def step() -> None:
        drains.append((time.monotonic_ns(), sampler.drain()))
        now_ns, samples = drains[-1]
        meter.step(samples, now_ns)

    with sampler:
        print(json.dumps({"ready": time.monotonic_ns()}), flush=True)
        next_step_ns = time.monotonic_ns()
        for event in meter.events():
            while next_step_ns < event[0]:
                _sleep_until(next_step_ns)
                step()
                next_step_ns = max(next_step_ns + round(STEP_S * 1e9), time.monotonic_ns())
            _sleep_until(event[0])
            meter.happen(event)
        deadline_ns = time.monotonic_ns() + round(FINISH_S * 1e9)
        while not meter.done and time.monotonic_ns() < deadline_ns:
            time.sleep(STEP_S)
            step()
        for number, (start_ns, end_ns, _) in enumerate(windows):
            gpus = [
                {"true_j": _true_j(gpu, start_ns, end_ns, library), **meter.result(number, gpu)}
                for gpu in range(len(meter.devices))
            ]
            print(json.dumps({"window": number, "gpus": gpus}))
        statistics = sampler.statistics()
        about = {
            "rate_hz": RATE_HZ,
            "effective_hz": dict(statistics.effective_hz),
            "samples": statistics.samples_total,
            "dropped": statistics.dropped_total,
            "cpu_s": time.process_time(),
            "settings": f"daemon's default {RATE_HZ:g} Hz, settled every {STEP_S:g} s",
        }
        print(json.dumps({"about": about}), flush=True)
    np.savez(
        samples_path,
        devices=json.dumps([asdict(device) for device in meter.devices]),
        now_ns=[now_ns for now_ns, _ in drains],
        counts=[len(samples) for _, samples in drains],
        samples=np.concatenate([samples for _, samples in drains]),
    )


def _true_j(gpu: int, start_ns: int, end_ns: int, library: Path) -> float:
    start_j, end_j = true_energy_j(gpu, start_ns, library), true_energy_j(gpu, end_ns, library)
    assert start_j is not None, "the simulated card does not know its own past"
    assert end_j is not None, "the simulated card does not know its own past"
    return end_j - start_j


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(moment_ns - time.monotonic_ns(), 0) / 1e9)


if __name__ == "__main__":
    measure(*(Path(argument) for argument in sys.argv[1:4]))
