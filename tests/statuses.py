"""Answers of a daemon that counts on, for tests of what is made of two of them."""

from __future__ import annotations

from typing import Any


def answer(second: float = 100.0, **changes: Any) -> dict[str, Any]:
    """A daemon's status so long after its begin: 4 requests a second, 300 W of which a third is idle."""
    energy_j = 300.0 * (second - 0.5)
    requests = int(4 * second)
    device = {
        "uuid": "GPU-a",
        "name": "Simulated A100",
        "kind": "gpu",
        "simulated": True,
        "power_w": 251.26,
        "power_limit_w": 400.0,
        "temperature_c": 61.0,
        "energy_j": energy_j,
        "inference_j": energy_j * 0.6,
        "idle_j": energy_j * 0.3,
        "unattributed_j": energy_j * 0.1,
        "booked_ns": round((second - 0.5) * 1e9),
        "requests": requests,
        "output_tokens": 50 * requests,
        "stalled_s": 0.0,
        "silent_s": 0.0,
    }
    package = device | {"uuid": "intel-rapl:0", "name": "package-0", "kind": "cpu_package", "simulated": False}
    model = {
        "model_name": "llama",
        "requests": requests,
        "known_requests": requests,
        "energy_j": energy_j * 0.6,
        "request_energy_j": energy_j * 0.6,
        "output_tokens": 50 * requests,
        "energy_per_request_j": 45.0,
        "energy_per_output_token_j": 0.9,
    }
    chart = {
        "model_name": "llama",
        "sharing": "alone",
        "simulated": True,
        "system": "1× card",
        "ratio": 1.0234,
        "std_error": 0.01,
        "tolerance": 0.05,
        "spans": 40,
        "drifted": False,
    }
    status: dict[str, Any] = {
        "version": "1.2.3",
        "pid": 77,
        "uptime_s": second,
        "taken_ns": round(second * 1e9),
        "problems": [],
        "backend": "simulated",
        "simulated": True,
        "devices": [device, package | {"power_w": None, "power_limit_w": None, "temperature_c": None}],
        "models": [model],
        "drift": {"models_file": "/etc/models.json", "models": 1, "outcomes": {"compared": 40}, "charts": [chart]},
        "spans": {"stored": requests, "measured": requests, "pending": 1, "running": 2, "rejected": {"not_json": 3}},
        "sampler": {
            "effective_hz": {"gpu_energy": 100.0},
            "ticks": round(200 * second),
            "missed_ticks": 0,
            "lateness_bounds_s": [1e-5, 1e-4, 1e-3],
            "lateness_counts": [round(150 * second), round(48 * second), round(2 * second), 0],
            "dropped": 0,
            "read_errors": 0,
        },
        "cost": {"cpu_s": 0.01 * second, "cpu_share": 0.01, "memory_bytes": 58 * 2**20},
    }
    return status | changes
