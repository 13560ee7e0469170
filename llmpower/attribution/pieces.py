"""Cutting time at the boundaries of spans, so that within a piece nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from llmpower.attribution.series import IDLE, Regime
from llmpower.types import Span

Phase = Literal["prefill", "decode", "unsplit"]
"""``unsplit`` where the moment of the first token is not known."""


def cuts(spans: Sequence[Span], low_ns: int, high_ns: int) -> list[int]:
    """The moments from low to high, both included, at which the set of running spans or a phase may change."""
    moments = {low_ns, high_ns}
    for span in spans:
        moments.update((span.start_ns, span.end_ns))
        if span.first_token_ns is not None:
            moments.add(span.first_token_ns)
    return sorted(moment for moment in moments if low_ns <= moment <= high_ns)


def running(spans: Sequence[Span], cuts_ns: Sequence[int]) -> list[list[Span]]:
    """The spans that run between each cut and the next."""
    arriving = sorted(spans, key=lambda span: span.start_ns, reverse=True)
    active: list[Span] = []
    pieces = []
    for start_ns in cuts_ns[:-1]:
        while arriving and arriving[-1].start_ns <= start_ns:
            active.append(arriving.pop())
        active = [span for span in active if span.end_ns > start_ns]
        pieces.append(list(active))
    return pieces


def phase(span: Span, time_ns: int) -> Phase:
    """What a running span does at a moment."""
    if span.first_token_ns is None:
        return "unsplit"
    return "prefill" if time_ns < span.first_token_ns else "decode"


def regime(active: Sequence[Span], time_ns: int) -> Regime:
    """What the device does while these spans run: which models, in which phases, and about how many."""
    if not active:
        return IDLE
    phases = [(span.model_name, phase(span, time_ns)) for span in active]
    kind: Literal["prefill", "busy"] = "prefill" if any(now == "prefill" for _, now in phases) else "busy"
    # Twice as many at once is another regime; one more is not.
    counts = Counter(phases)
    return Regime(kind, tuple(sorted(f"{name} {now} {count.bit_length()}" for (name, now), count in counts.items())))
