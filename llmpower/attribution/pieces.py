"""Cutting time at the boundaries of spans, so that within a piece nothing changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from llmpower.attribution.course import Course
from llmpower.attribution.series import IDLE, Regime
from llmpower.types import Span

Phase = Literal["prefill", "decode", "unsplit"]
"""``unsplit`` where the moment of the first token is not known."""


def cuts(spans: Sequence[Span], low_ns: int, high_ns: int, borders_ns: Sequence[int] = ()) -> list[int]:
    """The moments from low to high, both included, at which the set of running spans or a phase may change.

    With them those at which what is known begins or ends: what is unknown is no more than lies between them.
    """
    moments = {low_ns, high_ns, *borders_ns}
    for span in spans:
        moments.update((span.start_ns, span.end_ns))
        if span.first_token_ns is not None:
            moments.add(span.first_token_ns)
    return sorted(moment for moment in moments if low_ns <= moment <= high_ns)


def regimes(spans: Sequence[Span], where: Course, pieces: int) -> list[Regime]:
    """What the device does in each piece: which models run, in which phases, and about how many of each."""
    changes: list[list[tuple[tuple[str, Phase], int]]] = [[] for _ in range(pieces + 1)]
    columns = (where.first.tolist(), where.token.tolist(), where.end.tolist())
    for span, first, token, end in zip(spans, *columns, strict=True):
        token = min(max(token, first), end)
        if first < token:
            prefill: tuple[str, Phase] = (span.model_name, "prefill")
            changes[first].append((prefill, 1))
            changes[token].append((prefill, -1))
        if token < end:
            later: tuple[str, Phase] = (span.model_name, "unsplit" if span.first_token_ns is None else "decode")
            changes[token].append((later, 1))
            changes[end].append((later, -1))
    running = _Running()
    found: list[Regime] = []
    for changed in changes[:pieces]:
        for key, by in changed:
            running.change(key, by)
        found.append(running.regime() if changed or not found else found[-1])
    return found


class _Running:
    """How many spans of each model are in each phase; as they come and go."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Phase], int] = {}
        self._labels: dict[tuple[str, Phase], str] = {}
        self._prefilling = 0

    def change(self, key: tuple[str, Phase], by: int) -> None:
        """This many more are in a phase, or fewer."""
        before = self._counts.get(key, 0)
        count = self._counts[key] = before + by
        if key[1] == "prefill":
            self._prefilling += by
        if not count:
            del self._counts[key]
            self._labels.pop(key, None)
        elif count.bit_length() != before.bit_length() or not before:
            # Twice as many at once is another regime; one more is not.
            self._labels[key] = f"{key[0]} {key[1]} {count.bit_length()}"

    def regime(self) -> Regime:
        """That of all of them together."""
        if not self._labels:
            return IDLE
        return Regime("prefill" if self._prefilling else "busy", tuple(sorted(self._labels.values())))
