"""How the devices answer: what goes wrong with their reads is logged, at most once a minute, and so is its end.

Nothing here asks a device. The sampler's threads do, and leave behind what they are at; a call that hangs is seen by
its not having come back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.daemon.logs import about
from llmpower.metrics import FieldState
from llmpower.phrases import quantity
from llmpower.sampling import EPOCH, Calibration, Channel, SamplerStatistics, describe_status
from llmpower.types import Device, DeviceKind, Field

STALLED_S = 3.0
"""A call that takes longer than this hangs; the slowest seen from a driver that works take some milliseconds."""

SLOWED = 0.9
"""Of the rate asked for; a lower one in effect is reported."""

MIN_SLOWED_S = 60.0
"""How long no change of rates is reported after one: on a busy machine calls are slow at one moment and fast at the
next."""

UNATTRIBUTED_S = 60.0
"""How long nothing more is said of energy that is nobody's after it was."""

logger = logging.getLogger("llmpower.daemon")


class Reading:
    """Keeps what is wrong with the reads of each device.

    Args:
        devices: what is sampled, in the sampler's order.
        fail: takes a sentence on something that went wrong, and the UUID of the device concerned where it is one.
    """

    def __init__(self, devices: Sequence[Device], fail: Callable[[str, str | None], None]) -> None:
        self._devices = tuple(devices)
        self._fail = fail
        self._errors: dict[tuple[DeviceKind, int], int] = {}
        self._slowed: frozenset[str] = frozenset()  # those said, until all are as they should be
        self._slowed_ns: int | None = None
        self._channels: tuple[Channel, ...] = ()
        self._calibrations: dict[str, dict[Field, Calibration]] = {}
        self._looked_ns: int | None = None
        self._good_ns: dict[str, int] = {}
        self._unattributed: dict[str, tuple[float, int]] = {}  # joules that were said, and when
        self.stalled_s: dict[str, float] = {}
        """Devices that a hanging call keeps from being read, by UUID, and since how long."""

    def look(
        self, samples: NDArray[np.void], statistics: SamplerStatistics, channels: Sequence[Channel], now_ns: int
    ) -> None:
        """Take note of how reads have gone since the last look, and report what has changed."""
        self._channels = tuple(channels)
        self._note_good(samples, now_ns)
        self._note_errors(samples, statistics)
        self._note_breaks(samples)
        self._note_stalls()
        self._note_rates(now_ns)

    def note_unattributed(self, device: Device, energy_j: float, now_ns: int) -> None:
        """Report what a device has drawn so far that is neither a span's nor idle, where that has become more."""
        said_j, said_ns = self._unattributed.get(device.uuid, (0.0, now_ns - round(UNATTRIBUTED_S * 1e9)))
        if energy_j > said_j and now_ns - said_ns >= UNATTRIBUTED_S * 1e9:
            self._unattributed[device.uuid] = energy_j, now_ns
            logger.warning(
                "%s (%s) has drawn %s that belong to no request and are not idle: nobody has read it meanwhile",
                device.name,
                device.uuid,
                quantity(energy_j - said_j, "J"),
                extra=about(device.uuid),
            )

    def silent_s(self, device: Device) -> float | None:
        """Seconds for which a device has shown nothing or its counter has failed; ``None`` before the first look."""
        return None if self._looked_ns is None else (self._looked_ns - self._good_ns[device.uuid]) / 1e9

    def learn(self, uuid: str, calibrations: Mapping[Field, Calibration]) -> None:
        """Take what calibration has found of a device."""
        self._calibrations[uuid] = dict(calibrations)

    def fields(self, device: Device) -> dict[str, FieldState]:
        """How each field of a device is read, by name."""
        found = self._calibrations.get(device.uuid, {})
        return {
            channel.field.name.lower(): _field_state(channel, found.get(channel.field))
            for channel in self._channels
            if channel.device == device.index
        }

    def _note_good(self, samples: NDArray[np.void], now_ns: int) -> None:
        good = set(samples["device"][samples["status"] == 0].tolist())
        # What power answers says nothing of the joules, and reads of a slow counter lie many looks apart.
        uncounted = {channel.device for channel in self._channels if channel.field is Field.ENERGY and channel.status}
        for device in self._devices:
            # One that was never good has been silent since the first look.
            if device.index in good - uncounted or self._looked_ns is None:
                self._good_ns[device.uuid] = now_ns
        self._looked_ns = now_ns

    def _note_errors(self, samples: NDArray[np.void], statistics: SamplerStatistics) -> None:
        for (kind, status), count in statistics.read_errors.items():
            if count <= self._errors.get((kind, status), 0):
                continue
            self._errors[kind, status] = count
            failed = [self._devices[i] for i in np.unique(samples["device"][samples["status"] == status])]
            whose = [(f"{device.name} ({device.uuid})", device.uuid) for device in failed if device.kind == kind]
            # Whose samples were lost is not known by name.
            for name, uuid in whose or [(f"a {kind}", None)]:
                self._fail(f"reads of {name} fail: {describe_status(status)}; see 'llmpower doctor'", uuid)

    def _note_breaks(self, samples: NDArray[np.void]) -> None:
        marks = samples[samples["status"] == EPOCH]
        for index in dict.fromkeys(marks["device"].tolist()):
            device = self._devices[index]
            logger.warning(
                "%s (%s) is back after a break (lost, driver reloaded, or the machine slept); "
                "spans that cross it have no joules",
                device.name,
                device.uuid,
                extra=about(device.uuid),
            )

    def _note_stalls(self) -> None:
        hung = {channel.device for channel in self._channels if (channel.in_call_s or 0.0) > STALLED_S}
        # One thread reads all GPUs and another all CPU packages, so whoever hangs keeps its like waiting.
        sources = {self._devices[index].kind == "gpu" for index in hung}
        before, self.stalled_s = self.stalled_s, {}
        for channel in self._channels:
            device = self._devices[channel.device]
            if (device.kind == "gpu") in sources and channel.silent_s is not None:
                shortest_s = self.stalled_s.get(device.uuid, channel.silent_s)
                self.stalled_s[device.uuid] = min(shortest_s, channel.silent_s)
        for device in self._devices:
            if device.uuid in self.stalled_s and device.uuid not in before:
                why = (
                    "a driver call on it does not return, see dmesg"
                    if device.index in hung
                    else "it waits behind another device whose driver call does not return"
                )
                self._fail(f"{device.name} ({device.uuid}) is stalled: {why}", device.uuid)
            elif device.uuid in before and device.uuid not in self.stalled_s:
                logger.warning("%s (%s) answers again", device.name, device.uuid, extra=about(device.uuid))

    def _note_rates(self, now_ns: int) -> None:
        slowed: dict[str, float] = {}
        asked: dict[str, float] = {}
        for channel in self._channels:
            if channel.effective_hz < SLOWED * channel.requested_hz:
                name = f"{self._devices[channel.device].kind} {channel.field.name.lower()}"
                slowed[name] = min(channel.effective_hz, slowed.get(name, channel.effective_hz))
                asked[name] = channel.requested_hz
        recent = self._slowed_ns is not None and now_ns - self._slowed_ns < MIN_SLOWED_S * 1e9
        # Where one field is slow for good, another that comes and goes is no news each time.
        news = slowed.keys() - self._slowed if slowed else self._slowed
        if recent or not news:
            return
        self._slowed = self._slowed | slowed.keys() if slowed else frozenset()
        self._slowed_ns = now_ns
        if slowed:
            rates = ", ".join(f"{name} {hz:.3g} instead of {asked[name]:.3g}" for name, hz in slowed.items())
            logger.warning(
                "driver calls are slow, so reads a second are fewer: %s; a larger --max-read-share allows more", rates
            )
        else:
            logger.info("reads come at the rate asked for again")


def _field_state(channel: Channel, calibration: Calibration | None) -> FieldState:
    return FieldState(
        status=describe_status(channel.status),
        requested_hz=channel.requested_hz,
        effective_hz=channel.effective_hz,
        locked=channel.locked,
        edge_width_s=channel.edge_width_s,
        period_s=calibration.period_s if calibration else None,
        jitter_s=calibration.jitter_s if calibration else None,
        latency_p50_s=calibration.latency_p50_s if calibration else None,
        latency_p99_s=calibration.latency_p99_s if calibration else None,
    )
