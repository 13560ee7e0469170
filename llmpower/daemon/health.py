"""What is wrong now, in sentences, each with what to do: the first thing that a person on call wants to read.

Judged from snapshots alone, so ``llmpower status``, ``llmpower doctor`` and the alerts in ``prometheus/`` speak of the
same figures. What went wrong once and is over is no problem of now: it stands in the counters and the log. So sums are
judged by what has come of them in the last hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from llmpower.daemon.receiving.refusals import REASONS
from llmpower.metrics import DeviceState, Snapshot
from llmpower.phrases import duration, plural

SILENT_S = 10.0
"""A card that shows nothing for this long is lost, and not just being polled sparsely."""

SLOWED = 0.5
"""Of the rate asked for; less makes the joules of short requests noticeably less certain."""

MIDWAY_HZ = 2.0
"""This many reads a second of a counter whose updates are followed show one in five at least: on an H100, whose calls
are slow, no more is possible, and there is nothing to fix."""

REFUSED_SHARE = 0.01
LATE_SHARE = 0.01
STRANGERS_SHARE = 0.01
NOBODYS_SHARE = 0.05
_MIN_ENERGY_J = 1000.0  # below that, a share of it says nothing

_Key = TypeVar("_Key", bound=str)
_Sum = TypeVar("_Sum", int, float)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and what fixes it or tells more."""

    what: str
    fix: str


def problems_of(snapshot: Snapshot, hour_ago: Snapshot | None = None) -> list[Problem]:
    """What is wrong now, the worst first; empty when all is well.

    ``hour_ago`` is the state of then; without it all is judged since the daemon began.
    """
    if hour_ago is not None:
        snapshot = _since(snapshot, hour_ago)
    return [*_devices(snapshot), *_store(snapshot), *_spans(snapshot), *_drift(snapshot)]


def summary_of(snapshot: Snapshot, hour_ago: Snapshot | None = None) -> str:
    """How it is going, in the one line that ``systemctl status`` has room for: the worst problem last."""
    watts = [state.power_w for state in snapshot.devices if state.power_w is not None]
    power = f"{sum(watts):.0f} W" if watts else "no power reading"
    simulated = "SIMULATED, " if any(state.device.simulated for state in snapshot.devices) else ""
    devices, spans = plural(len(snapshot.devices), "device"), plural(snapshot.spans_stored, "span")
    line = f"{simulated}{devices}, {power}, {spans} stored"
    problems = problems_of(snapshot, hour_ago)
    if not problems:
        return line
    more = f" (and {len(problems) - 1} more: llmpower status)" if len(problems) > 1 else ""
    return f"{line}; {problems[0].what}{more}"


def _since(now: Snapshot, before: Snapshot) -> Snapshot:
    """The state now, with sums of what has come since ``before``."""
    devices = {state.device.uuid: state for state in before.devices}
    requests = {name: model.requests for name, model in before.models.items()}
    return replace(
        now,
        devices=tuple(
            replace(
                state,
                energy_j=state.energy_j - devices[state.device.uuid].energy_j,
                unattributed_j=_less(state.unattributed_j, devices[state.device.uuid].unattributed_j),
            )
            for state in now.devices
        ),
        models={
            name: replace(model, requests=_less(model.requests, requests.get(name, {})))
            for name, model in now.models.items()
        },
        sampler=replace(now.sampler, dropped=now.sampler.dropped - before.sampler.dropped),
        spans_rejected=_less(now.spans_rejected, before.spans_rejected),
        spans_late=now.spans_late - before.spans_late,
        spans_of_strangers=now.spans_of_strangers - before.spans_of_strangers,
        store_errors=now.store_errors - before.store_errors,
        store_lost=now.store_lost - before.store_lost,
        otlp=replace(now.otlp, unplaced=now.otlp.unplaced - before.otlp.unplaced),
    )


def _less(now: Mapping[_Key, _Sum], before: Mapping[_Key, _Sum]) -> dict[_Key, _Sum]:
    return {key: value - before[key] if key in before else value for key, value in now.items()}


def _devices(snapshot: Snapshot) -> Iterator[Problem]:
    for number, why in snapshot.unopened.items():
        yield Problem(
            f"GPU {number} could not be opened when the daemon started, so it is not sampled: {why}",
            "nvidia-smi -L; once that lists it, restart the daemon",
        )
    if not snapshot.devices and not snapshot.unopened:
        yield Problem("nothing is sampled: the driver knows no GPU, and the kernel no CPU package", "llmpower doctor")
    for state in snapshot.devices:
        # The bus id is the name that the kernel's messages use.
        name = f"{state.device.name} ({', '.join(filter(None, (state.device.uuid, state.device.pci_bus_id)))})"
        if state.stalled_s:
            yield Problem(
                f"{name} has been stalled for {duration(state.stalled_s)}: a driver call does not return",
                "dmesg -T | grep -i xid, then reset the card or drain the host; the daemon goes on when calls return",
            )
        elif state.silent_s is not None and state.silent_s > SILENT_S:
            yield Problem(
                f"{name} has shown no energy for {duration(state.silent_s)}{_answer(state)}",
                "nvidia-smi -L; where that lists it, restart the daemon"
                if state.device.kind == "gpu"
                else "llmpower doctor",
            )
        else:
            yield from _rates(name, state)
        nobodys_j = sum(state.unattributed_j.values())
        if state.energy_j > _MIN_ENERGY_J and nobodys_j > NOBODYS_SHARE * state.energy_j:
            yield Problem(
                f"{100 * nobodys_j / state.energy_j:.0f} % of what {name} has drawn in the last hour belongs to no "
                "request and is not idle",
                "it was not read for a while: journalctl -u llmpower says when",
            )


def _answer(state: DeviceState) -> str:
    """What the device answers instead, where that is known."""
    statuses = dict.fromkeys(reading.status for reading in state.fields.values() if reading.status != "ok")
    return f": {', '.join(statuses)}" if statuses else ""


def _rates(name: str, state: DeviceState) -> Iterator[Problem]:
    slowed = [
        f"{field} {reading.effective_hz:.3g} instead of {reading.requested_hz:.3g} times a second"
        for field, reading in state.fields.items()
        if reading.effective_hz < SLOWED * reading.requested_hz
        and not (reading.locked and reading.effective_hz >= MIDWAY_HZ)
    ]
    if slowed:
        yield Problem(
            f"{name} is read less often than asked for: {', '.join(slowed)}",
            "llmpower devices shows what its calls take; a larger max-read-share allows more of them: docs/settings.md",
        )


def _store(snapshot: Snapshot) -> Iterator[Problem]:
    failing = snapshot.store_waiting > 0 and snapshot.store_errors > 0
    away = snapshot.store.size_bytes is None and snapshot.store.last_fault is not None
    if failing or away:
        why = f": {snapshot.store.last_fault}" if snapshot.store.last_fault else ""
        yield Problem(
            f"the store takes nothing, {snapshot.store_waiting} measured spans wait{why}",
            "df -h and df -i for its directory; nothing needs a restart once it works",
        )
    if snapshot.store_lost:
        yield Problem(
            f"{snapshot.store_lost} measured spans were given up in the last hour, because the store failed or was "
            "slow for too long",
            "their joules are in the metrics and not in the store; journalctl -u llmpower -p err says when",
        )


def _spans(snapshot: Snapshot) -> Iterator[Problem]:
    refused = sum(snapshot.spans_rejected.values())
    taken = sum(count for model in snapshot.models.values() for count in model.requests.values())
    if refused > REFUSED_SHARE * (refused + taken):
        reason = max(snapshot.spans_rejected, key=lambda reason: snapshot.spans_rejected[reason])
        yield Problem(
            f"{100 * refused / (refused + taken):.0f} % of the spans of the last hour were refused, most as {reason}: "
            f"{REASONS.get(reason, 'a reason of its own')}",
            "section LlmpowerSpansRejected of docs/runbook.md says what to do about each reason",
        )
    if snapshot.spans_late > LATE_SHARE * taken:
        yield Problem(
            f"{100 * snapshot.spans_late / taken:.0f} % of the requests of the last hour have no joules, because their "
            f"time was accounted for when they were reported, {duration(snapshot.settle_delay_s)} behind the present",
            "set otlp.hold to more than your longest request takes: docs/otlp.md"
            if snapshot.otlp.spans.get("accepted")
            else "they ran while no daemon did, which journalctl -u llmpower shows, or for longer than hold: "
            "docs/settings.md",
        )
    if snapshot.spans_of_strangers > STRANGERS_SHARE * taken:
        yield Problem(
            f"{plural(snapshot.spans_of_strangers, 'request')} of the last hour without all GPU joules: what they "
            f"name, such as {ascii(snapshot.latest_stranger)[:80]}, is the UUID of no card that is sampled here",
            "nvidia-smi -L has the UUIDs; a card or MIG instance that is newer than the daemon needs a restart of it",
        )
    gpus = [state.device for state in snapshot.devices if state.device.kind == "gpu"]
    if snapshot.otlp.unplaced and len(gpus) > 1 and not all(gpu.simulated for gpu in gpus):
        why = f", and {snapshot.otlp.unplaced_reason}" if snapshot.otlp.unplaced_reason else ""
        yield Problem(
            f"{plural(snapshot.otlp.unplaced, 'request')} of the last hour reported by OpenTelemetry without GPU "
            f"joules: nothing says on which of the {len(gpus)} GPUs they ran{why}",
            "set OTEL_RESOURCE_ATTRIBUTES=llmpower.device_uuids=GPU-… where their server is started, or let the daemon "
            "see its processes: docs/otlp.md",
        )
    if snapshot.sampler.dropped:
        yield Problem(
            f"{plural(snapshot.sampler.dropped, 'sample')} lost in the last hour because the daemon did not drain "
            "them in time",
            "look for a stopped process or memory pressure: systemctl status llmpower",
        )


def _drift(snapshot: Snapshot) -> Iterator[Problem]:
    """Models that no longer say what their requests cost, the furthest off first."""
    drifted = [chart for chart in snapshot.drift.charts if chart.drifted]
    for chart in sorted(drifted, key=lambda chart: -abs(math.log(chart.ratio))):
        which = ", ".join(filter(None, (chart.sharing, chart.system, "SIMULATED" * chart.simulated)))
        yield Problem(
            f"requests of {chart.model_name} ({which}) cost {chart.ratio:.3g} times what its model "
            f"predicts, which claims to be within {100 * chart.tolerance:.0f} %",
            "look for what has changed (power limit, driver, engine, batch size), or fit again: docs/drift.md",
        )
