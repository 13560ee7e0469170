"""The sampler: C threads that read every device when its values move, and an array of what they read.

The threads, one for GPUs and one for CPU packages, never take the GIL, so a busy interpreter makes no gap in the
samples; what Python does is empty the rings now and then. A drain later than a ring is long loses samples, and
:class:`~llmpower.sampling.statistics.SamplerStatistics` says how many.

An update of a GPU's energy or power is foreseen from the ones before and looked for closely when it is due; elsewhere
reads are sparse. ``rate_hz`` is how many reads a second each field gets on average, at most (csrc/phase.h).
"""

from __future__ import annotations

import weakref
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import DeviceError, LlmpowerError, NoDriverError
from llmpower.sampling import low_level
from llmpower.sampling.low_level import SAMPLE_DTYPE, monotonic_ns
from llmpower.sampling.simulator import PREFIX, simulated_library
from llmpower.sampling.statistics import KINDS, Channel, SamplerStatistics, read_channels, read_statistics
from llmpower.types import Device, Field

__all__ = ["MAX_READ_SHARE", "SAMPLE_DTYPE", "Backend", "Sampler", "monotonic_ns"]

Backend = Literal["auto", "nvml", "simulated"]

NVML_LIBRARY = "libnvidia-ml.so.1"
POWERCAP_ROOT = Path("/sys/class/powercap")
POWERCAP_HZ = 50.0
"""RAPL counters are read at this rate at most: they never wrap in between, and a read costs a few microseconds."""

MAX_READ_SHARE = 0.02
"""Of wall time that may pass inside driver calls; intervals stretch to keep it."""

RING_CAPACITY = 1 << 17
"""Samples; 8 GPUs at 1 kHz fill it in 8 seconds, and it takes 4 MiB."""


class Sampler:
    """Opens the power sources and samples each kind of them in a thread of its own.

    Args:
        backend: ``nvml`` for the driver's library, ``simulated`` for ours, ``auto`` for the driver's where it is
            installed and ours where it is not. A driver that is installed and refuses to start is an error, never a
            reason to simulate.
        nvml_library: path or soname instead of the backend's own.
        powercap_root: where the RAPL zones are; ``None`` for no CPU packages. A root that does not exist has none.
        rate_hz: reads a second of each GPU field.
        max_read_share: of wall time that may pass inside the driver's calls, by a thread for GPUs and one for CPUs.

    Raises:
        DeviceError: the library is missing, of the wrong kind, or refuses to start; or ``rate_hz`` or
            ``max_read_share`` cannot be kept.
    """

    def __init__(
        self,
        *,
        backend: Backend = "auto",
        nvml_library: str | PathLike[str] | None = None,
        powercap_root: Path | None = POWERCAP_ROOT,
        rate_hz: float = 100.0,
        ring_capacity: int = RING_CAPACITY,
        max_read_share: float = MAX_READ_SHARE,
    ) -> None:
        if not 0.1 <= rate_hz <= 10_000:
            raise DeviceError("--rate", rate_hz, "samples a second must lie between 0.1 and 10000")
        if not 0.001 <= max_read_share <= 1:
            raise DeviceError("--max-read-share", max_read_share, "must lie between 0.001 and 1 of wall time")
        interval_ns = round(1e9 / rate_hz)

        def open_with(library: str) -> tuple[low_level.Handle | None, int, str]:
            return low_level.open_sampler(
                nvml_library=library,
                powercap_root=powercap_root,
                power_interval_ns=interval_ns,
                energy_interval_ns=interval_ns,
                powercap_interval_ns=max(interval_ns, round(1e9 / POWERCAP_HZ)),
                max_read_share=max_read_share,
                ring_capacity=ring_capacity,
            )

        library = str(simulated_library()) if backend == "simulated" else NVML_LIBRARY
        if nvml_library is not None:
            library = fspath(nvml_library)
        handle, failure, explanation = open_with(library)
        if failure == low_level.NO_LIBRARY and backend == "auto" and nvml_library is None:
            library = str(simulated_library())
            handle, failure, explanation = open_with(library)
        if handle is None:
            raise _open_error(library, failure, explanation)
        self.library = library
        self._handle: low_level.Handle | None = handle
        self._buffer = np.zeros(4096, dtype=SAMPLE_DTYPE)
        # At interpreter exit too: the thread must be gone before the module that holds its code.
        self._finalizer = weakref.finalize(self, low_level.stop, handle)
        self.devices = _devices(handle)
        self.of_module = frozenset(found["uuid"] for found in low_level.devices(handle) if found["scope"])
        """GPUs that answer only for the module they are part of (GH200): their power includes its CPU and memory."""
        self.unopened = low_level.unopened(handle)
        """GPUs that the driver counts and would not open, by its numbers, with the status of why: none is sampled.

        Those that this process may not open, as those of other jobs, are not among them.
        """

    @property
    def backend(self) -> Literal["nvml", "simulated"]:
        """What answers: the driver, or the simulated card."""
        return "simulated" if any(device.simulated for device in self.devices) else "nvml"

    def device_of(self, uuid: str) -> Device | None:
        """The device whose power a UUID stands for; for a MIG instance, which has none of its own, its parent.

        Instances are those that were there when the sampler was opened. CUDA tells a UUID without NVML's ``GPU-`` or
        ``MIG-``, so who has it from there may take an instance for a GPU; its 128 bits are no other device's.
        """
        handle = self._open_handle()
        index = low_level.device_of(handle, uuid)
        if index < 0 and uuid.startswith("GPU-"):
            index = low_level.device_of(handle, f"MIG-{uuid.removeprefix('GPU-')}")
        return None if index < 0 else self.devices[index]

    def processes(self, device: Device) -> tuple[int, frozenset[int]]:
        """Status, and ids of the processes that compute on a GPU now, as the machine itself counts processes.

        A status other than 0 (see :func:`describe_status`) means that they are not known. The driver takes
        milliseconds, and other calls wait for it; one thread at a time may ask.
        """
        status, pids = low_level.processes(self._open_handle(), device.index)
        return status, frozenset(pids)

    def power_limit_w(self, device: Device) -> float | None:
        """The power in watts above which a GPU slows itself down now; ``None`` where its driver does not say.

        The driver is asked, beside the threads that sample; one thread at a time may ask.
        """
        status, limit_uw = low_level.power_limit(self._open_handle(), device.index)
        return None if status else limit_uw / 1e6

    def temperature_c(self, device: Device) -> float | None:
        """How warm a GPU is now, in whole degrees Celsius; ``None`` where its driver does not say.

        The driver is asked, beside the threads that sample; one thread at a time may ask.
        """
        status, celsius = low_level.temperature(self._open_handle(), device.index)
        return None if status else float(celsius)

    def start(self) -> None:
        """Start the sampling threads; once started, starting again does nothing.

        Raises:
            LlmpowerError: the thread cannot be started, or this is a forked child.
        """
        failure = low_level.start(self._open_handle())
        if failure == low_level.FORKED:
            raise LlmpowerError("this sampler was opened before the process forked; open a new one in the child")
        if failure:
            raise LlmpowerError(f"the sampling thread could not be started (code {failure})")

    def stop(self) -> None:
        """Stop the threads; what they have read can still be drained.

        Raises:
            LlmpowerError: a driver call has not returned for five seconds; the thread was left behind.
        """
        if low_level.stop(self._open_handle()) == low_level.STUCK:
            raise LlmpowerError("a driver call does not return, so the sampling thread was left behind; see dmesg")

    def rest(self, resting: bool) -> None:
        """Read less often while that will do: counters a quarter as often, power to look at 4 times a second.

        At the end of it everything is read at once, and as often as was asked for again.
        """
        low_level.rest(self._open_handle(), resting)

    def read_now(self) -> None:
        """Read everything at once, however far apart reads are: what nobody waits for any longer is known then."""
        self.rest(True)
        self.rest(False)

    def close(self) -> None:
        """Stop and give everything back; safe to repeat, and in a forked child.

        Another thread that is inside a call gets its answer; what that needs is given back when it has it.
        """
        self._handle = None
        self._finalizer()

    def drain(self) -> NDArray[np.void]:
        """What was read since the last drain: an array of :data:`SAMPLE_DTYPE`, shape (n,), GPUs before CPU packages.

        Of each device the oldest comes first. A row with status :data:`~llmpower.sampling.EPOCH` is not a read but a
        mark: values of that device and field before and after it cannot be compared.
        """
        handle = self._open_handle()
        parts = []
        while (count := low_level.drain(handle, self._buffer)) > 0:
            parts.append(self._buffer[:count].copy())
            if count < len(self._buffer):
                break
        return np.concatenate(parts) if parts else np.zeros(0, dtype=SAMPLE_DTYPE)

    def channels(self) -> tuple[Channel, ...]:
        """Every polled (device, field) pair, with the rate in effect and the latency of its reads; never waits."""
        return read_channels(self._open_handle())

    def statistics(self) -> SamplerStatistics:
        """How the sampler has done so far."""
        return read_statistics(self._open_handle(), self.devices)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_handle(self) -> low_level.Handle:
        handle = self._handle
        if handle is None:
            raise LlmpowerError("this sampler is closed; open a new one")
        return handle


def _devices(handle: low_level.Handle) -> tuple[Device, ...]:
    return tuple(
        Device(
            uuid=found["uuid"],
            index=index,
            name=found["name"],
            kind=KINDS[found["kind"]],
            simulated=found["simulated"],
            has_energy_counter=bool(found["fields"] >> Field.ENERGY & 1),
            has_power=bool(found["fields"] >> Field.POWER_INSTANT & 1 or found["fields"] >> Field.POWER_AVERAGE & 1),
            driver_version=found["driver_version"],
            pci_bus_id=found["pci_bus_id"],
            number=index if found["number"] < 0 else found["number"],
        )
        for index, found in enumerate(low_level.devices(handle))
    )


def _open_error(library: str, failure: int, explanation: str) -> DeviceError:
    advice = {
        low_level.NO_LIBRARY: "install the NVIDIA driver, give --nvml-library PATH, or use --backend simulated",
        low_level.WRONG_LIBRARY: "not an NVML library; give the driver's libnvidia-ml.so.1 with --nvml-library PATH",
        low_level.TOO_MANY: "--powercap-root= leaves the CPU packages out",
        low_level.DRIVER: "the driver does not answer; check nvidia-smi and dmesg, reboot where it was upgraded, "
        "or use --backend simulated",
    }.get(failure, "it cannot be opened")
    if failure == low_level.DRIVER and library == str(simulated_library()):
        advice = f"the simulated GPU does not start; correct or unset {PREFIX}…"
    # The loader begins with the library's name, which is said already.
    kind = NoDriverError if failure == low_level.NO_LIBRARY else DeviceError
    return kind("NVML library", library, f"{explanation.removeprefix(f'{library}: ')}; {advice}")
