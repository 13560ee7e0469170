"""The only access to C: cffi's module, and nothing but calls that turn C values into Python ones.

cffi objects have no types that mypy knows, so ``Any`` begins and ends in this file. Everything above it sees
handles, integers, strings and NumPy arrays.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NewType

import numpy as np
from numpy.typing import NDArray

from llmpower.sampling import _sampler  # type: ignore[attr-defined]  # compiled from csrc/llmpower.h
from llmpower.types import EPOCH_STATUS, SLOW_READ_NS, Field

ffi: Any = _sampler.ffi
lib: Any = _sampler.lib

Handle = NewType("Handle", object)
"""A sampler in C: stopped, closed and freed with its last reference, which whoever is inside a call has."""

ERROR_BYTES = 512
NO_LIBRARY: int = lib.LLMPOWER_NO_LIBRARY
WRONG_LIBRARY: int = lib.LLMPOWER_WRONG_LIBRARY
DRIVER: int = lib.LLMPOWER_DRIVER
TOO_MANY: int = lib.LLMPOWER_TOO_MANY
FORKED: int = lib.LLMPOWER_FORKED
STUCK: int = lib.LLMPOWER_STUCK
EPOCH: int = lib.LLMPOWER_EPOCH
ZERO: int = lib.LLMPOWER_ZERO
WILD: int = lib.LLMPOWER_WILD

SAMPLE_DTYPE = np.dtype(
    [
        ("before_ns", np.int64),
        ("after_ns", np.int64),
        ("value", np.int64),
        ("status", np.int32),
        ("device", np.uint16),
        ("field", np.uint8),
        ("reserved", np.uint8),
    ]
)
assert list(Field) == [lib.LLMPOWER_ENERGY, lib.LLMPOWER_POWER_INSTANT, lib.LLMPOWER_POWER_AVERAGE]
assert EPOCH == EPOCH_STATUS, "a mark in C is none to those who read samples"
assert lib.LLMPOWER_SLOW_READ_NS == SLOW_READ_NS, "the sampler reads midway where nobody expects it to"
assert SAMPLE_DTYPE.itemsize == ffi.sizeof("struct llmpower_sample"), "the layout in llmpower.h has changed"


def open_sampler(
    *,
    nvml_library: str | None,
    powercap_root: Path | None,
    power_interval_ns: int,
    energy_interval_ns: int,
    powercap_interval_ns: int,
    max_read_share: float,
    ring_capacity: int,
) -> tuple[Handle | None, int, str]:
    """Open the sources; ``(handle, 0, "")``, or ``(None, failure code, one line of explanation)``."""
    library = ffi.NULL if nvml_library is None else ffi.new("char[]", nvml_library.encode())
    root = ffi.NULL if powercap_root is None else ffi.new("char[]", str(powercap_root).encode())
    options = ffi.new("struct llmpower_options *")
    options.nvml_library = library
    options.powercap_root = root
    options.power_interval_ns = power_interval_ns
    options.energy_interval_ns = energy_interval_ns
    options.powercap_interval_ns = powercap_interval_ns
    options.max_read_share = max_read_share
    options.ring_capacity = ring_capacity
    out = ffi.new("struct llmpower_sampler **")
    error = ffi.new("char[]", ERROR_BYTES)
    failure = int(lib.llmpower_open(options, out, error, ERROR_BYTES))
    if failure:
        return None, failure, _text(error)
    return Handle(ffi.gc(out[0], lib.llmpower_close)), 0, ""


def start(handle: Handle) -> int:
    """Start the sampling threads; 0 or a failure code."""
    return int(lib.llmpower_start(handle))


def stop(handle: Handle) -> int:
    """Stop the sampling threads; 0 or a failure code."""
    return int(lib.llmpower_stop(handle))


def rest(handle: Handle, resting: bool) -> None:
    """Read less often, or as often as was asked for again."""
    lib.llmpower_rest(handle, resting)


def devices(handle: Handle) -> list[dict[str, Any]]:
    """Every device as the fields of ``struct llmpower_device``."""
    found = []
    for index in range(lib.llmpower_device_count(handle)):
        device = lib.llmpower_device_at(handle, index)
        found.append(
            {
                "uuid": _text(device.uuid),
                "name": _text(device.name),
                "driver_version": _text(device.driver_version),
                "pci_bus_id": _text(device.pci_bus_id),
                "kind": int(device.kind),
                "number": int(device.number),
                "simulated": bool(device.simulated),
                "fields": int(device.fields),
                "scope": int(device.scope),
            }
        )
    return found


def unopened(handle: Handle) -> dict[int, int]:
    """Why GPUs could not be opened, as a status, by their numbers."""
    found: dict[int, int] = {}
    while (gpu := lib.llmpower_unopened_at(handle, len(found))) != ffi.NULL:
        found[int(gpu.number)] = int(gpu.status)
    return found


def device_of(handle: Handle, uuid: str) -> int:
    """Index of the device that a UUID stands for, or -1."""
    return int(lib.llmpower_device_of(handle, uuid.encode()))


def processes(handle: Handle, device: int) -> tuple[int, list[int]]:
    """``(status, ids)`` of the processes that compute on a device, as its driver reports them."""
    pids = ffi.new("uint32_t[]", lib.LLMPOWER_MAX_PROCESSES)
    count = ffi.new("uint32_t *")
    status = int(lib.llmpower_processes(handle, device, pids, count))
    return status, [] if status else [int(pid) for pid in pids[0 : count[0]]]


def power_limit(handle: Handle, device: int) -> tuple[int, int]:
    """``(status, µW)``: the power above which a device slows itself down now."""
    limit_uw = ffi.new("int64_t *")
    status = int(lib.llmpower_power_limit(handle, device, limit_uw))
    return status, int(limit_uw[0])


def temperature(handle: Handle, device: int) -> tuple[int, int]:
    """``(status, °C)``: how warm a GPU is now, in whole degrees."""
    celsius = ffi.new("int32_t *")
    status = int(lib.llmpower_temperature(handle, device, celsius))
    return status, int(celsius[0])


def drain(handle: Handle, buffer: NDArray[np.void]) -> int:
    """Move waiting samples into ``buffer`` (of :data:`SAMPLE_DTYPE`); returns how many."""
    out = ffi.cast("struct llmpower_sample *", ffi.from_buffer(buffer, require_writable=True))
    return int(lib.llmpower_drain(handle, out, len(buffer)))


def statistics(handle: Handle) -> dict[str, Any]:
    """``struct llmpower_statistics`` as a dictionary; errors as ``{(kind, status): count}``."""
    out = ffi.new("struct llmpower_statistics *")
    lib.llmpower_read_statistics(handle, out)
    numbers = ("samples", "dropped", "ticks", "missed_ticks", "read_ns", "running_ns", "cpu_ns", "lateness_sum_ns")
    found: dict[str, Any] = {name: int(getattr(out, name)) for name in numbers}
    found["lateness"] = tuple(int(count) for count in out.lateness)
    found["errors"] = {(int(e.kind), int(e.status)): int(e.count) for e in out.errors[0 : out.error_count]}
    return found


def channels(handle: Handle) -> list[dict[str, int]]:
    """Every polled (device, field) pair as the fields of ``struct llmpower_channel``."""
    out = ffi.new("struct llmpower_channel[]", lib.LLMPOWER_MAX_CHANNELS)
    count = lib.llmpower_read_channels(handle, out, len(out))
    names = [name for name, _ in ffi.typeof("struct llmpower_channel").fields]
    return [{name: int(getattr(out[i], name)) for name in names} for i in range(count)]


def lateness_bounds_s() -> tuple[float, ...]:
    """Upper bounds of the lateness histogram in seconds, without the last (+Inf)."""
    bounds = lib.llmpower_lateness_bounds_ns()
    return tuple(bounds[i] / 1e9 for i in range(lib.LLMPOWER_LATENESS_BUCKETS - 1))


def monotonic_ns() -> int:
    """The clock that samples bear; the same as :func:`time.monotonic_ns`, asked of C."""
    return int(lib.llmpower_monotonic_ns())


def true_energy_j(library: str, gpu: int, time_ns: int) -> float | None:
    """What the simulated library says its card has truly used; ``None`` when it no longer (or not yet) knows."""
    # The library is loaded already (a sampler has it open), so this only finds it again.
    simulated = _simulator_of(library)
    energy = _simulator_ffi().new("double *")
    return float(energy[0]) if simulated.llmpowerSimTrueEnergy(gpu, time_ns, energy) == 0 else None


@cache
def _simulator_of(library: str) -> Any:
    return _simulator_ffi().dlopen(library)


@cache
def _simulator_ffi() -> Any:
    # Reading a declaration takes a parser of C, 5 MB that no daemon needs.
    from cffi import FFI

    declared = FFI()
    declared.cdef("int llmpowerSimTrueEnergy(unsigned int gpu, long long time_ns, double *energy_j);")
    return declared


def _text(characters: Any) -> str:
    return str(ffi.string(characters).decode("utf-8", errors="replace"))
