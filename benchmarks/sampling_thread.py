"""How punctual a sampling thread is next to busy Python: llmpower's in C against the same loop with nvidia-ml-py.

Both read energy and power of 8 simulated GPUs a thousand times a second on absolute deadlines, in a process whose main
thread is kept busy: by a loop of pure Python, or by ``generate()`` of a small random Llama. A tick is *held* when its
reads begin within a millisecond of its deadline. Lateness is the time from a tick's deadline to its read, of llmpower's
thread from its own histogram: quantiles on a straight line through the bucket, and as the longest the bound that no
read passed. CPU is the sampling thread's own. *Lost* are samples: those that the ring had no room for, and in Python
those of ticks that were passed over. What the program itself loses to the sampling is the last column: the median and
the quartiles of turns of a second, each beside one without a sampler. A single turn says little: on a shared machine
two without one have differed by a quarter.

llmpower puts its reads where updates are due, a thousand a second and field on average at most; the loop in Python has
a grid. llmpower runs with its limit on time inside driver calls lifted, so that this limit is not what is measured.

On a virtual machine no thread runs while the host runs somebody else: *stolen* is the share of its processors' time for
which the kernel says that this was so. What the machine allows at all is shown by *bare*: the share of its own ticks
that ``cyclictest`` (Debian's rt-tests), a timer thread in C that reads nothing, held in the same seconds beside ours.

    python benchmarks/sampling_thread.py [--minutes 10] [--seconds 30] [--pairs 20]        (15 minutes)

``--minutes`` is the length of the long run, llmpower beside the busy loop; ``--seconds`` that of each other;
``--pairs`` is how many turns with and without each sampler there are.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from threads.machine import end_bare, start_bare, stolen_s
from threads.samplers import GPUS, RATE_HZ, beside_nvml, beside_ours, busy_loop, make_generate, slowed

from llmpower.files import write_text
from llmpower.sampling import simulated_library, simulation

SETTINGS = {"preset": "h100", "gpus": GPUS, "load": "square:60,300,0.73"}
SAMPLERS = {"llmpower": beside_ours, "nvidia-ml-py": beside_nvml}
PROGRAMS = ("busy loop", "generate()")


@dataclass(frozen=True)
class Outcome:
    """One sampler beside one program."""

    sampler: str
    program: str
    seconds: float
    ticks: int
    held_share: float
    lateness_p50_s: float
    lateness_p99_s: float
    lateness_max_s: float | None
    cpu_per_sample_s: float
    samples: int
    samples_per_s: float
    lost: int
    work_per_s: float
    program_slowed: float
    program_slowed_quartiles: tuple[float, float]
    stolen_share: float
    bare_held_share: float | None
    bare_lateness_p99_s: float | None


def main() -> None:
    """Run every sampler beside every program, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    outcomes = []
    for program in arguments.programs.split(","):
        for sampler in SAMPLERS:
            long = sampler == "llmpower" and program == PROGRAMS[0]
            seconds = arguments.minutes * 60 if long else arguments.seconds
            found = _in_process(sampler, program, seconds, arguments.pairs)
            outcomes.append(Outcome(**found))
    _print(outcomes)
    document = {
        "what": f"{GPUS} simulated GPUs read at {RATE_HZ:g} Hz, two fields each, beside a busy main thread",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "rows": [asdict(outcome) for outcome in outcomes],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "sampling_thread.json", json.dumps(document, indent=2) + "\n")


def _print(outcomes: list[Outcome]) -> None:
    head = ["sampler", "beside", "time", "held", "p50", "p99", "max", "samples/s"]
    lines = [[*head, "CPU/sample", "lost", "stolen", "bare", "bare p99", "program"]]
    for o in outcomes:
        late_s = (o.lateness_p50_s, o.lateness_p99_s, o.lateness_max_s)
        late = ["–" if each is None else f"{each * 1e3:.2f} ms" for each in late_s]
        cost = [f"{o.samples_per_s:.0f}", f"{o.cpu_per_sample_s * 1e6:.2f} µs", str(o.lost), f"{o.stolen_share:.2%}"]
        bare = ["–", "–"]
        if o.bare_held_share is not None and o.bare_lateness_p99_s is not None:
            bare = [f"{o.bare_held_share:.2%}", f"{o.bare_lateness_p99_s * 1e3:.2f} ms"]
        high, low = o.program_slowed_quartiles
        program = f"{-o.program_slowed:+.1%} ({-low:+.0%}, {-high:+.0%})"
        lines.append([o.sampler, o.program, f"{o.seconds:.0f} s", f"{o.held_share:.2%}", *late, *cost, *bare, program])
    for line in lines:
        print(f"{line[0]:14}{line[1]:13}" + "".join(f"{text:>12}" for text in line[2:-1]) + f"  {line[-1]}")


def _in_process(sampler: str, program: str, seconds: float, pairs: int) -> dict[str, Any]:
    """In a fresh process, so that no thread or allocator of the one before has a part in it."""
    ours, theirs = multiprocessing.Pipe()
    # Loaded from here by every client in it: the settings and the library are in the environment from its start.
    with simulation(**SETTINGS):
        process = multiprocessing.get_context("spawn").Process(
            target=_run, args=(theirs, sampler, program, seconds, pairs)
        )
        process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError as error:
        raise SystemExit(f"{sampler} beside {program}: the process ended without a result") from error
    process.join()
    return found


def _run(results: Connection, sampler: str, program: str, seconds: float, pairs: int) -> None:
    work = busy_loop if program == PROGRAMS[0] else make_generate()
    measure = SAMPLERS[sampler]
    begin_s, before_s = time.monotonic(), stolen_s()
    bare = start_bare(seconds) if sampler == "llmpower" else None
    found = measure(work, seconds)
    stolen_share = (stolen_s() - before_s) / (time.monotonic() - begin_s) / (os.cpu_count() or 1)
    found |= {"sampler": sampler, "program": program, "seconds": seconds, "stolen_share": stolen_share} | end_bare(bare)
    low, middle, high = slowed(work, measure, pairs)
    results.send(found | {"program_slowed": middle, "program_slowed_quartiles": (low, high)})


if __name__ == "__main__":
    os.environ["LD_LIBRARY_PATH"] = str(simulated_library().parent)
    main()
