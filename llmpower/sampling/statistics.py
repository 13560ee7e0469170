"""The meter measures itself: how each channel is read, and how well the sampler keeps its promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmpower.sampling import low_level
from llmpower.sampling.low_level import monotonic_ns
from llmpower.types import Device, DeviceKind, Field

KINDS: tuple[DeviceKind, ...] = ("gpu", "cpu_package", "dram")
"""As the C side numbers them."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One polled (device, field) pair and how its reads go.

    ``effective_hz`` is the rate in effect, lower than ``requested_hz`` when calls are slow. ``locked`` says that reads
    come when updates are due; then ``period_s`` and ``jitter_s`` are those of the updates. ``edge_width_s`` is how
    closely the latest updates are known, ``None`` before the first. ``in_call_s`` is how long the read that has not
    come back has taken so far, ``None`` between reads; ``silent_s`` is the time since one came back.
    """

    device: int
    field: Field
    requested_hz: float
    effective_hz: float
    reads: int
    errors: int
    latency_s: float
    status: int
    locked: bool = False
    period_s: float | None = None
    jitter_s: float | None = None
    edge_width_s: float | None = None
    in_call_s: float | None = None
    silent_s: float | None = None


@dataclass(frozen=True, slots=True)
class SamplerStatistics:
    """How well the sampler keeps its promises, since it was opened.

    ``lateness_counts`` has one entry more than ``lateness_bounds_s``: reads later than every bound.
    ``read_errors`` counts by (kind of device, status), where a status is an NVML return code or a negative errno.
    """

    samples_total: int
    dropped_total: int
    ticks_total: int
    missed_ticks_total: int
    lateness_bounds_s: tuple[float, ...]
    lateness_counts: tuple[int, ...]
    lateness_sum_s: float
    read_errors: Mapping[tuple[DeviceKind, int], int]
    effective_hz: Mapping[str, float]
    read_time_s: float
    running_time_s: float
    cpu_time_s: float


def read_channels(handle: low_level.Handle) -> tuple[Channel, ...]:
    """Every polled (device, field) pair as it is now."""
    now_ns = monotonic_ns()
    return tuple(
        Channel(
            device=found["device"],
            field=Field(found["field"]),
            requested_hz=1e9 / found["requested_interval_ns"],
            effective_hz=1e9 / found["interval_ns"],
            reads=found["reads"],
            errors=found["errors"],
            latency_s=found["latency_ns"] / 1e9,
            status=found["status"],
            locked=bool(found["locked"]),
            period_s=found["period_ns"] / 1e9 or None,
            jitter_s=found["jitter_ns"] / 1e9 if found["locked"] else None,
            edge_width_s=found["edge_width_ns"] / 1e9 or None,
            in_call_s=_seconds_since(found["in_call_since_ns"], now_ns),
            silent_s=_seconds_since(found["last_read_ns"], now_ns),
        )
        for found in low_level.channels(handle)
    )


def read_statistics(handle: low_level.Handle, devices: Sequence[Device]) -> SamplerStatistics:
    """The sums of both threads since the sampler was opened."""
    found = low_level.statistics(handle)
    effective_hz: dict[str, float] = {}
    for channel in read_channels(handle):
        source = f"{devices[channel.device].kind}_{channel.field.name.lower()}"
        effective_hz[source] = min(effective_hz.get(source, channel.effective_hz), channel.effective_hz)
    return SamplerStatistics(
        samples_total=found["samples"],
        dropped_total=found["dropped"],
        ticks_total=found["ticks"],
        missed_ticks_total=found["missed_ticks"],
        lateness_bounds_s=low_level.lateness_bounds_s(),
        lateness_counts=found["lateness"],
        lateness_sum_s=found["lateness_sum_ns"] / 1e9,
        read_errors={(KINDS[kind], status): count for (kind, status), count in found["errors"].items()},
        effective_hz=effective_hz,
        read_time_s=found["read_ns"] / 1e9,
        running_time_s=found["running_ns"] / 1e9,
        cpu_time_s=found["cpu_ns"] / 1e9,
    )


def _seconds_since(time_ns: int, now_ns: int) -> float | None:
    return max(now_ns - time_ns, 0) / 1e9 if time_ns else None
