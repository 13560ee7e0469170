"""Calibrates devices while they are sampled, and keeps what it finds across restarts.

A device is known by its UUID, its name and its driver's version: a new driver may have another cadence, so it is
watched again. The file is JSON, is replaced whole, and is a cache: one that cannot be read costs three seconds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.files import write_text
from llmpower.sampling.calibration import Calibration, calibrate
from llmpower.sampling.low_level import SAMPLE_DTYPE
from llmpower.types import Device, Field

LOOK_AGAIN_NS = 1_000_000_000

SCHEMA = "llmpower.calibration/1"

WATCH_S = 3.0
"""How long a field is watched at least: 30 updates of a counter that moves every 100 ms."""

WINDOW_S = 10.0
"""A field that has shown no period is judged by this much of its latest past, until it does."""

Fields = Mapping[Field, Calibration]

logger = logging.getLogger("llmpower.sampling")


class Calibrator:
    """Watches the samples of devices until their periods are known.

    Args:
        devices: what is sampled; CPU packages show no periods and are passed over.
        kept: what is known already, by UUID (from :func:`read_calibrations`).
    """

    def __init__(self, devices: Sequence[Device], kept: Mapping[str, Fields] | None = None) -> None:
        self.found: dict[str, dict[Field, Calibration]] = {uuid: dict(fields) for uuid, fields in (kept or {}).items()}
        """What is known, by UUID and field."""
        self._waiting = {
            (device.index, field): device.uuid
            for device in devices
            if device.kind == "gpu"
            for field in Field
            if field not in self.found.get(device.uuid, {})
        }
        self._samples: dict[tuple[int, Field], NDArray[np.void]] = {}
        self._look_ns: dict[tuple[int, Field], int] = {}

    def take(self, samples: NDArray[np.void]) -> list[str]:
        """Take new samples in, oldest first; the UUIDs of devices of which something new is known."""
        new: dict[str, None] = {}
        for key, uuid in list(self._waiting.items()):
            device, field = key
            own = samples[(samples["device"] == device) & (samples["field"] == field)]
            seen = np.concatenate((self._samples.get(key, np.zeros(0, SAMPLE_DTYPE)), own))
            self._samples[key] = seen
            if len(own) == 0:
                continue
            now_ns = int(seen["after_ns"][-1])
            if now_ns < self._look_ns.setdefault(key, int(seen["after_ns"][0] + WATCH_S * 1e9)):
                continue
            calibration = calibrate(seen, device, field)
            if calibration.period_s is not None:
                self.found.setdefault(uuid, {})[field] = calibration
                del self._waiting[key], self._samples[key]
                new[uuid] = None
            else:
                self._samples[key] = seen[seen["after_ns"] > now_ns - WINDOW_S * 1e9]
                self._look_ns[key] = now_ns + LOOK_AGAIN_NS
        return list(new)


def read_calibrations(path: Path, devices: Sequence[Device]) -> dict[str, dict[Field, Calibration]]:
    """What is kept of these devices under their present drivers, by UUID; nothing where there is no file.

    A file that cannot be used is reported to the log and treated as empty: calibration is then redone.
    """
    present = {_key(device): device.uuid for device in devices}
    return {
        present[key]: {Field[name.upper()]: Calibration(**found) for name, found in entry["fields"].items()}
        for key, entry in _entries(path).items()
        if key in present
    }


def write_calibrations(path: Path, devices: Sequence[Device], found: Mapping[str, Fields]) -> None:
    """Write what is known of these devices; of those that are not there now, what the file has is kept.

    Raises:
        InputError: the file cannot be written.
    """
    entries = _entries(path)
    for device in devices:
        if device.uuid not in found:
            continue
        entries = {key: entry for key, entry in entries.items() if key[0] != device.uuid}
        entries[_key(device)] = {
            "uuid": device.uuid,
            "name": device.name,
            "driver_version": device.driver_version,
            "fields": {field.name.lower(): asdict(calibration) for field, calibration in found[device.uuid].items()},
        }
    document = {"schema": SCHEMA, "devices": list(entries.values())}
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n", "--store")


def _key(device: Device) -> tuple[str, str, str]:
    return device.uuid, device.name, device.driver_version


def _entries(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The file's entries by UUID, name and driver version, each of which holds what :class:`Calibration` takes."""
    try:
        document = json.loads(path.read_text("utf-8"))
        if document["schema"] != SCHEMA:
            raise ValueError(f"its schema is {document['schema']!r}, not {SCHEMA!r}")
        entries = {}
        for entry in document["devices"]:
            for name, found in entry["fields"].items():
                _check(Field[name.upper()], Calibration(**found))
            entries[str(entry["uuid"]), str(entry["name"]), str(entry["driver_version"])] = entry
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        logger.warning("%s cannot be used (%s: %s); devices are calibrated again", path, type(error).__name__, error)
        return {}
    return entries


def _check(field: Field, calibration: Calibration) -> None:
    times = (calibration.period_s, calibration.jitter_s, calibration.edge_width_s)
    numbers = (*times, calibration.latency_p50_s, calibration.latency_p99_s)
    if not all(number is None or (isinstance(number, int | float) and 0 <= number < 3600) for number in numbers):
        raise ValueError(f"{field.name.lower()} has impossible times")
    if calibration.period_s is None or calibration.period_s <= 0:
        raise ValueError(f"{field.name.lower()} has no period")
