"""What ``llmpower top`` knows at each tick: the daemon's answer, and what has changed since an earlier one.

The daemon's sums only grow, so the difference of two answers over the time between is what happened then: no figure is
averaged twice, and none is lost between ticks. Joules are booked when they are certain, which while a request runs may
be seconds behind the present; every device says up to when it has booked, and its mean power is over that time and not
over the clock's. Where the daemon has restarted, the differences start over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llmpower.exceptions import DaemonUnreachableError, InputError

MAX_MODELS, MAX_CHART_CHARS = 10, 60
"""How many models a daemon reports, and how much of their names beside their charts."""

Status = Mapping[str, Any]
Tick = dict[str, Any]


class Watch:
    """Asks again and again.

    Args:
        ask: gives the daemon's status, or raises :class:`DaemonUnreachableError`.
        window_s: over how long differences are taken, at most.
        now_s: CLOCK_MONOTONIC.
    """

    def __init__(self, ask: Callable[[], Status], window_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._window_s = window_s
        self.lately = True
        """Whether figures are of the window, or of all since the daemon began; may be changed at any time."""
        self._now_s = now_s
        self._answers: deque[Status] = deque()
        self._lost_s: float | None = None

    def tick(self) -> Tick:
        """What is so now, as one JSON object.

        Raises:
            InputError: the daemon is of a version that does not tell.
            DaemonUnreachableError: nobody answers, and nobody has before.
        """
        head: Tick = {"time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        try:
            status = self._ask()
        except DaemonUnreachableError as error:
            if not self._answers:
                raise
            self._lost_s = self._now_s() if self._lost_s is None else self._lost_s
            lost = {"connected": False, "lost_s": self._now_s() - self._lost_s, "error": error.advice}
            return head | lost
        if "taken_ns" not in status:
            raise InputError("daemon", status.get("version"), "is older than this command; restart it")
        self._lost_s = None
        self._keep(status)
        return head | {"connected": True} | figures(self._since(), status)

    def _keep(self, status: Status) -> None:
        last = self._answers[-1] if self._answers else status
        # In a container every daemon may have the same number.
        if last["pid"] != status["pid"] or last["uptime_s"] > status["uptime_s"]:
            self._answers.clear()
        self._answers.append(status)
        # What devices drew before their first joule was booked is not known; no mean begins there.
        while _booked_j(self._answers[0]) == 0 < _booked_j(status):
            self._answers.popleft()
        # The oldest that is kept spans the whole window; what is older than that is of no use.
        while len(self._answers) > 2 and _seconds(self._answers[1], status) >= self._window_s:
            self._answers.popleft()

    def _since(self) -> Status | None:
        return self._answers[0] if self.lately and len(self._answers) > 1 else None


def figures(before: Status | None, now: Status) -> Tick:
    """One tick, of what has changed from one answer to another; ``None`` before: since the daemon began.

    Shares are of the energy that was booked in between. What did not happen has no cost: joules per request and per
    token are ``None`` where none was measured.
    """
    window_s = None if before is None else _seconds(before, now)
    since_s = now["uptime_s"] if window_s is None else window_s
    old = before or {}
    spans, sampler, cost = now["spans"], now["sampler"], now["cost"]
    ticks = _delta(sampler, old.get("sampler"), "ticks")
    counts = _deltas(sampler["lateness_counts"], old.get("sampler", {}).get("lateness_counts"))
    cpu_s, up_s = _delta(cost, old.get("cost"), "cpu_s"), now["uptime_s"] - old.get("uptime_s", 0.0)
    charts = now["drift"]["charts"]
    return {
        "version": now["version"],
        "pid": now["pid"],
        "uptime_s": now["uptime_s"],
        "simulated": now["simulated"],
        "window_s": window_s,
        "devices": [
            _device(device, each_before, now["taken_ns"])
            for device, each_before in _beside(now["devices"], old.get("devices", ()), "uuid")
        ],
        "models": [
            _model(model, each_before, since_s, crowded=len(old.get("models", ())) >= MAX_MODELS)
            | {"drift": _drift(model["model_name"], charts)}
            for model, each_before in _beside(now["models"], old.get("models", ()), "model_name")
        ],
        "requests": {
            "running": spans["running"],
            "pending": spans["pending"],
            "measured": spans["measured"],
            "measured_per_s": _ratio(_delta(spans, old.get("spans"), "measured"), since_s),
            "rejected": sum(spans["rejected"].values()),
        },
        "sampler": {
            "ticks_per_s": _ratio(ticks, since_s),
            "lateness_p50_s": quantile(sampler["lateness_bounds_s"], counts, 0.50),
            "lateness_p99_s": quantile(sampler["lateness_bounds_s"], counts, 0.99),
            "missed_ticks": _delta(sampler, old.get("sampler"), "missed_ticks"),
            "dropped_samples": _delta(sampler, old.get("sampler"), "dropped"),
            "read_errors": _delta(sampler, old.get("sampler"), "read_errors"),
        },
        "drift": {
            "models_file": now["drift"]["models_file"],
            "compared": now["drift"]["outcomes"].get("compared", 0),
            "drifted": sum(chart["drifted"] for chart in charts),
        },
        "cost": {"cpu_share": _ratio(cpu_s, up_s), "memory_bytes": cost["memory_bytes"]},
        "problems": now["problems"],
    }


def quantile(bounds_s: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """The bound below which this part of what was counted lies, in seconds.

    ``None`` where nothing was counted, or it lies above every bound.
    """
    left = part * sum(counts)
    for bound_s, count in zip(bounds_s, counts, strict=False):
        left -= count
        if left <= 0 < sum(counts):
            return bound_s
    return None


def _device(now: Status, before: Status | None, taken_ns: int) -> Tick:
    energy_j, inference_j, idle_j, unattributed_j = (
        _delta(now, before, name) for name in ("energy_j", "inference_j", "idle_j", "unattributed_j")
    )
    booked_ns, since_ns = now["booked_ns"], None if before is None else before["booked_ns"]
    # Since the daemon began there is no moment that the first joule was booked from.
    booked_s = None if booked_ns is None or since_ns is None else (booked_ns - since_ns) / 1e9
    requests, tokens = _delta(now, before, "requests"), _delta(now, before, "output_tokens")
    return {
        "uuid": now["uuid"],
        "number": now.get("number"),
        "name": now["name"],
        "kind": now["kind"],
        "simulated": now["simulated"],
        "power_w": now["power_w"],
        "power_limit_w": now["power_limit_w"],
        "mean_power_w": None if booked_s is None else _ratio(energy_j, booked_s),
        "booked_s_ago": None if booked_ns is None else (taken_ns - booked_ns) / 1e9,
        "stalled_s": now["stalled_s"],
        "energy_j": now["energy_j"],
        "requests": requests,
        "output_tokens": tokens,
        "energy_per_request_j": _ratio(inference_j, requests),
        "energy_per_output_token_j": _ratio(inference_j, tokens),
        "inference_share": _ratio(inference_j, energy_j),
        "idle_share": _ratio(idle_j, energy_j),
        "unattributed_share": _ratio(unattributed_j, energy_j),
    }


def _model(now: Status, before: Status | None, since_s: float, *, crowded: bool) -> Tick:
    if before is None and crowded:
        # It may have existed unreported behind more expensive ones: what it did meanwhile is not known.
        before, since_s = now, 0.0
    requests, known, tokens = (_delta(now, before, name) for name in ("requests", "known_requests", "output_tokens"))
    return {
        "model_name": now["model_name"],
        "requests": now["requests"],
        "energy_j": now["energy_j"],
        "measured_per_s": _ratio(requests, since_s),
        "output_tokens_per_s": _ratio(tokens, since_s),
        "energy_per_request_j": _ratio(_delta(now, before, "request_energy_j"), known),
        "energy_per_output_token_j": _ratio(_delta(now, before, "energy_j"), tokens),
    }


def _drift(model_name: str, charts: Sequence[Status]) -> Tick | None:
    """What this model's requests cost relative to its prediction; the chart that is furthest off comes first."""
    for chart in charts:
        if chart["model_name"] == model_name[:MAX_CHART_CHARS]:
            return {name: chart[name] for name in ("sharing", "ratio", "std_error", "tolerance", "drifted")}
    return None


def _beside(now: Iterable[Status], before: Iterable[Status], key: str) -> Iterable[tuple[Status, Status | None]]:
    known = {each[key]: each for each in before}
    return ((each, known.get(each[key])) for each in now)


def _delta(now: Status, before: Status | None, name: str) -> Any:
    return now[name] - (0 if before is None else before[name])


def _deltas(now: Sequence[int], before: Sequence[int] | None) -> list[int]:
    return [count - earlier for count, earlier in zip(now, before or [0] * len(now), strict=True)]


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _booked_j(status: Status) -> float:
    return float(sum(device["energy_j"] for device in status["devices"]))


def _seconds(before: Status, now: Status) -> float:
    return float(now["taken_ns"] - before["taken_ns"]) / 1e9
