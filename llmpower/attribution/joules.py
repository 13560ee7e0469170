"""What one span used: its entries on several devices, added up."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from msgspec import Struct

from llmpower.attribution.entry import Entry
from llmpower.types import Method, Quality, Span

_RANKS: dict[Quality, int] = {"unavailable": 0, "modelled": 1, "interpolated": 2, "measured": 3}


class Joules(Struct, frozen=True):
    """What one span used; ``None`` where it is not known."""

    span: Span
    gpu_energy_j: float | None
    gpu_energy_std_j: float | None
    cpu_energy_j: float | None
    cpu_energy_std_j: float | None
    prefill_energy_j: float | None
    decode_energy_j: float | None
    gpu_idle_energy_j: float | None
    cpu_idle_energy_j: float | None
    quality: Quality
    method: Method
    allocated: bool
    late: bool


class Sum(NamedTuple):
    """Over the devices of one kind; all of it ``None`` where there is none, or any is unknown."""

    energy_j: float | None = None
    std_j: float | None = None
    prefill_j: float | None = None
    decode_j: float | None = None
    idle_j: float | None = None
    """``None`` also where it is not known what a device would have drawn with nothing to do."""

    @property
    def known(self) -> bool:
        """Whether there is a sum."""
        return self.energy_j is not None


_UNKNOWN = Sum()


def add_up(entries: Sequence[Entry | None]) -> Sum:
    """The sum of a span's entries, ``None`` standing for a device that is not known here.

    Devices err independently, but for the span's share, of which the same rule decides on all of them: those deviations
    add linearly.
    """
    if not entries:
        return _UNKNOWN
    prefill_j = decode_j = var_j2 = share_std_j = 0.0
    idle_j: float | None = 0.0
    for entry in entries:
        if entry is None or not entry.known:
            return _UNKNOWN
        prefill_j += entry.prefill_j
        decode_j += entry.decode_j
        var_j2 += entry.var_j2
        share_std_j += entry.share_std_j
        idle_j = None if idle_j is None or entry.idle_j is None else idle_j + entry.idle_j
    return Sum(prefill_j + decode_j, sqrt(var_j2 + share_std_j * share_std_j), prefill_j, decode_j, idle_j)


def worst(qualities: Sequence[Quality]) -> Quality:
    """The least of several qualities; of none, ``unavailable``."""
    if len(qualities) == 1:
        return qualities[0]
    return min(qualities, key=_RANKS.__getitem__, default="unavailable")


def common(methods: Sequence[Method]) -> Method:
    """How a sum was found: by counters if all were."""
    if not methods:
        return "none"
    return "counter" if all(method == "counter" for method in methods) else "power"
