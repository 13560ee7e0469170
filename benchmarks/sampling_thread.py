"""What a sampling thread keeps of its promise beside Python: llmpower's in C against the same loop with nvidia-ml-py.

Both read energy and power of 8 simulated GPUs a thousand times a second on absolute deadlines, in a process whose main
thread is kept busy: by a loop of pure Python, or by ``generate()`` of a small random Llama. A tick is *held* when its
reads begin within a millisecond of its deadline. Lateness is the time from a tick's deadline to its read, of llmpower's
thread from its own histogram: quantiles on a straight line through the bucket, and as the longest the bound that no
read passed. CPU is the sampling thread's own. *Lost* are samples: those that the ring had no room for, and in Python
those of ticks that were passed over. What the program itself loses to the sampling is the last column.

llmpower puts its reads where updates are due, a thousand a second and field on average at most; the loop in Python has
a grid. llmpower runs with its limit on time inside driver calls lifted, so that this limit is not what is measured.

On a virtual machine no thread runs while the host runs somebody else: *stolen* is the share of its processors' time for
which the kernel says that this was so. What the machine allows at all is shown by *bare*: the share of its own ticks
that ``cyclictest`` (Debian's rt-tests), a timer thread in C that reads nothing, held in the same seconds beside ours.

    python benchmarks/sampling_thread.py [--minutes 10] [--seconds 30]

``--minutes`` is the length of the long run, llmpower beside the busy loop; ``--seconds`` that of each other.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.files import write_text
from llmpower.sampling import Sampler, simulated_library, simulation

GPUS, RATE_HZ = 8, 1000.0
SETTINGS = {"preset": "h100", "gpus": GPUS, "load": "square:60,300,0.73"}
DRAIN_S = 0.25
BARE_US = 100_000
SAMPLERS = ("none", "llmpower", "nvidia-ml-py")
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
    stolen_share: float
    bare_held_share: float | None
    bare_lateness_p99_s: float | None


def main() -> None:
    """Run every sampler beside every program, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()

    outcomes, idle = [], {}
    for program in arguments.programs.split(","):
        for sampler in SAMPLERS:
            long = sampler == "llmpower" and program == PROGRAMS[0]
            found = _in_process(sampler, program, arguments.minutes * 60 if long else arguments.seconds)
            if sampler == "none":
                idle[program] = found["work_per_s"]
            else:
                outcomes.append(Outcome(**found))
    _print(outcomes, idle)
    document = {
        "what": f"{GPUS} simulated GPUs read at {RATE_HZ:g} Hz, two fields each, beside a busy main thread",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} processors",
        "python": platform.python_version(),
        "rows": [
            asdict(outcome) | {"program_slowed": 1 - outcome.work_per_s / idle[outcome.program]} for outcome in outcomes
        ],
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out / "sampling_thread.json", json.dumps(document, indent=2) + "\n")


def _print(outcomes: list[Outcome], idle: dict[str, float]) -> None:
    head = ["sampler", "beside", "time", "held", "p50", "p99", "max", "samples/s"]
    lines = [[*head, "CPU/sample", "lost", "stolen", "bare", "bare p99", "program"]]
    for o in outcomes:
        late_s = (o.lateness_p50_s, o.lateness_p99_s, o.lateness_max_s)
        late = ["–" if each is None else f"{each * 1e3:.2f} ms" for each in late_s]
        cost = [f"{o.samples_per_s:.0f}", f"{o.cpu_per_sample_s * 1e6:.2f} µs", str(o.lost), f"{o.stolen_share:.2%}"]
        bare = ["–", "–"]
        if o.bare_held_share is not None and o.bare_lateness_p99_s is not None:
            bare = [f"{o.bare_held_share:.2%}", f"{o.bare_lateness_p99_s * 1e3:.2f} ms"]
        program = f"{o.work_per_s / idle[o.program] - 1:+.1%}"
        lines.append([o.sampler, o.program, f"{o.seconds:.0f} s", f"{o.held_share:.2%}", *late, *cost, *bare, program])
    for line in lines:
        print(f"{line[0]:14}{line[1]:13}" + "".join(f"{text:>12}" for text in line[2:]))


def _in_process(sampler: str, program: str, seconds: float) -> dict[str, Any]:
    """In a fresh process, so that no thread or allocator of the one before has a part in it."""
    ours, theirs = multiprocessing.Pipe()
    # Loaded from here by every client in it: the settings and the library are in the environment from its start.
    with simulation(**SETTINGS):
        process = multiprocessing.get_context("spawn").Process(target=_run, args=(theirs, sampler, program, seconds))
        process.start()
    theirs.close()
    try:
        found: dict[str, Any] = ours.recv()
    except EOFError as error:
        raise SystemExit(f"{sampler} beside {program}: the process ended without a result") from error
    process.join()
    return found


def _run(results: Connection, sampler: str, program: str, seconds: float) -> None:
    work = _busy_loop if program == PROGRAMS[0] else _make_generate()
    measure = {"none": _alone, "llmpower": _beside_ours, "nvidia-ml-py": _beside_nvml}[sampler]
    begin_s, stolen_s = time.monotonic(), _stolen_s()
    bare = _start_bare(seconds) if sampler == "llmpower" else None
    found = measure(work, seconds)
    stolen_share = (_stolen_s() - stolen_s) / (time.monotonic() - begin_s) / (os.cpu_count() or 1)
    found |= {"sampler": sampler, "program": program, "seconds": seconds, "stolen_share": stolen_share}
    results.send(found | _end_bare(bare))


def _start_bare(seconds: float) -> subprocess.Popen[str] | None:
    """A thread in C that waits for the same deadlines and does nothing; ``None`` without rt-tests."""
    if shutil.which("cyclictest") is None:
        return None
    command = ["cyclictest", "--threads=1", "--policy=other", f"--interval={1e6 / RATE_HZ:.0f}"]
    command += [f"--histogram={BARE_US}", "--quiet", f"--duration={seconds:.0f}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _end_bare(bare: subprocess.Popen[str] | None) -> dict[str, float | None]:
    """What it held, by its histogram of microseconds; what was later still it counts on a line of its own."""
    if bare is None:
        return {"bare_held_share": None, "bare_lateness_p99_s": None}
    lines = bare.communicate()[0].splitlines()
    counts = np.zeros(BARE_US + 1, np.int64)
    for line in lines:
        if line and not line.startswith("#"):
            late_us, count = line.split()
            counts[int(late_us)] = int(count)
    (counts[-1],) = (int(line.split(":")[1]) for line in lines if line.startswith("# Histogram Overflows"))
    below = np.cumsum(counts) / counts.sum()
    held_us = round(1e6 / RATE_HZ)
    return {"bare_held_share": float(below[held_us]), "bare_lateness_p99_s": float(np.argmax(below >= 0.99)) / 1e6}


def _stolen_s() -> float:
    """Processor time since boot that the host gave to others, see proc_stat(5)."""
    return int(Path("/proc/stat").read_text("ascii").split()[8]) / os.sysconf("SC_CLK_TCK")


Work = Callable[[], None]


def _busy_loop() -> None:
    """About a tenth of a second of pure Python."""
    total = 0
    for number in range(2_000_000):
        total += number


def _make_generate() -> Work:
    """``generate()`` of a tiny Llama."""
    import torch

    from llmpower.profiling.samples import TINY, random_llama

    torch.set_num_threads(1)
    model = random_llama(TINY)
    ids = torch.ones((1, 16), dtype=torch.long)

    def generate() -> None:
        model.generate(ids, max_new_tokens=32, min_new_tokens=32, do_sample=False, pad_token_id=0)

    generate()
    return generate


def _work_for(work: Work, seconds: float, now_and_then: Callable[[], None] = lambda: None) -> float:
    """Repeat ``work`` for so long; how often a second it was done."""
    begin_s = time.monotonic()
    done = 0
    next_s = begin_s + DRAIN_S
    while (now_s := time.monotonic()) < begin_s + seconds:
        if now_s >= next_s:
            now_and_then()
            next_s = now_s + DRAIN_S
        work()
        done += 1
    return done / (now_s - begin_s)


def _alone(work: Work, seconds: float) -> dict[str, Any]:
    return {"work_per_s": _work_for(work, seconds)}


def _beside_ours(work: Work, seconds: float) -> dict[str, Any]:
    sampler = Sampler(backend="simulated", powercap_root=None, rate_hz=RATE_HZ, max_read_share=1.0)
    drained: list[int] = []
    with sampler:
        # Draining is the reader's part: four times a second, as the daemon does.
        work_per_s = _work_for(work, seconds, lambda: drained.append(len(sampler.drain())))
        sampler.stop()
        drained.append(len(sampler.drain()))
        statistics = sampler.statistics()
    bounds_s, counts = statistics.lateness_bounds_s, np.array(statistics.lateness_counts)
    due = statistics.ticks_total + statistics.missed_ticks_total
    punctual = sum(n for bound_s, n in zip(bounds_s, counts, strict=False) if bound_s <= 1 / RATE_HZ)
    assert sum(drained) == statistics.samples_total, "samples that were read and not dropped must all arrive"
    reached = int(np.flatnonzero(counts)[-1])
    return {
        "ticks": due,
        "held_share": float(punctual) / due,
        "lateness_p50_s": _quantile_s(0.5, bounds_s, counts),
        "lateness_p99_s": _quantile_s(0.99, bounds_s, counts),
        "lateness_max_s": bounds_s[reached] if reached < len(bounds_s) else None,
        "lost": statistics.dropped_total,
        "samples": statistics.samples_total,
        "samples_per_s": statistics.samples_total / seconds,
        "cpu_per_sample_s": statistics.cpu_time_s / statistics.samples_total,
        "work_per_s": work_per_s,
    }


def _quantile_s(share: float, bounds_s: tuple[float, ...], counts: NDArray[np.int64]) -> float:
    """The quantile of a histogram, on a straight line through its bucket; the last bucket has no upper bound."""
    below = np.concatenate(([0], np.cumsum(counts)))
    bucket = min(int(np.searchsorted(below, share * below[-1], side="left")), len(bounds_s)) - 1
    low_s = bounds_s[bucket - 1] if bucket > 0 else 0.0
    part = (share * below[-1] - below[bucket]) / max(counts[bucket], 1)
    return float(low_s + min(part, 1.0) * (bounds_s[bucket] - low_s))


def _beside_nvml(work: Work, seconds: float) -> dict[str, Any]:
    import pynvml

    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(GPUS)]
    ended = threading.Event()
    found: dict[str, Any] = {}

    def sample() -> None:
        interval_ns = round(1e9 / RATE_HZ)
        kept: list[tuple[int, int, int, int]] = []
        lateness_ns: list[int] = []
        missed = samples = 0
        deadline_ns = time.monotonic_ns()
        while not ended.is_set():
            time.sleep(max(deadline_ns - time.monotonic_ns(), 0) / 1e9)
            lateness_ns.append(time.monotonic_ns() - deadline_ns)
            for gpu, handle in enumerate(handles):
                before_ns = time.monotonic_ns()
                energy_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                power_mw = pynvml.nvmlDeviceGetPowerUsage(handle)
                kept.append((before_ns, gpu, energy_mj, power_mw))
                samples += 2
            if len(kept) > 100_000:
                kept.clear()
            passed = max(time.monotonic_ns() - deadline_ns, 0) // interval_ns
            missed += passed
            deadline_ns += (passed + 1) * interval_ns
        found.update(samples=samples, missed=missed, lateness_s=np.array(lateness_ns) / 1e9, cpu_s=time.thread_time())

    thread = threading.Thread(target=sample)
    thread.start()
    work_per_s = _work_for(work, seconds)
    ended.set()
    thread.join()
    pynvml.nvmlShutdown()
    lateness_s = found["lateness_s"]
    due = len(lateness_s) + found["missed"]
    return {
        "ticks": due,
        "held_share": float(np.count_nonzero(lateness_s <= 1 / RATE_HZ)) / due,
        "lateness_p50_s": float(np.quantile(lateness_s, 0.5)),
        "lateness_p99_s": float(np.quantile(lateness_s, 0.99)),
        "lateness_max_s": float(lateness_s.max()),
        "lost": found["missed"] * 2 * GPUS,
        "samples": found["samples"],
        "samples_per_s": found["samples"] / seconds,
        "cpu_per_sample_s": found["cpu_s"] / found["samples"],
        "work_per_s": work_per_s,
    }


if __name__ == "__main__":
    os.environ["LD_LIBRARY_PATH"] = str(simulated_library().parent)
    main()
