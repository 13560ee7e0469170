"""How often a card updates its power and energy fields and what asking costs, seen by a client of our own.

This is the raw driver and none of llmpower's sampler, so that it can contradict it: one thread polls one field at a
time through nvmlDeviceGetFieldValues as fast as calls return, and takes the distances between changes of the value. A
period shorter than a few calls cannot be seen, nor one of a value that does not change: the card must be at work.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import numpy as np

FIELDS = {"total energy (83)": 83, "power average (185)": 185, "power instant (186)": 186}
POLL_S = 0.0005


class _FieldValue(ctypes.Structure):
    """nvmlFieldValue_t: 40 bytes."""

    _fields_ = (
        ("fieldId", ctypes.c_uint),
        ("scopeId", ctypes.c_uint),
        ("timestamp", ctypes.c_longlong),
        ("latencyUsec", ctypes.c_longlong),
        ("valueType", ctypes.c_uint),
        ("nvmlReturn", ctypes.c_uint),
        ("value", ctypes.c_ulonglong),
    )


class Card:
    """GPU 0 behind an NVML library."""

    def __init__(self, library: str) -> None:
        self._nvml: Any = ctypes.CDLL(library)
        _check(self._nvml.nvmlInit_v2(), "nvmlInit_v2")
        self._device = ctypes.c_void_p()
        _check(self._nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device)), "nvmlDeviceGetHandleByIndex_v2")

    def close(self) -> None:
        """Give NVML back."""
        self._nvml.nvmlShutdown()

    def survey(self, seconds: float) -> dict[str, dict[str, float | int | None]]:
        """Poll each field for so long; by name its status, period, jitter and latency."""
        return {name: self._survey_field(field, seconds) for name, field in FIELDS.items()}

    def _survey_field(self, field: int, seconds: float) -> dict[str, float | int | None]:
        asked = _FieldValue(fieldId=field)
        changed_ns: list[int] = []
        latency_ns: list[int] = []
        statuses: dict[int, int] = {}
        last: int | None = None
        until_ns = time.monotonic_ns() + round(seconds * 1e9)
        while (before_ns := time.monotonic_ns()) < until_ns:
            code = self._nvml.nvmlDeviceGetFieldValues(self._device, 1, ctypes.byref(asked))
            after_ns = time.monotonic_ns()
            status = int(code or asked.nvmlReturn)
            statuses[status] = statuses.get(status, 0) + 1
            latency_ns.append(after_ns - before_ns)
            if status == 0:
                # Powers are 32 bits wide; the upper half of the union is not theirs.
                value = int(asked.value) if field == FIELDS["total energy (83)"] else int(asked.value) & 0xFFFFFFFF
                if last is not None and value != last:
                    changed_ns.append(after_ns)
                last = value
            elif 0 not in statuses and len(latency_ns) > 100:
                break
            time.sleep(POLL_S)
        distances_s = np.diff(changed_ns) / 1e9
        known = len(distances_s) > 8
        return {
            "calls": len(latency_ns),
            "failed": len(latency_ns) - statuses.get(0, 0),
            "status": max(statuses, key=lambda each: statuses[each]),
            "updates": len(changed_ns),
            "period_s": float(np.median(distances_s)) if known else None,
            "period_p5_s": float(np.quantile(distances_s, 0.05)) if known else None,
            "period_p95_s": float(np.quantile(distances_s, 0.95)) if known else None,
            "latency_p50_s": float(np.quantile(latency_ns, 0.5)) / 1e9,
            "latency_p99_s": float(np.quantile(latency_ns, 0.99)) / 1e9,
        }


def _check(code: int, what: str) -> None:
    if code:
        raise SystemExit(f"{what} answers {code}; see nvidia-smi")
