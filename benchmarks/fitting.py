"""Fitting a million measurements against reading them: `llmpower fit`'s work and `pandas.read_parquet` of the file.

Two tables of 20 models, each with every column that llmpower writes: a *campaign* on a grid of 9 × 9 lengths, where
trials collapse into cells, and *traffic*, where lengths are lognormal and almost every row is a cell of its own. Both
have standard deviations, phases and a form to be found: everything that makes a fit slow. Reading and fitting take
turns in one process; the figures are medians of wall time. Memory is the process's own peak from before the table is
read until it is fitted, in a process of its own, over what pandas says the table takes.

    python benchmarks/fitting.py [--rows 1000000] [--models 20] [--runs 5] [--json benchmarks/results/fitting.json]

Exits 1 where fitting takes more than twice the time of reading, or more than three times the memory of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# As `llmpower fit` has it, before NumPy comes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from llmpower.modelling import fit
from llmpower.modelling.forms import Cached
from llmpower.types import MEASUREMENT_COLUMNS

MAX_TIME, MAX_MEMORY = 2.0, 3.0
GRID = np.array([8, 16, 32, 64, 128, 256, 512, 1024, 2048])
COSTS = np.array([60, 0.2, 1e-5, 15, 0.01])

Lengths = tuple[np.ndarray, np.ndarray]
KINDS: dict[str, Callable[[np.random.Generator, int], Lengths]] = {
    "campaign": lambda generator, n: (generator.choice(GRID, n), generator.choice(GRID, n)),
    "traffic": lambda generator, n: (
        np.clip(generator.lognormal(6, 1.2, n), 1, 16000).astype(int),
        np.clip(generator.lognormal(5, 1, n), 1, 4000).astype(int),
    ),
}


def main() -> None:
    """Measure, print a table, write the figures if asked to, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of is not None:
        print(json.dumps(memory_of(arguments.memory_of)))
        return

    figures = {}
    print(f"{'':10}{'read':>10}{'fit':>10}{'× read':>9}{'table':>10}{'peak':>10}{'× table':>9}")
    with tempfile.TemporaryDirectory() as scratch:
        for kind in KINDS:
            path = Path(scratch) / f"{kind}.parquet"
            table(kind, arguments.rows, arguments.models).to_parquet(path, index=False)
            figures[kind] = found = {**times_of(path, arguments.runs), **peak_of(path)}
            print(
                f"{kind:10}{found['read_s']:>8.2f} s{found['fit_s']:>8.2f} s{found['time_ratio']:>9.2f}"
                f"{found['table_mb']:>7.0f} MB{found['peak_mb']:>7.0f} MB{found['memory_ratio']:>9.2f}"
            )
    if arguments.json:
        result = {
            "what": "wall time of read_parquet and of fit on its table, medians; peak memory over the table's",
            "rows": arguments.rows,
            "models": arguments.models,
            "runs": arguments.runs,
            "python": platform.python_version(),
            "pandas": pd.__version__,
            "processors": os.cpu_count(),
            **figures,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if any(f["time_ratio"] > MAX_TIME or f["memory_ratio"] > MAX_MEMORY for f in figures.values()):
        sys.exit(1)


def table(kind: str, rows: int, models: int) -> pd.DataFrame:
    """Measurements of ``models`` models in no order, all columns filled."""
    generator = np.random.default_rng(1)
    number = generator.integers(0, models, rows)
    τin, τout = KINDS[kind](generator, rows)
    joules = Cached().design(τin, τout) @ COSTS * (1 + number / 5) * generator.lognormal(0, 0.05, rows)
    made = {
        "span_id": [f"{value:032x}" for value in range(rows)],
        "started_at": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(np.arange(rows), unit="s"),
        "hostname": "node-1",
        "model_name": np.array([f"org/model-{value:02d}" for value in range(models)])[number],
        "system": "1× card",
        "device_uuids": "GPU-1",
        "input_tokens": τin,
        "output_tokens": τout,
        "batch_size": 1,
        "runtime_s": joules / 300,
        "time_to_first_token_s": joules / 3000,
        "gpu_energy_j": joules,
        "gpu_energy_std_j": joules * generator.uniform(0.005, 0.02, rows),
        "cpu_energy_j": joules / 10,
        "cpu_energy_std_j": joules / 1000,
        "prefill_energy_j": joules / 5,
        "decode_energy_j": joules * 0.8,
        "quality": "measured",
        "method": "counter",
        "allocated": False,
        "simulated": True,
        "gpu_idle_energy_j": joules / 4,
        "cpu_idle_energy_j": joules / 20,
    }
    return pd.DataFrame(made)[list(MEASUREMENT_COLUMNS)]


def times_of(path: Path, runs: int) -> dict[str, float]:
    """Medians of reading and of fitting, alternating; the first of each warms up."""
    seconds: dict[str, list[float]] = {"read_s": [], "fit_s": []}
    for run in range(runs + 1):
        start_s = time.perf_counter()
        measurements = pd.read_parquet(path)
        read_s = time.perf_counter()
        models = fit(measurements)
        done_s = time.perf_counter()
        if any(model.energy.heldout.mape is None for model in models):
            raise AssertionError("a model has no held-out error")
        if run:
            seconds["read_s"].append(read_s - start_s)
            seconds["fit_s"].append(done_s - read_s)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "time_ratio": medians["fit_s"] / medians["read_s"]}


def peak_of(path: Path) -> dict[str, float]:
    """As :func:`memory_of`, in a process that did nothing before."""
    command = [sys.executable, __file__, "--memory-of", str(path)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def memory_of(path: Path) -> dict[str, float]:
    """Peak resident memory of reading and fitting, less what the process had before; and the table's own, in MB."""
    before_mb = status_mb("VmRSS")
    measurements = pd.read_parquet(path)
    table_mb = float(measurements.memory_usage(deep=True).sum() / 1e6)
    fit(measurements)
    peak_mb = status_mb("VmHWM") - before_mb
    return {"table_mb": table_mb, "peak_mb": peak_mb, "memory_ratio": peak_mb / table_mb}


def status_mb(name: str) -> float:
    """A figure of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError(f"no {name} in /proc/self/status")


if __name__ == "__main__":
    main()
