"""The same in real time: a played run as the load of the simulated libnvidia-ml, read by the real sampler.

What ``benchmarks/allocation.py`` leaves out is in it: the sensor's model, calls that take time, phase-locked polling, a
thread that the machine wakes late. A run of it takes as long as what was played.

    python benchmarks/allocation/live.py [--law N] [--concurrency N] [--seconds S]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parent.parent))

from allocation.engine import WORKLOADS, Played, play
from allocation.laws import LAWS
from allocation.replay import DELAY_S, SECOND, STEP_S, Card, Program, make_spans
from allocation.rules import shared
from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.sampling import Sampler, simulated_library

RATE_HZ, START_S, FINISH_S = 100.0, 5.0, 5.0
IDLE_W = 80.0
COLUMNS = ("before_ns", "after_ns", "value", "status", "field")


def main() -> None:
    """Play, serve, settle; print the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--law", type=int, default=1, choices=range(len(LAWS)))
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    law = LAWS[arguments.law]
    played = play(law, WORKLOADS[0], arguments.concurrency, arguments.seconds, arguments.seed)
    card = Card.of(played, IDLE_W)
    begin_ns = time.monotonic_ns() + round(START_S * SECOND)
    durations_s = np.diff(card.moments_s)
    powers_w = np.diff(card.energies_j) / np.maximum(durations_s, 1e-12)
    steps = [(begin_ns / SECOND, IDLE_W), *zip(durations_s.tolist(), powers_w.tolist(), strict=True), (3600.0, IDLE_W)]
    with tempfile.TemporaryDirectory() as folder:
        load = Path(folder) / "load"
        load.write_text("".join(f"{seconds:.9f} {watts:.3f}\n" for seconds, watts in steps if seconds > 0), "ascii")
        os.environ.update(LLMPOWER_SIM_LOAD=f"file:{load}", LLMPOWER_SIM_PRESET="h100", LLMPOWER_SIM_GPUS="1")
        found, ledger, uuid = serve(played, begin_ns, float(card.moments_s[-1]))
    true_j = np.array([request.true_j for request in played.requests])
    energy_j, std_j = np.array([(j.gpu_energy_j, j.gpu_energy_std_j) for j in found], float).T
    print(f"{law.name}, {len(found)} requests, {arguments.concurrency} at a time")
    for name, shares_j in {"llmpower": energy_j, **shared(played, IDLE_W)}.items():
        print(f"{name:16s} {100 * np.abs(shares_j - true_j).sum() / true_j.sum():6.2f} %")
    print(f"covered          {100 * np.mean(np.abs(energy_j - true_j) <= 1.96 * std_j):6.2f} %")
    totals = ledger.totals[uuid]
    print(f"not conserved    {abs(energy_j.sum() - totals.inference_j):.1e} J of {totals.inference_j:.0f} J")


def serve(played: Played, begin_ns: int, seconds: float) -> tuple[list[Joules], Ledger, str]:
    """What the ledger says of every request while the load runs, the ledger, and the card's uuid."""
    sampler = Sampler(backend="nvml", nvml_library=str(simulated_library()), powercap_root=None, rate_hz=RATE_HZ)
    (device,) = sampler.devices
    timeline = Timeline(device)
    ledger = Ledger({device.uuid: timeline})
    spans = []
    for span in make_spans(played):
        moments = {name: begin_ns + (getattr(span, name) or 0) for name in ("start_ns", "first_token_ns", "end_ns")}
        spans.append(replace(span, device_uuids=(device.uuid,), **moments))
    program = Program(spans, ledger)
    found: dict[str, Joules] = {}
    end_ns = begin_ns + round((seconds + FINISH_S) * SECOND)
    with sampler:
        while time.monotonic_ns() < end_ns and len(found) < len(spans):
            time.sleep(STEP_S)
            now_ns = time.monotonic_ns()
            samples = sampler.drain()
            timeline.extend(*(samples[name] for name in COLUMNS))
            program.tell(now_ns)
            for joules in ledger.settle(now_ns - round(DELAY_S * SECOND)):
                found[joules.span.span_id] = joules
    return [found[span.span_id] for span in spans], ledger, device.uuid


if __name__ == "__main__":
    main()
