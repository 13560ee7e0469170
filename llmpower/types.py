"""The records that pass between the stages: frozen, with the unit in every name.

A reading that is not there is ``None``, never 0. Times that order events are nanoseconds of ``CLOCK_MONOTONIC``
on the machine that measured; wall-clock time appears once, in :attr:`Measurement.started_at`, for people.

Records of which there are thousands a second are msgspec's structs, which are made in a tenth of the time that a frozen
dataclass takes and look the same from outside; ``msgspec.structs.replace`` makes a changed copy.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import hypot
from typing import Literal

import msgspec
from msgspec import Struct

DeviceKind = Literal["gpu", "cpu_package", "dram"]

Quality = Literal["measured", "interpolated", "modelled", "unavailable"]
"""How a figure came about: 10 or more ticks of the energy counter inside the span, 2 to 9 (or 2 readings of the power
in longer ticks), fewer, or not at all."""

Method = Literal["counter", "power", "none"]
"""Energy counter interpolated at its edges, instantaneous power integrated, or nothing to go by."""


class Field(enum.IntEnum):
    """What a sample's value is: an energy counter in µJ, or a power in µW. The numbers are those of llmpower.h."""

    ENERGY = 1
    POWER_INSTANT = 2
    POWER_AVERAGE = 3


EPOCH_STATUS = -100_000
"""Status of a sample that is not a read: counts before it and after it have no connection."""

SLOW_READ_NS = 1_000_000
"""A read that takes longer is slow: the sampler then reads a counter rarely, and mostly far from its updates."""


@dataclass(frozen=True, slots=True)
class Device:
    """One thing that draws power and can be asked how much.

    ``index`` is the sampler's own; it is neither CUDA's nor stable across restarts, so everything is keyed by
    ``uuid``. Periods are what calibration observed, ``None`` before it has seen enough updates. ``pci_bus_id`` is what
    the kernel's messages call a card (``00000000:07:00.0``), empty where there is none. ``number`` is what its driver
    and ``nvidia-smi`` call it by: not ``index`` where a card before it could not be opened.
    """

    uuid: str
    index: int
    name: str
    kind: DeviceKind
    simulated: bool
    has_energy_counter: bool
    has_power: bool
    driver_version: str
    power_period_s: float | None = None
    energy_period_s: float | None = None
    pci_bus_id: str = ""
    number: int = 0


class Span(Struct, frozen=True):
    """One call that ran a model: what, where, when, and how many tokens (whole batch, padding excluded).

    ``device_uuids`` is ``None`` when the caller does not know where it ran, and empty when it knows that no GPU
    took part. ``first_token_ns`` is ``None`` when the moment was not seen. ``uid`` is the user who sent it, by the
    kernel's word and never the sender's; ``None`` where it came by a way that does not tell.
    """

    span_id: str
    model_name: str
    device_uuids: tuple[str, ...] | None
    start_ns: int
    first_token_ns: int | None
    end_ns: int
    input_tokens: int
    output_tokens: int
    batch_size: int
    hostname: str
    pid: int
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)
    uid: int | None = None

    @property
    def runtime_s(self) -> float:
        """Wall time from start to end, in seconds."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def time_to_first_token_s(self) -> float | None:
        """Seconds from the start to the first token, where it was seen."""
        return None if self.first_token_ns is None else (self.first_token_ns - self.start_ns) / 1e9


class Measurement(Struct, frozen=True):
    """A span with its joules. Every energy has a standard deviation; ``None`` means not measured.

    ``gpu_energy_j`` sums the span's GPUs, ``cpu_energy_j`` the CPU packages. Prefill and decode split
    ``gpu_energy_j`` at the first token. ``allocated`` is true when other spans ran on the same device at the same
    time, so that the figure is a share by rule and not a measurement of this span alone. All energies are gross; the
    idle energies are the part of them that the devices would have drawn with nothing to do, by the idle power that
    was last seen.
    """

    span: Span
    system: str
    started_at: datetime
    gpu_energy_j: float | None
    gpu_energy_std_j: float | None
    cpu_energy_j: float | None
    cpu_energy_std_j: float | None
    prefill_energy_j: float | None
    decode_energy_j: float | None
    quality: Quality
    method: Method
    allocated: bool
    simulated: bool
    gpu_idle_energy_j: float | None = None
    cpu_idle_energy_j: float | None = None

    @property
    def energy_j(self) -> float | None:
        """The sum of what was measured, of GPUs and CPU packages; ``None`` where the span's own GPUs were not."""
        if self.quality == "unavailable":
            return None
        return (self.gpu_energy_j or 0.0) + (self.cpu_energy_j or 0.0)

    @property
    def energy_std_j(self) -> float | None:
        """Standard deviation of :attr:`energy_j`; its parts err independently."""
        if self.quality == "unavailable":
            return None
        return hypot(self.gpu_energy_std_j or 0.0, self.cpu_energy_std_j or 0.0)


@dataclass(frozen=True, slots=True)
class WorkCost:
    """What a model's work costs on one device, by what the device has shown: what shared energy is allocated by.

    ``energy_j`` has joules by feature of the work, ``std_j`` their standard deviations: a token of a prompt
    (``prompt``), a prompt's token and a token before it (``attention``), a step of decoding (``step``), a decoded token
    (``decode``), a decoded token and a token of its context (``context``). ``misfit`` is the root mean square of what
    these leave of the device's power over 0.1 s, relative to its mean; ``spread`` is how far requests are taken to
    differ from what their tokens say, relative.
    """

    model_name: str
    energy_j: Mapping[str, float]
    std_j: Mapping[str, float]
    observations: int
    misfit: float
    spread: float


MEASUREMENT_COLUMNS = (
    "span_id",
    "started_at",
    "hostname",
    "model_name",
    "system",
    "device_uuids",
    "input_tokens",
    "output_tokens",
    "batch_size",
    "runtime_s",
    "time_to_first_token_s",
    "gpu_energy_j",
    "gpu_energy_std_j",
    "cpu_energy_j",
    "cpu_energy_std_j",
    "prefill_energy_j",
    "decode_energy_j",
    "quality",
    "method",
    "allocated",
    "simulated",
    "gpu_idle_energy_j",
    "cpu_idle_energy_j",
)
"""Columns of every measurements file (CSV, Parquet, JSON lines), in order; one row per span."""
