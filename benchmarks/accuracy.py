"""Joules against the truth: llmpower and its peers on the same simulated cards, over the same windows.

Every tool runs in a process of its own against the simulated NVML, all at the same time; a card's load is a script
that is known beforehand (accuracy/schedule.py), so each tool is told the same windows, and the true joules of each are
known in closed form. One process per tool and machine reads 8 GPUs that do the same at the same time and differ in how
their power flickers and in the moments of their updates; the full run has two such machines for each preset. Figures
are defined in accuracy/figures.py, the tools' settings stand in the output. What llmpower sampled is settled once more
from power alone, as if no card had a counter.

    python benchmarks/accuracy.py             800 windows per cell, 400 of 5 s; about 30 minutes
    python benchmarks/accuracy.py --quick     64 windows per cell, 32 of 5 s; about 5 minutes
    python benchmarks/accuracy.py --keep DIR  and replay.py can settle the same samples again, in seconds

The peers need an environment of their own:

    python3 -m venv .venv-bench && .venv-bench/bin/pip install -r benchmarks/requirements.txt
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accuracy.figures import OURS, pooled_coverage, rounded, summarise, verdicts
from accuracy.outputs import Machine, collect, output_path, samples_path, windows_path
from accuracy.replay import again
from accuracy.schedule import BOARDS, SPANS_S, Schedule, make_schedule, write_load, write_windows
from accuracy.table import PEER_ORDER, as_text, draw

import llmpower
from llmpower.files import replacing, write_text
from llmpower.sampling import simulated_library

HERE = Path(__file__).parent
FULL, QUICK = (25, 2, 150.0), (4, 1, 90.0)
"""Moments a cell, machines a preset, and seconds that the tools have to start up."""
FULL_WINDOWS = 400
PATIENCE_S = 60.0
LONGEST_START_S = 600.0
"""Who has had so long to start up does not get twice as long."""


@dataclass(frozen=True)
class Worker:
    """One process: a tool on the GPUs of one machine."""

    tool: str
    machine: Machine
    process: subprocess.Popen[bytes]
    output: Path
    errors: Path


class _NotReady(Exception):
    """Tools that were not set up when the load began."""


def main() -> None:
    """Measure, print the table, write the results."""
    arguments = _arguments()
    count, machines, start_after_s = QUICK if arguments.quick else FULL
    count, machines = arguments.count or count, arguments.machines or machines
    start_after_s = arguments.start_after or start_after_s
    spans_s = tuple(float(each) for each in arguments.spans.split(","))
    schedules = {
        Machine(preset, number): make_schedule(preset, count, arguments.seed + number, spans_s=spans_s)
        for preset in arguments.presets.split(",")
        for number in range(machines)
    }
    tools = [OURS, *arguments.peers.split(",")] if arguments.peers else [OURS]
    windows = count * machines * arguments.gpus
    _say(f"{len(schedules)} machines of {arguments.gpus} GPUs, {len(tools)} tools, {windows} windows a cell or more")

    with _scratch(arguments.keep) as scratch:
        began_ns = time.monotonic_ns()
        while not _run(arguments, schedules, tools, scratch, start_after_s):
            # The cards are told when the load begins before anybody reads them, so this is a guess.
            start_after_s *= 2
        results, about = collect(scratch)
        wall_s = (time.monotonic_ns() - began_ns) / 1e9
        _say("settling the same samples once more, as if no card had a counter")
        alone = again(scratch, counter=False)

    rows, coverage = rounded(summarise(results)), pooled_coverage(results)
    rows_alone, coverage_alone = rounded(summarise(alone)), pooled_coverage(alone)
    document = {
        "what": "energy of windows on the simulated NVML against the true joules",
        "quick": windows < FULL_WINDOWS,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "wall_s": round(wall_s),
        "seed": arguments.seed,
        "gpus": arguments.gpus,
        "moments": count * machines,
        "windows": windows,
        "tools": about,
        "verdicts": _verdicts(rows),
        "coverage": coverage,
        "rows": rows,
        "without_counter": {"verdicts": _verdicts(rows_alone), "coverage": coverage_alone, "rows": rows_alone},
    }
    print(as_text(rows, coverage))
    print(f"\n{windows} windows a cell or more{' (quick run)' if document['quick'] else ''}, {wall_s:.0f} s")
    print(f"\nFrom power alone, as if no card had a counter:\n\n{as_text(rows_alone, coverage_alone)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "accuracy.json", json.dumps(rounded(document), indent=1) + "\n")
    with replacing(arguments.out / "accuracy.svg") as path:
        draw(rows, path, f"Simulated NVML, {windows} windows a cell or more")


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    return {bar: {"holds": held, "of": asked} for bar, (held, asked) in verdicts(rows).items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the windows")
    parser.add_argument("--count", type=int, help="moments a cell on each machine; each is a window on every GPU")
    parser.add_argument("--machines", type=int, help="for each preset")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--presets", default=",".join(BOARDS))
    parser.add_argument("--peers", default=",".join(PEER_ORDER), help="empty for none")
    parser.add_argument("--spans", default=",".join(f"{each:g}" for each in SPANS_S), help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start-after", type=float, help="seconds that the tools have to start up, at first")
    parser.add_argument("--peers-python", type=Path, default=HERE.parent / ".venv-bench" / "bin" / "python")
    parser.add_argument("--library", type=Path, default=simulated_library(), help="another build of the simulated NVML")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what every tool said, and llmpower's samples")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    arguments = parser.parse_args()
    if arguments.peers and not arguments.peers_python.exists():
        parser.error(f"{arguments.peers_python} is not there; {__doc__.strip().splitlines()[-1].strip()}")
    return arguments


@contextmanager
def _scratch(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True)  # a new one: what another run left would be taken for this one's
        yield keep
    else:
        with tempfile.TemporaryDirectory(prefix="llmpower-accuracy-") as scratch:
            yield Path(scratch)


def _run(
    arguments: argparse.Namespace,
    schedules: Mapping[Machine, Schedule],
    tools: Sequence[str],
    scratch: Path,
    start_after_s: float,
) -> bool:
    """Have every tool measure every machine; whether all were set up before the load began."""
    longest_s = max(schedule.duration_s for schedule in schedules.values())
    _say(f"about {(start_after_s + longest_s) / 60:.1f} minutes")
    try:
        with _workers(arguments, schedules, tools, scratch, start_after_s) as workers:
            _wait(workers, longest_s + start_after_s + PATIENCE_S)
        return True
    except _NotReady as error:
        if start_after_s > LONGEST_START_S:
            raise SystemExit(f"not ready in {start_after_s:g} s: {error}") from error
        _say(f"not ready in {start_after_s:g} s: {error}; they get twice as long")
        return False


@contextmanager
def _workers(
    arguments: argparse.Namespace,
    schedules: Mapping[Machine, Schedule],
    tools: Sequence[str],
    scratch: Path,
    start_after_s: float,
) -> Iterator[list[Worker]]:
    """Start every tool on every machine; on the way out none is left running."""
    begin_ns = time.monotonic_ns() + round(start_after_s * 1e9)
    # Copies: an edit or a rebuild while this runs must change neither the cards nor what is measured.
    shutil.copytree(Path(llmpower.__file__).parent, scratch / "code" / "llmpower", dirs_exist_ok=True)
    library = scratch / "libnvidia-ml.so.1"
    shutil.copyfile(arguments.library, library)
    workers: list[Worker] = []
    try:
        environments = {}
        for machine, schedule in schedules.items():
            for gpu in range(arguments.gpus):
                write_load(schedule, scratch / f"{machine}-{gpu}.load", begin_ns, f"{machine}/{arguments.seed}/{gpu}")
            write_windows(schedule, windows_path(scratch, machine), begin_ns)
            environments[machine] = os.environ | {
                "LD_LIBRARY_PATH": str(library.parent),
                "PATH": f"{HERE / 'accuracy' / 'bin'}:{os.environ['PATH']}",
                "LLMPOWER_SIM_PRESET": machine.preset,
                "LLMPOWER_SIM_GPUS": str(arguments.gpus),
                "LLMPOWER_SIM_LOAD": f"file:{scratch}/{machine}-{{gpu}}.load",
                "LLMPOWER_SIM_SEED": str(arguments.seed + machine.number),
                "OMP_NUM_THREADS": "1",
                "PYTHONFAULTHANDLER": "1",
                "PYTHONPATH": str(scratch / "code"),
            }
        for tool in tools:
            for machine, environment in environments.items():
                windows = windows_path(scratch, machine)
                if tool == OURS:
                    files = (library, windows, samples_path(scratch, machine))
                    command = [sys.executable, str(HERE / "accuracy" / "ours.py"), *map(str, files)]
                else:
                    command = [str(arguments.peers_python), str(HERE / "accuracy" / "peers.py"), tool, str(windows)]
                output = output_path(scratch, machine, tool)
                errors = output.with_suffix(".errors")
                with output.open("wb") as out, errors.open("wb") as err:
                    process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, start_new_session=True)
                workers.append(Worker(tool, machine, process, output, errors))
                # A few at a time: Zeus gives its own processes ten seconds to start, and all at once would take more.
                if len(workers) % (os.cpu_count() or 1) == 0:
                    _check_ready(workers, begin_ns)
        _check_ready(workers, begin_ns)
        _say(f"all tools ready, {(begin_ns - time.monotonic_ns()) / 1e9:.0f} s before the load begins")
        yield workers
    finally:
        for worker in workers:
            # Each has a session of its own, so that processes which a tool has started go with it.
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGTERM)
            worker.process.wait()


def _check_ready(workers: Sequence[Worker], begin_ns: int) -> None:
    """Every tool is set up before the load begins."""
    waiting = list(workers)
    while waiting:
        waiting = [worker for worker in waiting if not worker.output.stat().st_size]
        for worker in waiting:
            if worker.process.poll() is not None:
                _fail(worker)
        if time.monotonic_ns() > begin_ns:
            raise _NotReady(_names(waiting or workers))
        time.sleep(0.1)


def _wait(workers: Sequence[Worker], limit_s: float) -> None:
    deadline_s = time.monotonic() + limit_s
    while any(worker.process.poll() is None for worker in workers):
        for worker in workers:
            if worker.process.poll():
                _fail(worker)
        if time.monotonic() > deadline_s:
            for worker in workers:
                if worker.process.poll() is None:
                    worker.process.send_signal(signal.SIGABRT)  # it says where it hangs
                    worker.process.wait()
                    _fail(worker)
        time.sleep(0.5)
    for worker in workers:
        if worker.process.poll():
            _fail(worker)


def _names(workers: Sequence[Worker]) -> str:
    return ", ".join(f"{worker.tool} on {worker.machine}" for worker in workers if worker.process.poll() is None)


def _fail(worker: Worker) -> None:
    tail = worker.errors.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise SystemExit(f"{worker.tool} on {worker.machine} ended with code {worker.process.returncode}:\n{tail}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
