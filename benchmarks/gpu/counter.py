"""How a card's energy counter treats time: when it moves, when in a call it is looked at, and what a burst counts
where.

The raw driver and none of llmpower, as in fields.py: the counter is read as fast as calls return beside bursts of equal
work that begin at any time, and the driver's own buffer of power samples twice a second. Then

- the moments at which the counter moved are compared with a line, once as if a call returned the value of its beginning
  and once as if that of its end: how far some moment must lie off the best line at least;
- what the counter adds up to over the ticks around a burst, less what the card draws at rest, is shown by where in a
  tick the burst began, as a multiple of its mean over all.

    python benchmarks/gpu/counter.py --keep examples/h100-counter.npz     needs an NVIDIA GPU and torch with CUDA
    python benchmarks/gpu/counter.py --from examples/h100-counter.npz     from what was read then
    python benchmarks/gpu/counter.py --simulated --quick                  anywhere, to see that it runs
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from work import make_unit  # beside this file

from llmpower.sampling import simulation
from llmpower.sampling.sampler import NVML_LIBRARY

BURSTS = ((0.005, 0.15, 250), (0.010, 0.17, 60), (0.08, 0.25, 40), (0.5, 0.5, 10))
"""Seconds of work, seconds of rest on average, and how often."""

QUICK = ((0.02, 0.08, 30),)

AROUND_S = 3.0
TOTAL_POWER_SAMPLES = 0
MOST_SAMPLES = 1000
BINS = 20

BEFORE_S, AFTER_S = 0.02, 0.045
"""Ticks are added up from so long before a burst to so long after it: what comes late is counted."""

Reads = dict[str, NDArray[Any]]
"""``reads``: before, after and value in mJ, shape (n, 3); ``bursts``: start, end and which of them, shape (m, 3);
``samples``: time in µs since 1970 and mW, shape (k, 2); ``sample_calls_ns``."""


class _Sample(ctypes.Structure):
    """nvmlSample_t."""

    _fields_ = (("time_us", ctypes.c_ulonglong), ("value", ctypes.c_ulonglong))


def read(library: str, bursts_asked: Sequence[tuple[float, float, int]], cuda: bool) -> Reads:
    """Everything, of :data:`BURSTS` in a minute and a half."""
    nvml: Any = ctypes.CDLL(library)
    device = ctypes.c_void_p()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)):
        raise SystemExit("NVML does not start; see nvidia-smi")
    bursts: list[tuple[int, int, int]] = []
    ended = threading.Event()

    def work() -> None:
        chance = random.Random(2)
        for number, (seconds, rest_s, times) in enumerate(bursts_asked):
            unit = make_unit(seconds, cuda)
            time.sleep(AROUND_S)
            for _ in range(times):
                start_ns = time.monotonic_ns()
                unit()
                bursts.append((start_ns, time.monotonic_ns(), number))
                time.sleep(rest_s * chance.uniform(0.7, 1.3))
        time.sleep(AROUND_S)
        ended.set()

    value, kind, count = ctypes.c_ulonglong(), ctypes.c_int(), ctypes.c_uint()
    buffer = (_Sample * MOST_SAMPLES)()
    reads: list[tuple[int, int, int]] = []
    samples: list[tuple[int, int]] = []
    calls_ns: list[int] = []
    thread = threading.Thread(target=work)
    thread.start()
    next_ns = time.monotonic_ns()
    while not ended.is_set():
        before_ns = time.monotonic_ns()
        nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(value))
        reads.append((before_ns, time.monotonic_ns(), value.value))
        if before_ns > next_ns:
            next_ns += 500_000_000
            count.value, since = MOST_SAMPLES, ctypes.c_ulonglong(samples[-1][0] if samples else 0)
            arguments = (ctypes.byref(kind), ctypes.byref(count), buffer)
            began_ns = time.monotonic_ns()
            if nvml.nvmlDeviceGetSamples(device, TOTAL_POWER_SAMPLES, since, *arguments) == 0:
                samples += [(each.time_us, each.value & 0xFFFFFFFF) for each in buffer[: count.value]]
            calls_ns.append(time.monotonic_ns() - began_ns)
        time.sleep(0.0003)
    thread.join()
    nvml.nvmlShutdown()
    return {
        "reads": np.array(reads),
        "bursts": np.array(bursts),
        "samples": np.array(samples),
        "sample_calls_ns": np.array(calls_ns),
    }


def study(kept: Reads) -> dict[str, Any]:
    """What the reads show; see the head of this file."""
    origin_ns = kept["reads"][0, 0]
    before_s, after_s = ((kept["reads"][:, column] - origin_ns) / 1e9 for column in (0, 1))
    moved = np.flatnonzero(np.diff(kept["reads"][:, 2]) > 0) + 1
    distances_s = np.diff(before_s[moved])
    number = np.concatenate(([0.0], np.cumsum(np.round(distances_s / np.median(distances_s)))))
    beginning = _line(number, before_s[moved - 1], before_s[moved])
    end = _line(number, after_s[moved - 1], after_s[moved])
    spacing_ms = np.diff(kept["samples"][:, 0]) / 1e3
    return {
        "reads": len(before_s),
        "call_ms": _quantiles((after_s - before_s) * 1e3),
        "period_s": beginning[1],
        "off_line_if_looked_at_first_ms": beginning[2] * 1e3,
        "off_line_if_looked_at_last_ms": end[2] * 1e3,
        "driver_samples": {
            "spacing_ms": _quantiles(spacing_ms),
            "call_ms": _quantiles(kept["sample_calls_ns"] / 1e6),
        },
        "bursts": _bursts(kept, origin_ns, beginning[0] + beginning[1] * number, kept["reads"][moved, 2] / 1e3),
    }


def _line(number: NDArray[Any], low_s: NDArray[Any], high_s: NDArray[Any]) -> tuple[float, float, float]:
    """Start, period and how far off: the line m = a + p·k with the least v for which low − v ≤ m ≤ high + v."""
    ones = np.ones(len(number))
    rows = np.vstack((np.column_stack((-ones, -number, -ones)), np.column_stack((ones, number, -ones))))
    found = linprog([0, 0, 1], A_ub=rows, b_ub=np.concatenate((-low_s, high_s)), bounds=[(None, None)] * 3)
    return tuple(found.x.tolist())


def _bursts(kept: Reads, origin_ns: int, edge_s: NDArray[Any], energy_j: NDArray[Any]) -> list[dict[str, Any]]:
    first_s = (kept["bursts"][0, 0] - origin_ns) / 1e9
    rest = np.flatnonzero(edge_s < first_s)[2:]
    rest_w = float((energy_j[rest[-1]] - energy_j[rest[0]]) / (edge_s[rest[-1]] - edge_s[rest[0]]))
    period_s = float(np.median(np.diff(edge_s)))
    found = []
    for kind in np.unique(kept["bursts"][:, 2]):
        start_s, end_s = ((kept["bursts"][kept["bursts"][:, 2] == kind, column] - origin_ns) / 1e9 for column in (0, 1))
        first = np.searchsorted(edge_s, start_s - BEFORE_S) - 1
        last = np.searchsorted(edge_s, end_s + AFTER_S)
        inside = last < len(edge_s)
        first, last, start_s, end_s = first[inside], last[inside], start_s[inside], end_s[inside]
        excess_j = energy_j[last] - energy_j[first] - rest_w * (edge_s[last] - edge_s[first])
        phase = ((start_s - edge_s[0]) / period_s % 1 * BINS).astype(int)
        runtime_s = float(np.median(end_s - start_s))
        spread = float(excess_j.std(ddof=1) / excess_j.mean())
        found.append(
            {
                "runtime_s": runtime_s,
                "times": len(excess_j),
                "mean_j": float(excess_j.mean()),
                "spread": spread,
                "spread_s": spread * runtime_s,
                "by_phase": [
                    float(excess_j[phase == each].mean() / excess_j.mean()) if (phase == each).any() else None
                    for each in range(BINS)
                ],
            }
        )
    return found


def _quantiles(values: NDArray[Any]) -> dict[str, float]:
    return {f"p{share}": float(np.quantile(values, share / 100)) for share in (5, 50, 95, 99)}


def main() -> None:
    """Read, or take what was read; print what it shows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE.npz", help="what was read before")
    parser.add_argument("--keep", type=Path, metavar="FILE.npz", help="hold on to what is read")
    parser.add_argument("--simulated", action="store_true", help="the simulated card, which bursts do not reach")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.source:
        with np.load(arguments.source) as file:
            kept = dict(file)
    else:
        with simulation(preset="h100-sxm") if arguments.simulated else nullcontext(NVML_LIBRARY) as library:
            kept = read(str(library), QUICK if arguments.quick else BURSTS, cuda=not arguments.simulated)
        if arguments.keep:
            np.savez_compressed(arguments.keep, **kept)
    print(json.dumps(study(kept), indent=1))


if __name__ == "__main__":
    main()
