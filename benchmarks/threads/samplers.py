"""Programs that keep a main thread busy, and samplers beside them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.sampling import Sampler

GPUS, RATE_HZ = 8, 1000.0
DRAIN_S = 0.25
TURN_S = 1.0

Work = Callable[[], None]


def busy_loop() -> None:
    """About a tenth of a second of pure Python."""
    total = 0
    for number in range(2_000_000):
        total += number


def make_generate() -> Work:
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


def slowed(work: Work, measure: Callable[[Work, float], dict[str, Any]], pairs: int) -> tuple[float, float, float]:
    """What part of its pace the program loses beside a sampler: first quartile, median and third over pairs of turns.

    Each turn with the sampler has one without it before or behind it, so that what the machine does meanwhile is done
    to both alike.
    """
    parts = []
    for pair in range(pairs):
        turns = [("beside", lambda: measure(work, TURN_S)["work_per_s"]), ("alone", lambda: _work_for(work, TURN_S))]
        pace = {name: turn() for name, turn in (turns if pair % 2 else reversed(turns))}
        parts.append(1 - pace["beside"] / pace["alone"])
    low, middle, high = np.quantile(parts, [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def beside_ours(work: Work, seconds: float) -> dict[str, Any]:
    """With llmpower's thread."""
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


def beside_nvml(work: Work, seconds: float) -> dict[str, Any]:
    """With a thread of Python that calls nvidia-ml-py."""
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
