"""The llmpower worker: its public path from samples and spans to joules, as the daemon takes it.

One process: the sampler's thread at the daemon's rate, and one Python thread that drains, begins, adds and settles in
the daemon's rhythm. The true joules come from here as well, since the simulated library is open in this process.

    python benchmarks/accuracy/ours.py LIBRARY WINDOWS.json > results.jsonl
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from schedule import read_windows  # beside this file

from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.daemon.engine import HOLD_S, SETTLE_DELAY_S
from llmpower.daemon.loop import STEP_S
from llmpower.sampling import Sampler, true_energy_j
from llmpower.types import Device, Span

RATE_HZ = 100.0
"""The daemon's default."""

FINISH_S = 3.0


class Meter:
    """What the daemon does with samples and spans, without its sockets and files."""

    def __init__(self, devices: tuple[Device, ...]) -> None:
        self.devices = devices
        self.joules: dict[str, Joules] = {}
        self._timelines = {device.uuid: Timeline(device, HOLD_S) for device in devices}
        self._ledger = Ledger(self._timelines, HOLD_S)

    def begin(self, window: int, start_ns: int) -> None:
        """A span of every GPU begins."""
        for gpu in range(len(self.devices)):
            self._ledger.begin(f"{window}/{gpu}", start_ns)

    def end(self, window: int, start_ns: int, end_ns: int, first_token_ns: int | None) -> None:
        """It has ended."""
        for gpu, device in enumerate(self.devices):
            span = Span(f"{window}/{gpu}", "m", (device.uuid,), start_ns, first_token_ns, end_ns, 512, 128, 1, "h", 1)
            self._ledger.add(span)

    def step(self, sampler: Sampler, delay_s: float = SETTLE_DELAY_S) -> None:
        """Take in what was sampled and settle what can be settled."""
        now_ns = time.monotonic_ns()
        samples = sampler.drain()
        for device in self.devices:
            own = samples[samples["device"] == device.index]
            columns = (own[name] for name in ("before_ns", "after_ns", "value", "status", "field"))
            self._timelines[device.uuid].extend(*columns)
        for joules in self._ledger.settle(now_ns - round(delay_s * 1e9)):
            self.joules[joules.span.span_id] = joules


def measure(library: str, windows_path: Path) -> None:
    """Go through the windows and print one line of JSON for each, then one about the sampler."""
    windows = list(read_windows(windows_path))
    sampler = Sampler(backend="nvml", nvml_library=library, powercap_root=None, rate_hz=RATE_HZ)
    meter = Meter(sampler.devices)
    with sampler:
        print(json.dumps({"ready": time.monotonic_ns()}), flush=True)
        events = sorted(
            [(start_ns, 1, number) for number, (start_ns, _, _) in enumerate(windows)]
            + [(end_ns, 0, number) for number, (_, end_ns, _) in enumerate(windows)]
        )
        next_step_ns = time.monotonic_ns()
        for moment_ns, begins, number in events:
            while next_step_ns < moment_ns:
                _sleep_until(next_step_ns)
                meter.step(sampler)
                next_step_ns = max(next_step_ns + round(STEP_S * 1e9), time.monotonic_ns())
            _sleep_until(moment_ns)
            if begins:
                meter.begin(number, windows[number][0])
            else:
                meter.end(number, *windows[number])
        deadline_ns = time.monotonic_ns() + round(FINISH_S * 1e9)
        while len(meter.joules) < len(windows) * len(sampler.devices) and time.monotonic_ns() < deadline_ns:
            time.sleep(STEP_S)
            meter.step(sampler)
        for number, (start_ns, end_ns, _) in enumerate(windows):
            print(json.dumps({"window": number, "gpus": _results(meter, Path(library), number, start_ns, end_ns)}))
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


def _results(meter: Meter, library: Path, number: int, start_ns: int, end_ns: int) -> list[dict[str, object]]:
    found = []
    for gpu in range(len(meter.devices)):
        joules = meter.joules.get(f"{number}/{gpu}")
        start_j, end_j = true_energy_j(gpu, start_ns, library), true_energy_j(gpu, end_ns, library)
        assert start_j is not None, "the simulated card does not know its own past"
        assert end_j is not None, "the simulated card does not know its own past"
        found.append(
            {
                "true_j": end_j - start_j,
                "energy_j": None if joules is None else joules.gpu_energy_j,
                "std_j": None if joules is None else joules.gpu_energy_std_j,
                "quality": "unavailable" if joules is None else joules.quality,
            }
        )
    return found


def _sleep_until(moment_ns: int) -> None:
    time.sleep(max(moment_ns - time.monotonic_ns(), 0) / 1e9)


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]))
