"""Joules of requests on eight cards whose counters are slow to read, with and without what their power sensors show.

Each simulated H100 (as measured: a read of its counter takes 2.7 ms, one of its power 5 µs) has requests of its own,
one to six in a row between idle time, of which no two draw the same. All reads share one part of wall time,
`--max-read-share`. What the sampler read is settled twice, in the daemon's rhythm: as it is, and as if the cards had no
power sensor. The true joules are the simulated card's own.

    python benchmarks/slow_counter.py             6 minutes; writes results/slow_counter.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.daemon.accounting.engine import HOLD_S, SETTLE_DELAY_S
from llmpower.daemon.pace import STEP_S
from llmpower.files import write_text
from llmpower.sampling import Sampler, simulated_library, true_energy_j
from llmpower.types import Device, Field, Span

RESULTS = Path(__file__).parent / "results" / "slow_counter.json"
SHARES = (0.02, 0.05, 0.1, 0.16)
IDLE_W, PREFILL_W, DECODE_W = 74.0, 620.0, (200.0, 500.0)
FLICKER_S, FLICKER = 0.01, 0.03
GAP_S = (0.2, 6.0)
REQUESTS = (1, 6)
LENGTHS_S = (0.3, 1.0, 1.0, 3.0, 8.0)
START_S, SETTLED_S, REST_S = 45.0, 3.0, 25.0
"""The sampler finds the counters' updates before the load begins, and the last requests are waited for."""

SPANS_S = ((0.0, 0.5), (0.5, 2.0), (2.0, 5.0), (5.0, 99.0))

Request = tuple[int, int, int, int]
"""Number of its GPU, and start, first token and end in nanoseconds of CLOCK_MONOTONIC."""


def main() -> None:
    """Record all, settle all, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=240.0, help="how long the load lasts")
    parser.add_argument("--shares", default=",".join(f"{each:g}" for each in SHARES))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--record", nargs=2, metavar=("SHARE", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        record(float(arguments.record[0]), Path(arguments.record[1]), arguments.gpus, arguments.seconds)
        return
    shares = [float(each) for each in arguments.shares.split(",")]
    with tempfile.TemporaryDirectory(prefix="llmpower-slow-counter-") as scratch:
        folders = [Path(scratch) / f"{share:g}" for share in shares]
        print(f"about {(START_S + arguments.seconds + REST_S) / 60:.0f} minutes", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, "--gpus", str(arguments.gpus), "--seconds", str(arguments.seconds)]
        recorders = [
            subprocess.Popen([*command, "--record", f"{share:g}", str(folder)])
            for share, folder in zip(shares, folders, strict=True)
        ]
        codes = [recorder.wait() for recorder in recorders]
        if any(codes):
            raise SystemExit("a recording failed")
        rows = [compared(share, folder) for share, folder in zip(shares, folders, strict=True)]
    document = {
        "what": "joules of requests on cards with slow counters, with and without their power sensors",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "gpus": arguments.gpus,
        "rows": rows,
    }
    write_text(arguments.out, json.dumps(document, indent=1) + "\n")
    for row in rows:
        print(f"max-read-share {row['share']:g}: {row['reads_hz']:.1f} reads of a counter a second")
        for name in ("without", "with"):
            print(f"  {name + ' power':14}", "  ".join(_as_text(each) for each in row[name]["spans"]))
            print(f"  {'':14} {100 * row[name]['cpu']:.1f} % of a core")


def record(share: float, folder: Path, gpus: int, seconds: float) -> None:
    """Sample cards whose load is known, and keep what was read."""
    folder.mkdir()
    chance = random.Random(f"slow counter/{gpus}")
    begin_ns = time.monotonic_ns() + round(START_S * 1e9)
    requests = [
        each for gpu in range(gpus) for each in _write_load(folder / f"{gpu}.load", gpu, chance, seconds, begin_ns)
    ]
    os.environ |= {
        "LLMPOWER_SIM_PRESET": "h100-sxm",
        "LLMPOWER_SIM_LATENCY": "preset",
        "LLMPOWER_SIM_GPUS": str(gpus),
        "LLMPOWER_SIM_LOAD": f"file:{folder}/{{gpu}}.load",
    }
    library = folder / "libnvidia-ml.so.1"
    shutil.copyfile(simulated_library(), library)
    drains, rates_hz = [], []
    end_ns = max(end_ns for *_, end_ns in requests) + round(REST_S * 1e9)
    with Sampler(backend="nvml", nvml_library=str(library), powercap_root=None, max_read_share=share) as sampler:
        while time.monotonic_ns() < end_ns:
            time.sleep(STEP_S)
            drains.append((time.monotonic_ns(), sampler.drain()))
            energy = [channel for channel in sampler.channels() if channel.field == Field.ENERGY]
            rates_hz.append([channel.effective_hz for channel in sorted(energy, key=lambda channel: channel.device)])
        true_j = [_true_j(gpu, start_ns, end_ns, library) for gpu, start_ns, _, end_ns in requests]
        devices = [asdict(device) for device in sampler.devices]
    np.savez(
        folder / "reads.npz",
        devices=json.dumps(devices),
        requests=np.array(requests),
        true_j=true_j,
        now_ns=[now_ns for now_ns, _ in drains],
        counts=[len(samples) for _, samples in drains],
        samples=np.concatenate([samples for _, samples in drains]),
        rates_hz=rates_hz,
    )


def _write_load(path: Path, gpu: int, chance: random.Random, seconds: float, begin_ns: int) -> list[Request]:
    """One GPU's script for ``LLMPOWER_SIM_LOAD``, and the requests in it."""
    lines, requests, now_s = [f"{begin_ns / 1e9:.9f} {IDLE_W}"], [], 0.0

    def run(watts: float, duration_s: float) -> int:
        nonlocal now_s
        count = max(1, round(duration_s / FLICKER_S))
        lines.extend(f"{duration_s / count:.9f} {watts * chance.gauss(1, FLICKER):.3f}" for _ in range(count))
        now_s += duration_s
        return begin_ns + round(now_s * 1e9)

    start_ns = run(IDLE_W, SETTLED_S * chance.uniform(1, 2))
    while now_s < seconds:
        start_ns = run(IDLE_W, chance.uniform(*GAP_S))
        for _ in range(chance.randint(*REQUESTS)):
            duration_s = chance.choice(LENGTHS_S) * chance.uniform(0.4, 1.8)
            first_ns = run(PREFILL_W, duration_s * chance.uniform(0.05, 0.3))
            end_ns = run(chance.uniform(*DECODE_W), duration_s - (first_ns - start_ns) / 1e9)
            requests.append((gpu, start_ns, first_ns, end_ns))
            start_ns = end_ns
    lines.append(f"3600 {IDLE_W}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return requests


def _true_j(gpu: int, start_ns: int, end_ns: int, library: Path) -> float:
    start_j, end_j = true_energy_j(gpu, start_ns, library), true_energy_j(gpu, end_ns, library)
    assert start_j is not None, "the simulated card does not know its own past"
    assert end_j is not None, "the simulated card does not know its own past"
    return end_j - start_j


def compared(share: float, folder: Path) -> dict[str, Any]:
    """How far requests were off, without power and with it."""
    with np.load(folder / "reads.npz") as kept:
        recorded = dict(kept)
    found = {name: _figures(recorded, name == "with") for name in ("without", "with")}
    return {"share": share, "reads_hz": float(recorded["rates_hz"][len(recorded["rates_hz"]) // 2 :].mean()), **found}


def _figures(recorded: dict[str, Any], has_power: bool) -> dict[str, Any]:
    devices = [replace(Device(**each), has_power=has_power) for each in json.loads(str(recorded["devices"]))]
    began_s = time.process_time()
    joules = settle(recorded, devices)
    cpu_s = time.process_time() - began_s
    lengths_s = (recorded["requests"][:, 3] - recorded["requests"][:, 1]) / 1e9
    energy_j, std_j = (
        np.array([getattr(each, name) if each else None for each in joules], np.float64)
        for name in ("gpu_energy_j", "gpu_energy_std_j")
    )
    off_j, true_j = energy_j - recorded["true_j"], recorded["true_j"]
    spans = []
    for low_s, high_s in SPANS_S:
        own = (low_s <= lengths_s) & (lengths_s < high_s)
        known = own & ~np.isnan(energy_j)
        relative = off_j[known] / true_j[known]
        spans.append(
            {
                "from_s": low_s,
                "to_s": high_s,
                "requests": int(own.sum()),
                "without_joules": int((own & ~known).sum()),
                "rms": float(np.sqrt(np.mean(relative**2))),
                "median": float(np.median(np.abs(relative))),
                "within_two_deviations": float(np.mean(np.abs(off_j[known]) < 2 * std_j[known])),
            }
        )
    return {"spans": spans, "cpu": cpu_s / float(np.ptp(recorded["now_ns"]) / 1e9)}


def settle(recorded: dict[str, Any], devices: Sequence[Device]) -> list[Joules | None]:
    """What llmpower finds for every request, in the rhythm in which the reads came."""
    timelines = {device.uuid: Timeline(device, HOLD_S) for device in devices}
    ledger = Ledger(timelines, HOLD_S)
    requests = recorded["requests"].tolist()
    events = [(start_ns, 1, number) for number, (_, start_ns, _, _) in enumerate(requests)]
    events += [(end_ns, 0, number) for number, (*_, end_ns) in enumerate(requests)]
    events += [(now_ns, 2, number) for number, now_ns in enumerate(recorded["now_ns"].tolist())]
    steps = np.split(recorded["samples"], np.cumsum(recorded["counts"])[:-1])
    found: list[Joules | None] = [None] * len(requests)
    for now_ns, kind, number in sorted(events):
        if kind == 1:
            ledger.begin(str(number), now_ns)
        elif kind == 0:
            gpu, start_ns, first_ns, end_ns = requests[number]
            ledger.add(Span(str(number), "m", (devices[gpu].uuid,), start_ns, first_ns, end_ns, 512, 128, 1, "h", 1))
        else:
            samples = steps[number]
            for device, rate_hz in zip(devices, recorded["rates_hz"][number].tolist(), strict=True):
                own = samples[samples["device"] == device.index]
                columns = (own[name] for name in ("before_ns", "after_ns", "value", "status", "field"))
                timelines[device.uuid].extend(*columns)
                timelines[device.uuid].expect(Field.ENERGY, rate_hz)
            for joules in ledger.settle(now_ns - round(SETTLE_DELAY_S * 1e9)):
                found[int(joules.span.span_id)] = joules
    return found


def _as_text(span: dict[str, Any]) -> str:
    name = f"{span['from_s']:g}+ s"
    return f"{name}: {100 * span['rms']:.1f} % ({100 * span['within_two_deviations']:.0f} % within 2σ)"


if __name__ == "__main__":
    main()
