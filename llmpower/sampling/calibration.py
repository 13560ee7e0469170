"""How a device behaves, read off its own samples: update periods, their jitter, and the cost of a call.

Nothing about a sensor's cadence is documented, so nothing is assumed: a reading has been updated when its value
changes, and an update lies between the last read of the old value and the first of the new one. Updates on a grid are
numbered by the median of their distances; a line through them gives the period as its slope,

    t_k = t_0 + k·T + e_k,

and the jitter as the standard deviation of e_k, less what the width of the intervals w_k explains by itself (w²/12).
A power that does not move shows no updates, and one that moves between any two reads shows only the reads: their
period is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from llmpower.types import Device, Field

MIN_UPDATES = 8
"""Fewer changes than this and a median of their distances is an anecdote."""

RESOLVED = 0.7
"""Of a period, how wide the intervals around updates may be at most for the period to be seen at all."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What three seconds or more of samples say about one field of one device; ``None`` where they do not."""

    period_s: float | None
    updates: int
    latency_p50_s: float | None
    latency_p99_s: float | None
    jitter_s: float | None = None
    edge_width_s: float | None = None


def calibrate(samples: NDArray[np.void], device: int, field: Field) -> Calibration:
    """Period, jitter and call latency of one field of one device; ``edge_width_s`` is the median width of an update.

    Args:
        samples: shape (n,), of :data:`~llmpower.sampling.SAMPLE_DTYPE`, oldest first.
        device: index of the device in the sampler.
        field: which of its fields.
    """
    taken = samples[(samples["device"] == device) & (samples["field"] == field) & (samples["status"] == 0)]
    if len(taken) == 0:
        return Calibration(None, 0, None, None)
    p50, p99 = _quantiles((taken["after_ns"] - taken["before_ns"]) / 1e9, [0.5, 0.99])
    new = np.flatnonzero(np.diff(taken["value"]) != 0) + 1
    low_ns, high_ns = taken["before_ns"][new - 1], taken["after_ns"][new]
    period_s, jitter_s = _grid((low_ns + high_ns) / 2e9, (high_ns - low_ns) / 1e9)
    width_s = _median((high_ns - low_ns) / 1e9) if len(new) else None
    return Calibration(period_s, len(new), p50, p99, jitter_s, width_s)


def with_periods(device: Device, fields: Mapping[Field, Calibration]) -> Device:
    """The device with the periods that its calibration has found."""
    power = fields.get(Field.POWER_INSTANT) or fields.get(Field.POWER_AVERAGE)
    energy = fields.get(Field.ENERGY)
    return replace(
        device,
        power_period_s=power.period_s if power else None,
        energy_period_s=energy.period_s if energy else None,
    )


def _grid(time_s: NDArray[np.float64], width_s: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Period and jitter of updates at ``time_s``, each known to ``width_s``; ``None`` where they lie on no grid."""
    if len(time_s) <= MIN_UPDATES:
        return None, None
    typical_s = _median(np.diff(time_s))
    if _median(width_s) > RESOLVED * typical_s:
        return None, None
    # An update that was seen badly says little of where the grid lies, and may be counted to the wrong line of it.
    sharp = width_s <= 2 * _median(width_s)
    time_s, width_s = time_s[sharp], width_s[sharp]
    if len(time_s) <= MIN_UPDATES:
        return None, None
    number = np.concatenate(([0.0], np.cumsum(np.round(np.diff(time_s) / typical_s))))
    k, t_s = number - number.mean(), time_s - time_s.mean()
    period_s = float((k * t_s).sum() / (k * k).sum())
    variance_s2 = float(((t_s - period_s * k) ** 2).sum()) / (len(k) - 2) - float((width_s**2).mean()) / 12
    return period_s, sqrt(max(variance_s2, 0.0))


def _median(values: NDArray[np.float64]) -> float:
    return _quantiles(values, [0.5])[0]


def _quantiles(values: NDArray[np.float64], shares: Sequence[float]) -> list[float]:
    """Between two values in proportion, as NumPy's own, which load ten megabytes of masked arrays to look for them."""
    ranks = np.multiply(shares, len(values) - 1)
    found: list[float] = np.interp(ranks, np.arange(len(values)), np.sort(values)).tolist()
    return found
