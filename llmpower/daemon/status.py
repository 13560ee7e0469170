"""The answer to ``llmpower status``: what is wrong, the snapshot, and what the daemon itself costs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from llmpower.daemon.config import Config
from llmpower.daemon.health import Problem, problems_of
from llmpower.metrics import ModelDrift, ModelState, Snapshot

MAX_MODELS = 10
MAX_PROBLEMS = 10
MAX_WORK = 4
MAX_CHARTS = 5
MAX_CHART_CHARS = 60
MAX_PATH_CHARS = 200
"""How much is reported, of the most expensive, the worst and the best known: an answer must fit in a packet."""

NOT_TOLD: Mapping[str, float | None] = {}

_STATM = Path("/proc/self/statm")


def status_of(
    snapshot: Snapshot,
    config: Config,
    *,
    hour_ago: Snapshot | None = None,
    metrics_url: str,
    otlp_url: str | None = None,
    uptime_s: float,
    cpu_s: float,
    last_error: str | None,
    last_error_ns: int | None,
    power_limits_w: Mapping[str, float | None] = NOT_TOLD,
    temperatures_c: Mapping[str, float | None] = NOT_TOLD,
) -> Mapping[str, object]:
    """JSON without NaN; a power that was not read is ``None``.

    Problems are those since ``hour_ago``, the state of then. ``cpu_s`` is what the process used in ``uptime_s``,
    ``last_error_ns`` when the latest error was (CLOCK_MONOTONIC), ``power_limits_w`` above which watts a device slows
    itself down, by UUID, ``temperatures_c`` how warm it is. Sums come with the moments that they are of, ``taken_ns``
    and a device's ``booked_ns``, so that who asks twice can tell what has passed between.
    """
    costliest = sorted(snapshot.models.items(), key=lambda model: -sum(model[1].energy_j.values()))[:MAX_MODELS]
    return {
        "version": snapshot.version,
        "pid": os.getpid(),
        "uptime_s": uptime_s,
        "taken_ns": snapshot.taken_ns,
        "problems": _problems(snapshot, hour_ago),
        "backend": snapshot.backend,
        "simulated": any(state.device.simulated for state in snapshot.devices),
        "devices": [
            {
                "uuid": state.device.uuid,
                "name": state.device.name,
                "number": state.device.number,
                "pci_bus_id": state.device.pci_bus_id or None,
                "kind": state.device.kind,
                "simulated": state.device.simulated,
                "power_w": state.power_w,
                "power_limit_w": power_limits_w.get(state.device.uuid),
                "temperature_c": temperatures_c.get(state.device.uuid),
                "energy_j": state.energy_j,
                "inference_j": state.inference_j,
                "idle_j": state.idle_j,
                "unattributed_j": sum(state.unattributed_j.values()),
                "allocated_j": state.allocated_j,
                "residual_j": state.residual_j,
                "booked_ns": state.booked_ns,
                "requests": state.requests,
                "output_tokens": state.output_tokens,
                "stalled_s": state.stalled_s,
                "silent_s": state.silent_s,
                "fields": {name: _rounded(asdict(reading)) for name, reading in state.fields.items()},
            }
            for state in snapshot.devices
        ],
        "models": [{"model_name": name, **_model(state)} for name, state in costliest],
        "work": _work(snapshot),
        "drift": _drift(snapshot),
        "spans": {
            "stored": snapshot.spans_stored,
            "spooled_bytes": snapshot.spool_waiting_bytes,
            "measured": sum(sum(model.requests.values()) for model in snapshot.models.values()),
            "pending": snapshot.spans_pending,
            "running": snapshot.spans_running,
            "late": snapshot.spans_late,
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
            "ticks": snapshot.sampler.ticks,
            "missed_ticks": snapshot.sampler.missed_ticks,
            "lateness_bounds_s": snapshot.sampler.lateness_s.bounds,
            "lateness_counts": snapshot.sampler.lateness_s.counts,
            "dropped": snapshot.sampler.dropped,
            "read_errors": sum(snapshot.sampler.read_errors.values()),
        },
        "metrics_url": metrics_url,
        "otlp": {
            "url": otlp_url,
            "answers": {str(status): count for status, count in snapshot.otlp.answers.items()},
            "spans": dict(snapshot.otlp.spans),
            "clock_error_s": snapshot.otlp.clock_error_s,
        },
        "settle_delay_s": snapshot.settle_delay_s,
        "last_error": last_error,
        "last_error_age_s": None if last_error_ns is None else (time.monotonic_ns() - last_error_ns) / 1e9,
        "cost": {
            "cpu_s": cpu_s,
            "cpu_share": cpu_s / uptime_s if uptime_s > 0 else 0.0,
            "memory_bytes": int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        },
    }


def _problems(snapshot: Snapshot, hour_ago: Snapshot | None) -> list[dict[str, str]]:
    problems = problems_of(snapshot, hour_ago)
    if len(problems) > MAX_PROBLEMS:
        left = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [Problem(f"and {left} more", "fix these first")]
    return [asdict(problem) for problem in problems]


def _work(snapshot: Snapshot) -> list[dict[str, object]]:
    """What work costs, by device and model, of those that most was seen of."""
    found = [(state.device.uuid, cost) for state in snapshot.devices for cost in state.work]
    found.sort(key=lambda each: -each[1].observations)
    return [{"device_uuid": uuid, **_rounded(asdict(cost))} for uuid, cost in found[:MAX_WORK]]


def _drift(snapshot: Snapshot) -> dict[str, object]:
    """Requests beside their models, the furthest off first."""
    drift = snapshot.drift
    charts = sorted(drift.charts, key=lambda chart: (not chart.drifted, -abs(math.log(chart.ratio))))
    return {
        "models_file": drift.models_file and drift.models_file[-MAX_PATH_CHARS:],
        "models": drift.models,
        "outcomes": {outcome: count for outcome, count in drift.outcomes.items() if count},
        "charts": [_rounded({**asdict(chart), **_names(chart)}) for chart in charts[:MAX_CHARTS]],
    }


def _names(chart: ModelDrift) -> dict[str, str]:
    return {"model_name": chart.model_name[:MAX_CHART_CHARS], "system": chart.system[:MAX_CHART_CHARS]}


def _rounded(values: Mapping[str, object]) -> dict[str, object]:
    """To four digits: nobody knows these better."""
    return {name: _four(value) for name, value in values.items()}


def _four(value: object) -> object:
    if isinstance(value, Mapping):
        return _rounded(value)
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _model(state: ModelState) -> dict[str, object]:
    energy_j = sum(state.energy_j.values())
    known, output_tokens = sum(state.request_energy_j.counts), state.tokens.get("output", 0)
    return {
        "requests": sum(state.requests.values()),
        "energy_j": energy_j,
        "known_requests": known,
        "request_energy_j": state.request_energy_j.total,
        "output_tokens": output_tokens,
        "energy_per_request_j": state.request_energy_j.total / known if known else None,
        "energy_per_output_token_j": energy_j / output_tokens if output_tokens else None,
    }
