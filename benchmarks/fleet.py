"""How long a data set takes to fit, compared with how long pyarrow takes to read the same columns of it.

A data set of Parquet files, 20 models, with every column that a fit looks at (no ids, names of hosts or times), is made
once and kept where ``--data`` says. Then, each in a process of its own and alternating: pyarrow scans the columns and
throws them away; ``fit_datasets`` fits them in one process, and on two local Dask workers (whose start is not counted).
All three have imported pyarrow, and pandas with it, before the clock starts. Peak memory is that of the fitting
process, all of it.

    python benchmarks/fleet.py --rows 100000000 --data /var/tmp/fleet --json benchmarks/results/fleet.json

Exit code 1 when the fit takes over 3 times the scan or over 2 GB, or two workers are slower than one process.
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
from typing import Any

# As `llmpower fit` has it, before NumPy comes.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pyarrow as pa
from fitting import status_mb
from pyarrow import parquet

from llmpower.modelling.forms import Cached
from llmpower.modelling.streaming import Job, fit_datasets, open_datasets
from llmpower.modelling.streaming.reading import record_batches
from llmpower.modelling.streaming.workers import on_workers

MAX_TIME, MAX_MB = 3.0, 2000
GRID = np.array([8, 16, 32, 64, 128, 256, 512, 1024, 2048])
COSTS = np.array([60, 0.2, 1e-5, 15, 0.01])
MODELS = 20
FILE_ROWS = 2_000_000
GROUP_ROWS = 500_000

Lengths = tuple[np.ndarray, np.ndarray]
KINDS: dict[str, Callable[[np.random.Generator, int], Lengths]] = {
    "campaign": lambda generator, n: (generator.choice(GRID, n), generator.choice(GRID, n)),
    "traffic": lambda generator, n: (
        np.clip(generator.lognormal(6, 1.2, n), 1, 16000).astype(np.int64),
        np.clip(generator.lognormal(5, 1, n), 1, 4000).astype(np.int64),
    ),
}


def main() -> None:
    """Measure, print a table, write the figures if asked to, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument(
        "--data", type=Path, help="where the data sets are, or are made; by default in /tmp and removed"
    )
    parser.add_argument("--json", type=Path, help="figures by kind of data set; those of other kinds in it stay")
    parser.add_argument("--note", default="", help="what should be known of the machine")
    parser.add_argument("--do", choices=DONE, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        print(json.dumps(DONE[arguments.do](arguments.data)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        figures = {}
        for kind in arguments.kinds.split(","):
            root = (arguments.data or Path(scratch)) / kind
            if not root.exists():
                make(kind, arguments.rows, root)
            figures[kind] = found = measured(root, arguments.runs)
            print(
                f"{kind:9} {found['rows']:>11,} rows {found['disk_mb']:>6.0f} MB on disk: scan {found['scan_s']:.1f} s,"
                f" fit {found['fit_s']:.1f} s = {found['time_ratio']:.2f} × in {found['peak_mb']:.0f} MB,"
                f" two workers {found['workers_s']:.1f} s = {found['workers_ratio']:.2f} × one process",
                flush=True,
            )
    if arguments.json:
        before = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
        result = {
            "what": "wall time of pyarrow's scan of the columns a fit reads, of the fit, and of it on two Dask workers;"
            " medians; of each turn's ratios medians and quartiles; peak resident memory of the fitting process",
            "models": MODELS,
            "runs": arguments.runs,
            "python": platform.python_version(),
            "pyarrow": pa.__version__,
            "processors": os.cpu_count(),
            **({"note": arguments.note} if arguments.note else {}),
            **{kind: before[kind] for kind in KINDS if kind in before},
            **figures,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if any(
        found["time_ratio"] > MAX_TIME or found["peak_mb"] > MAX_MB or found["workers_ratio"] > 1
        for found in figures.values()
    ):
        sys.exit(1)


def measured(root: Path, runs: int) -> dict[str, Any]:
    """Medians over alternating runs: the first of each only warms up the page cache."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in DONE}
    run_apart("scan", root)
    for number in range(runs):
        # Every other time the other way round: what runs last finds the machine as the others left it.
        for name in list(DONE)[:: -1 if number % 2 else 1]:
            found[name].append(run_apart(name, root))
    seconds = {name: [each["s"] for each in of_runs] for name, of_runs in found.items()}
    scan_s, fit_s, workers_s = (statistics.median(seconds[name]) for name in DONE)
    return {
        "rows": int(found["scan"][0]["rows"]),
        "disk_mb": sum(path.stat().st_size for path in root.rglob("*.parquet")) / 1e6,
        "scan_s": scan_s,
        "fit_s": fit_s,
        **ratios("time_ratio", seconds["fit"], seconds["scan"]),
        "peak_mb": max(each["peak_mb"] for each in found["fit"]),
        "workers_s": workers_s,
        **ratios("workers_ratio", seconds["workers"], seconds["fit"]),
        "off": max(each["off"] for each in found["fit"]),
    }


def ratios(name: str, seconds: list[float], of: list[float]) -> dict[str, float | list[float]]:
    """The median of one turn's, which has both within half a minute, and their quartiles, as far as turns differ."""
    of_turns = [one / other for one, other in zip(seconds, of, strict=True)]
    lower, median, upper = np.quantile(of_turns, (0.25, 0.5, 0.75)).tolist()
    return {name: median, f"{name}_quartiles": [lower, upper]}


def run_apart(name: str, root: Path) -> dict[str, float]:
    """One thing in a process that did nothing before."""
    command = [sys.executable, __file__, "--do", name, "--data", str(root)]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


def scan(root: Path) -> dict[str, float]:
    """The columns that a fit asks for, decoded and thrown away."""
    dataset = open_datasets([str(root)], {})
    job = Job(dataset.schema, "gpu", ("model_name", "system"))
    start_s = time.perf_counter()
    rows = sum(len(batch) for _, _, batch in record_batches(dataset.schema, job.headers(), dataset.portions))
    return {"s": time.perf_counter() - start_s, "rows": rows}


def fit(root: Path) -> dict[str, float]:
    """In one process; how far the worst coefficient of the largest terms is from what made the rows."""
    open_datasets([str(root)], {})
    start_s = time.perf_counter()
    streamed = fit_datasets([str(root)])
    seconds = time.perf_counter() - start_s
    off = max(
        abs(float(model.energy.predict(512, 256)) / (float(Cached().design(512, 256) @ COSTS) * (1 + number / 5)) - 1)
        for number, model in enumerate(streamed.models)
    )
    return {"s": seconds, "peak_mb": status_mb("VmHWM"), "off": off}


def workers(root: Path) -> dict[str, float]:
    """On two local workers that are there already."""
    open_datasets([str(root)], {})
    with on_workers("local") as scanner:
        start_s = time.perf_counter()
        fit_datasets([str(root)], scanner=scanner)
        return {"s": time.perf_counter() - start_s}


DONE: dict[str, Callable[[Path], dict[str, float]]] = {"scan": scan, "fit": fit, "workers": workers}


def make(kind: str, rows: int, root: Path) -> None:
    """Files of this many rows in all, models in no order."""
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        n = min(FILE_ROWS, rows - start)
        directory = root / f"host=node-{number % 10}" / f"date=2026-01-{1 + number // 10:02d}"
        directory.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng([1, number])
        parquet.write_table(table(kind, n, generator), directory / f"{number}.parquet", row_group_size=GROUP_ROWS)
        print(f"{kind}: {start + n:,} rows made", end="\r", file=sys.stderr)
    print(file=sys.stderr)


def table(kind: str, n: int, generator: np.random.Generator) -> pa.Table:
    """Measurements as a daemon exports them, the columns that a fit looks at."""
    model = generator.integers(0, MODELS, n)
    τin, τout = KINDS[kind](generator, n)
    joules = Cached().design(τin, τout) @ COSTS * (1 + model / 5) * generator.lognormal(0, 0.05, n)
    names = pa.array([f"org/model-{number:02d}" for number in range(MODELS)])
    same = np.zeros(n, dtype=np.int8)
    return pa.table(
        {
            "model_name": pa.DictionaryArray.from_arrays(pa.array(model.astype(np.int8)), names).cast(pa.string()),
            "system": pa.DictionaryArray.from_arrays(pa.array(same), pa.array(["1× card"])).cast(pa.string()),
            "input_tokens": τin,
            "output_tokens": τout,
            "batch_size": same.astype(np.int64) + 1,
            "runtime_s": joules / 300,
            "time_to_first_token_s": joules / 3000,
            "gpu_energy_j": joules,
            "gpu_energy_std_j": joules * generator.uniform(0.005, 0.02, n),
            "prefill_energy_j": joules / 5,
            "decode_energy_j": joules * 0.8,
            "quality": pa.DictionaryArray.from_arrays(pa.array(same), pa.array(["measured"])).cast(pa.string()),
            "allocated": same > 0,
            "simulated": same == 0,
        }
    )


if __name__ == "__main__":
    main()
