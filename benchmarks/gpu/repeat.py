"""The same work repeated, with rests between: how far single measurements deviate, and what they say of it.

No card reports its true joules. But equal work costs equal joules, so what single measurements of it differ by is their
error, to be compared with the uncertainty that they state; and their mean is to be compared with what the card's
counter adds up to over all of them, less what the rests cost. ZeusMonitor is asked about the same work where it is
installed.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from meter import Meter  # beside this file
from numpy.typing import NDArray

from llmpower.attribution import Joules
from llmpower.sampling import Sampler
from llmpower.types import Field, Span

REST_S = (0.2, 0.5)
"""Between two of them."""

AROUND_S = 4.0
"""Of rest before and after all of them, which tells the idle power."""

INTERVAL = 1.96
"""Standard deviations of a 95 % interval."""


class Repeated(NamedTuple):
    """The figures, and what they were made from: all samples, and when each unit began and ended, shape (n, 2)."""

    figures: dict[str, Any]
    samples: NDArray[np.void]
    units_ns: NDArray[np.int64]


def repeat(sampler: Sampler, unit: Callable[[], None], times: int, *, peer: bool) -> Repeated:
    """Do ``unit`` this many times; it returns when its work is done. With ``peer`` ZeusMonitor is asked as well."""
    chance = random.Random(times)
    zeus = _zeus() if peer else None
    zeus_j: list[float] = []
    with Meter(sampler, keep=True) as meter:
        time.sleep(AROUND_S)
        for number in range(times):
            time.sleep(chance.uniform(*REST_S))
            if zeus:
                zeus.begin_window("unit", sync_execution=False)
            start_ns = time.monotonic_ns()
            meter.begin(str(number), start_ns)
            unit()
            end_ns = time.monotonic_ns()
            if zeus:
                zeus_j.append(zeus.end_window("unit", sync_execution=False).total_energy)
            # As a generate() call of which the first fifth is prefill.
            first_ns = start_ns + (end_ns - start_ns) // 5
            meter.finish(Span(str(number), "unit", (), start_ns, first_ns, end_ns, 1, 1, 1, "benchmark", 1))
        joules = meter.wait(times)
        time.sleep(AROUND_S)
    runtimes_s = [each.span.runtime_s for each in joules]
    figures = {
        "runtime_s": statistics.median(runtimes_s),
        "runtime_spread": _spread(runtimes_s),
        "times": times,
        "by_counter_j": _mean_by_counter_j(meter, joules),
        "llmpower": _ours(joules),
        "zeus": {"mean_j": statistics.fmean(zeus_j), "spread": _spread(zeus_j)} if zeus else None,
    }
    return Repeated(
        figures, np.concatenate(meter.kept), np.array([(each.span.start_ns, each.span.end_ns) for each in joules])
    )


def _zeus() -> Any:
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        return None
    return ZeusMonitor(gpu_indices=[0], cpu_indices=[])


def _spread(values: list[float]) -> float | None:
    """Standard deviation over mean."""
    return statistics.stdev(values) / statistics.fmean(values) if len(values) > 1 and any(values) else None


def _ours(joules: list[Joules]) -> dict[str, Any]:
    known = [
        (each.gpu_energy_j, each.gpu_energy_std_j, each.quality)
        for each in joules
        if each.gpu_energy_j is not None and each.gpu_energy_std_j is not None
    ]
    if not known:
        return {"known": 0}
    found_j, std_j = np.array([each[0] for each in known]), np.array([each[1] for each in known])
    mean_j = float(found_j.mean())
    return {
        "known": len(known),
        "mean_j": mean_j,
        "spread": _spread(found_j.tolist()),
        "stated": float(np.median(std_j)) / mean_j,
        "within_interval": float(np.mean(np.abs(found_j - mean_j) <= INTERVAL * std_j)),
        "qualities": {word: sum(each[2] == word for each in known) for word in sorted({each[2] for each in known})},
    }


def _mean_by_counter_j(meter: Meter, joules: list[Joules]) -> float | None:
    """What the counter adds up to from before the first to after the last, less idle power while nothing ran.

    Idle power is the mean of that in the rest before and in the rest after, half a second away from any work.
    """
    samples = np.concatenate(meter.kept)
    counter = samples[(samples["device"] == 0) & (samples["status"] == 0) & (samples["field"] == Field.ENERGY)]
    moved = np.flatnonzero(np.diff(counter["value"]) > 0) + 1
    time_ns, energy_j = counter["before_ns"][moved], counter["value"][moved] / 1e6
    first_ns, last_ns = joules[0].span.start_ns, joules[-1].span.end_ns
    before = np.flatnonzero(time_ns < first_ns)
    after = np.flatnonzero(time_ns > last_ns + 500_000_000)
    if len(before) < 3 or len(after) < 3:
        return None
    idle_w = float(
        np.mean([(energy_j[i[-1]] - energy_j[i[0]]) / (time_ns[i[-1]] - time_ns[i[0]]) * 1e9 for i in (before, after)])
    )
    start, end = before[-1], after[0]
    ran_s = sum(each.span.runtime_s for each in joules)
    rested_s = (time_ns[end] - time_ns[start]) / 1e9 - ran_s
    return float(energy_j[end] - energy_j[start] - idle_w * rested_s) / len(joules)
