"""Cutting time at the boundaries of spans, so that within a piece nothing changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from llmpower.attribution.series import IDLE, Regime
from llmpower.attribution.sharing import Course
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


def regimes(spans: Sequence[Span], where: Course, pieces: int) -> list[Regime]:
    """What the device does in each piece: which models run, in which phases, and about how many of each."""
    changes: list[list[tuple[tuple[str, Phase], int]]] = [[] for _ in range(pieces + 1)]
    for span, first, token, end in zip(
        spans, where.first.tolist(), where.token.tolist(), where.end.tolist(), strict=True
    ):
        if first == end:
            continue
        later: Phase = "unsplit" if span.first_token_ns is None else "decode"
        token = min(max(token, first), end)
        if first < token:
            changes[first].append(((span.model_name, "prefill"), 1))
            changes[token].append(((span.model_name, "prefill"), -1))
        if token < end:
            changes[token].append(((span.model_name, later), 1))
            changes[end].append(((span.model_name, later), -1))
    counts: Counter[tuple[str, Phase]] = Counter()
    labels: dict[tuple[str, Phase], str] = {}
    found: list[Regime] = []
    for changed in changes[:-1]:
        for key, by in changed:
            counts[key] += by
        for key in {key for key, _ in changed}:
            if counts[key]:
                # Twice as many at once is another regime; one more is not.
                labels[key] = f"{key[0]} {key[1]} {counts[key].bit_length()}"
            else:
                del counts[key]
                labels.pop(key, None)
        if changed or not found:
            regime = _regime(labels)
        found.append(regime)
    return found


def _regime(labels: Mapping[tuple[str, Phase], str]) -> Regime:
    if not labels:
        return IDLE
    prefills = any(phase == "prefill" for _, phase in labels)
    return Regime("prefill" if prefills else "busy", tuple(sorted(labels.values())))
