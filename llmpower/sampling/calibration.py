"""How a device behaves, read off its own samples: update periods and the cost of a call.

Nothing about a sensor's cadence is documented, so nothing is assumed: a reading has been updated when its value
changes, and the period is the median distance of those changes. Between two reads nothing is known, so the
resolution of a period is that of the polling. A power that does not move shows no updates: its period is ``None``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.types import Field

MIN_UPDATES = 8
"""Fewer changes than this and a median of their distances is an anecdote."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What three seconds or more of samples say about one field of one device."""

    period_s: float | None
    updates: int
    latency_p50_s: float | None
    latency_p99_s: float | None


def calibrate(samples: NDArray[np.void], device: int, field: Field) -> Calibration:
    """Period and call latency of one field of one device.

    Args:
        samples: shape (n,), of :data:`~llmpower.sampling.SAMPLE_DTYPE`, oldest first.
        device: index of the device in the sampler.
        field: which of its fields.
    """
    taken = samples[(samples["device"] == device) & (samples["field"] == field) & (samples["status"] == 0)]
    if len(taken) == 0:
        return Calibration(None, 0, None, None)
    latency_s = (taken["after_ns"] - taken["before_ns"]) / 1e9
    changed_ns = taken["after_ns"][1:][np.diff(taken["value"]) != 0]
    period_s = float(np.median(np.diff(changed_ns))) / 1e9 if len(changed_ns) > MIN_UPDATES else None
    p50, p99 = np.quantile(latency_s, [0.5, 0.99])
    return Calibration(period_s, len(changed_ns), float(p50), float(p99))
