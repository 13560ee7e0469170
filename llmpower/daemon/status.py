"""The answer to ``llmpower status``: the snapshot, and what the daemon itself costs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from llmpower.daemon.config import Config
from llmpower.metrics import Snapshot

_STATM = Path("/proc/self/statm")


def status_of(
    snapshot: Snapshot, config: Config, *, metrics_url: str, uptime_s: float, cpu_s: float, last_error: str | None
) -> Mapping[str, object]:
    """JSON without NaN; a power that was not read is ``None``. ``cpu_s`` is what the process used in ``uptime_s``."""
    return {
        "version": snapshot.version,
        "pid": os.getpid(),
        "uptime_s": uptime_s,
        "backend": snapshot.backend,
        "simulated": any(state.device.simulated for state in snapshot.devices),
        "devices": [
            {
                "uuid": state.device.uuid,
                "name": state.device.name,
                "kind": state.device.kind,
                "simulated": state.device.simulated,
                "power_w": state.power_w,
                "energy_j": state.energy_j,
                "inference_j": state.inference_j,
                "idle_j": state.idle_j,
                "unattributed_j": sum(state.unattributed_j.values()),
                "stalled_s": state.stalled_s,
                "fields": {name: asdict(reading) for name, reading in state.fields.items()},
            }
            for state in snapshot.devices
        ],
        "spans": {
            "stored": snapshot.spans_stored,
            "spooled_bytes": snapshot.spool_waiting_bytes,
            "pending": snapshot.spans_pending,
            "running": snapshot.spans_running,
            "rejected": dict(snapshot.spans_rejected),
        },
        "store": {
            "path": str(config.store),
            "errors": snapshot.store_errors,
            "waiting": snapshot.store_waiting,
            "lost": snapshot.store_lost,
            "corruptions": snapshot.store.corruptions,
            "size_bytes": snapshot.store.size_bytes,
            "log_bytes": snapshot.store.log_bytes,
            "deleted": sum(snapshot.store.deleted.values()),
        },
        "sampler": {
            "effective_hz": dict(snapshot.sampler.effective_hz),
            "dropped": snapshot.sampler.dropped,
            "read_errors": sum(snapshot.sampler.read_errors.values()),
        },
        "metrics_url": metrics_url,
        "last_error": last_error,
        "cost": {
            "cpu_s": cpu_s,
            "cpu_share": cpu_s / uptime_s if uptime_s > 0 else 0.0,
            "memory_bytes": int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        },
    }
