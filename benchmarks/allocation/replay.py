"""The played requests on a card, read as the sampler reads it, through the real timeline and ledger."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from allocation.engine import IDLE_S, Played
from allocation.laws import Floats
from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.types import Device, Field, Span

Nanoseconds = NDArray[np.int64]

SECOND = 1_000_000_000
CALL_NS = 20_000
TICK_S, JITTER_S, EDGE_S = 0.1, 0.0015, 0.001
STEP_S, DELAY_S = 0.25, 0.5
"""The daemon's turn, and how long before now it settles."""


@dataclass(frozen=True)
class Card:
    """Energy up to any moment."""

    moments_s: Floats
    energies_j: Floats

    @classmethod
    def of(cls, played: Played, idle_w: float) -> Card:
        """Of steps and the idle time between them."""
        starts_s, times_s = np.array(played.start_s), np.array(played.time_s)
        ends_s = starts_s + times_s
        moments_s = np.concatenate(([0.0], np.stack((starts_s, ends_s), axis=1).ravel(), [ends_s[-1] + IDLE_S]))
        energies_j = idle_w * np.diff(moments_s)
        energies_j[1::2] = played.energy_j
        return cls(moments_s, np.concatenate(([0.0], np.cumsum(energies_j))))

    def energy_j(self, moment_s: Floats) -> Floats:
        """Since time 0."""
        return np.interp(moment_s, self.moments_s, self.energies_j)


def make_spans(played: Played) -> list[Span]:
    """As the server would report them, in order of their numbers."""
    return [
        Span(
            span_id=str(number),
            model_name="m",
            device_uuids=("GPU-0",),
            start_ns=round(each.start_s * SECOND),
            first_token_ns=round(each.token_s * SECOND),
            end_ns=round(each.end_s * SECOND),
            input_tokens=int(each.inputs),
            output_tokens=int(each.outputs),
            batch_size=1,
            hostname="host",
            pid=1,
        )
        for number, each in enumerate(played.requests)
    ]


class Program:
    """Tells a ledger of spans when they begin and when they have ended."""

    def __init__(self, spans: Sequence[Span], ledger: Ledger) -> None:
        events = [(span.start_ns, 0, span) for span in spans] + [(span.end_ns, 1, span) for span in spans]
        self._waiting = deque(sorted(events, key=lambda event: event[:2]))
        self._ledger = ledger

    def tell(self, now_ns: int) -> None:
        """All that has happened by now."""
        while self._waiting and self._waiting[0][0] <= now_ns:
            _, ends, span = self._waiting.popleft()
            if ends:
                self._ledger.add(span)
            else:
                self._ledger.begin(span.span_id, span.start_ns)


def make_reads(card: Card, chance: np.random.Generator) -> tuple[Nanoseconds, Nanoseconds]:
    """When the counter is read and what it says, in µJ: before and after each of its ticks, a millisecond apart."""
    ticks_s: Floats = np.arange(1.0, int(card.moments_s[-1] / TICK_S)) * TICK_S
    ticks_s = np.sort(ticks_s + chance.normal(0, JITTER_S, len(ticks_s)))
    values_uj = (np.floor(card.energy_j(ticks_s) * 1000) * 1000).astype(np.int64)
    before_s = ticks_s - chance.uniform(0.2, 0.8, len(ticks_s)) * EDGE_S
    reads_s = np.stack((before_s, before_s + EDGE_S), axis=1).ravel()
    values = np.stack((np.concatenate(([0], values_uj[:-1])), values_uj), axis=1).ravel()
    return np.rint(reads_s * SECOND).astype(np.int64), values


def settle(played: Played, idle_w: float, seed: int) -> tuple[list[Joules], Ledger]:
    """What the ledger says of every request, in order of their numbers, and the ledger."""
    timeline = Timeline(Device("GPU-0", 0, "replay", "gpu", True, True, False, ""))
    card = Card.of(played, idle_w)
    reads_ns, values = make_reads(card, np.random.default_rng(seed))
    ledger = Ledger({"GPU-0": timeline})
    spans = make_spans(played)
    program = Program(spans, ledger)
    found: dict[str, Joules] = {}
    for turn in range(1, int(card.moments_s[-1] / STEP_S) + 1):
        now_ns = round(turn * STEP_S * SECOND)
        new = slice(*np.searchsorted(reads_ns, (now_ns - round(STEP_S * SECOND), now_ns)))
        good, field = np.zeros(len(reads_ns[new]), np.int32), np.full(len(reads_ns[new]), Field.ENERGY, np.uint8)
        timeline.extend(reads_ns[new], reads_ns[new] + CALL_NS, values[new], good, field)
        program.tell(now_ns)
        for joules in ledger.settle(now_ns - round(DELAY_S * SECOND)):
            found[joules.span.span_id] = joules
    return [found[span.span_id] for span in spans], ledger
