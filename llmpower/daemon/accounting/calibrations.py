"""The daemon's calibrations: read at the start, completed in the background, kept in a file beside the store."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from llmpower.daemon.accounting.engine import Engine
from llmpower.exceptions import InputError
from llmpower.sampling import Calibration, Calibrator, read_calibrations, write_calibrations
from llmpower.types import Device, Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger("llmpower.daemon")


def calibration_path(store: Path) -> Path:
    """Where a daemon with this store keeps its calibrations."""
    return store.with_name("calibration.json")


class Calibrations:
    """Tells the engine what is known of each device, as soon as it is.

    Args:
        path: the file.
        devices: what is sampled.
        engine: given what the file has at once, and the rest when it has been measured.
    """

    def __init__(self, path: Path, devices: Sequence[Device], engine: Engine) -> None:
        self._path = path
        self._devices = {device.uuid: device for device in devices}
        self._engine = engine
        self._calibrator = Calibrator(devices, read_calibrations(path, devices))
        self._changed = False
        self._keeping: Thread | None = None
        for uuid, fields in self._calibrator.found.items():
            engine.learn(uuid, fields)

    def take(self, samples: NDArray[np.void]) -> None:
        """Take new samples in; when they complete a device's calibration, say so and have it written down."""
        new = self._calibrator.take(samples)
        for uuid in new:
            fields = self._calibrator.found[uuid]
            self._engine.learn(uuid, fields)
            found = "; ".join(_described(field, calibration) for field, calibration in sorted(fields.items()))
            logger.info("calibrated %s (%s): %s", self._devices[uuid].name, uuid, found)
        self._changed |= bool(new)
        if self._changed and not (self._keeping and self._keeping.is_alive()):
            self._changed = False
            kept = {uuid: dict(fields) for uuid, fields in self._calibrator.found.items()}
            # A disk that hangs must not hold up the loop.
            self._keeping = Thread(target=self._keep, args=(kept,), name="llmpower-calibrations", daemon=True)
            self._keeping.start()

    def _keep(self, found: Mapping[str, Mapping[Field, Calibration]]) -> None:
        try:
            write_calibrations(self._path, tuple(self._devices.values()), found)
        except InputError as error:
            self._engine.fail(f"calibrations cannot be kept: {error}")


def _described(field: Field, calibration: Calibration) -> str:
    period_ms, jitter_ms = ((seconds or 0.0) * 1e3 for seconds in (calibration.period_s, calibration.jitter_s))
    p50_us, p99_us = ((seconds or 0.0) * 1e6 for seconds in (calibration.latency_p50_s, calibration.latency_p99_s))
    return (
        f"{field.name.lower()} moves every {period_ms:.1f} ms (jitter {jitter_ms:.1f} ms), "
        f"a read takes {p50_us:.0f} µs (p99 {p99_us:.0f} µs)"
    )
