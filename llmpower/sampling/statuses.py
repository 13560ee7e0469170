"""What the status of a read means, in words.

A status is 0, a positive return code of NVML, a negative errno of the kernel, or one of the sampler's own three.
"""

from __future__ import annotations

import os

from llmpower.sampling.low_level import EPOCH, WILD, ZERO

__all__ = ["EPOCH", "WILD", "ZERO", "describe_status"]

# nvmlErrorString's own words, without a library to ask: the daemon's log must not make a driver call.
_NVML = {
    1: "Uninitialized",
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    7: "Insufficient Size",
    9: "Driver Not Loaded",
    10: "Timeout",
    12: "NVML Shared Library Not Found",
    13: "Function Not Found",
    15: "GPU is lost",
    16: "GPU requires restart",
    17: "The operating system has blocked the request",
    18: "Driver/library version mismatch",
    27: "Not ready",
    999: "Unknown Error",
}


def describe_status(status: int) -> str:
    """``GPU is lost (NVML code 15)``, ``Permission denied (errno 13)`` and so on; ``ok`` for 0."""
    if status == 0:
        return "ok"
    if status == EPOCH:
        return "the device was away"
    if status == ZERO:
        return "0 where a running device has none (code -100001)"
    if status == WILD:
        return "more power than any device draws, or a counter below 0 (code -100002)"
    if status > 0:
        return f"{_NVML.get(status, 'Unknown Error')} (NVML code {status})"
    return f"{os.strerror(-status)} (errno {-status})"
