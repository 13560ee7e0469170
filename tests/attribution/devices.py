"""A device whose energy is known in closed form, read as the sampler would read it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llmpower.attribution import Ledger, Timeline
from llmpower.attribution.series import Reading
from llmpower.types import Device, Field, Span

SECOND = 1_000_000_000


def make_device(uuid: str = "GPU-0", *, kind: str = "gpu", counter: bool = True, power: bool = True) -> Device:
    return Device(
        uuid=uuid,
        index=0,
        name="test",
        kind=kind,  # type: ignore[arg-type]  # the tests use the literal words
        simulated=True,
        has_energy_counter=counter,
        has_power=power,
        driver_version="",
    )


def make_span(
    span_id: str,
    start_ns: int,
    end_ns: int,
    *,
    first_token_ns: int | None = None,
    input_tokens: int = 16,
    output_tokens: int = 16,
    devices: tuple[str, ...] | None = ("GPU-0",),
    batch_size: int = 1,
    model_name: str = "m",
) -> Span:
    tokens = (input_tokens, output_tokens, batch_size)
    return Span(span_id, model_name, devices, start_ns, first_token_ns, end_ns, *tokens, "host", 1)


def feed_counter(
    timeline: Timeline,
    energy_j: Callable[[float], float],
    start_s: float,
    end_s: float,
    *,
    period_s: float = 0.1,
    rate_hz: float = 100.0,
    offset_j: float = 0.0,
    phase_s: float = 0.0,
) -> None:
    """Read a counter that moves every ``period_s`` to ``energy_j(t)``, at ``rate_hz``, from start to end."""
    read_ns = (np.arange(start_s, end_s, 1 / rate_hz) * SECOND).astype(np.int64)
    tick_s = np.floor((read_ns / SECOND - phase_s) / period_s + 1e-9) * period_s + phase_s
    value = np.array([round(1e6 * (energy_j(t) + offset_j)) for t in tick_s], dtype=np.int64)
    count = len(read_ns)
    timeline.extend(
        read_ns,
        read_ns + 20_000,
        value,
        np.zeros(count, np.int32),
        np.full(count, Field.ENERGY, np.uint8),
    )


def feed_power(
    timeline: Timeline, power_w: Callable[[float], float], start_s: float, end_s: float, *, rate_hz: float = 100.0
) -> None:
    """Read a power held for 0.1 s, at ``rate_hz``."""
    read_ns = (np.arange(start_s, end_s, 1 / rate_hz) * SECOND).astype(np.int64)
    held_s = np.floor(read_ns / SECOND / 0.1 + 1e-9) * 0.1
    value = np.array([round(1e6 * power_w(t)) for t in held_s], dtype=np.int64)
    count = len(read_ns)
    timeline.extend(
        read_ns,
        read_ns + 20_000,
        value,
        np.zeros(count, np.int32),
        np.full(count, Field.POWER_INSTANT, np.uint8),
    )


def energy_at(timeline: Timeline, time_ns: int) -> Reading | None:
    """Energy up to ``time_ns``, nothing being assumed of what ran; ``None`` where nothing is known."""
    return timeline.readings([time_ns], [])[0]


def conserved(ledger: Ledger, uuid: str = "GPU-0") -> None:
    """Every joule of the device is in exactly one account."""
    totals = ledger.totals[uuid]
    booked_j = totals.inference_j + totals.idle_j + sum(totals.unattributed_j.values())
    assert booked_j == pytest.approx(totals.energy_j, abs=1e-6)
