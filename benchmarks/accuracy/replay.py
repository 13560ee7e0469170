"""Settle the samples of a kept run again, by the attribution as it is now: seconds instead of the run's minutes.

What the sampler read and when it was drained is the run's own, so the figures differ from the run's only by what has
been changed since. For studying a change to the estimator; the figures that are published come from whole runs.

    python benchmarks/accuracy.py --keep DIR
    python benchmarks/accuracy/replay.py DIR [--without-counter]
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

# As the daemon has it, before NumPy comes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from ours import Meter
from schedule import read_windows

from accuracy.figures import OURS, pooled_coverage, rounded, summarise
from accuracy.outputs import Machine, Results, Windows, collect, machines, samples_path, windows_path
from accuracy.table import as_text
from llmpower.types import Device


def main() -> None:
    """Print the table of the run as it would be now."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--without-counter", action="store_true", help="from power alone, as if no card had a counter")
    arguments = parser.parse_args()
    if not machines(arguments.folder):
        parser.error(f"{arguments.folder} holds no run; make one with benchmarks/accuracy.py --keep DIR")
    results = again(arguments.folder, counter=not arguments.without_counter)
    print(as_text(rounded(summarise(results)), pooled_coverage(results)))


def again(folder: Path, *, counter: bool = True) -> Results:
    """All tools' results, llmpower's found again; with ``counter=False`` from power alone, and of no other tool."""
    found = machines(folder)
    with ProcessPoolExecutor() as pool:
        ours = dict(zip(found, pool.map(settle, [folder] * len(found), found, [counter] * len(found)), strict=True))
    results, _ = collect(folder, ours)
    return results if counter else {OURS: results[OURS]}


def settle(folder: Path, machine: Machine, counter: bool = True) -> Windows:
    """What llmpower finds for every window of one machine."""
    with np.load(samples_path(folder, machine)) as kept:
        devices = [Device(**each) for each in json.loads(str(kept["devices"]))]
        if not counter:
            devices = [replace(device, has_energy_counter=False) for device in devices]
        now_ns, samples = kept["now_ns"].tolist(), np.split(kept["samples"], np.cumsum(kept["counts"])[:-1])
    windows = list(read_windows(windows_path(folder, machine)))
    meter = Meter(devices, windows)
    steps = [(moment_ns, 2, number) for number, moment_ns in enumerate(now_ns)]
    for event in heapq.merge(meter.events(), steps):
        if event[1] == 2:
            meter.step(samples[event[2]], event[0])
        else:
            meter.happen(event)
    return {number: [meter.result(number, gpu) for gpu in range(len(devices))] for number in range(len(windows))}


if __name__ == "__main__":
    main()
