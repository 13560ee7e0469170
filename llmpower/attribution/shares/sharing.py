"""How the energy of one device is divided among the spans of many pieces at once.

Time is cut at the starts, first tokens and ends of spans, and each piece's energy is shared among the spans running in
it (:mod:`~llmpower.attribution.shares.weights`). Thousands of spans a second, dozens of them at a time, make hundreds
of thousands of (span, piece) pairs a second, too many to visit one by one. Sums of shares are found without them
(:mod:`~llmpower.attribution.shares.asked`); for what is quadratic in shares they are columns of arrays, in order of
span and then of piece. What a span adds up to is what :mod:`~llmpower.attribution.entry` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.course import Course
from llmpower.attribution.entry import Entry
from llmpower.attribution.series import NO_TICK, Reading, Told
from llmpower.attribution.shares.asked import Asked
from llmpower.attribution.shares.costs import Costs
from llmpower.attribution.shares.observing import observe
from llmpower.attribution.shares.weights import Work
from llmpower.types import Span

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Shared:
    """What each span got, shape (spans,), in joules; and how much of it all several had together."""

    prefill_j: Floats
    rest_j: Floats
    together_j: float = 0.0


def share_out(
    spans: Sequence[Span],
    entries: Sequence[Entry],
    where: Course,
    cuts_ns: Sequence[int],
    readings: Sequence[Reading | None],
    idle_w: float | None,
    costs: Costs,
    told: Told,
) -> Shared:
    """Add to each span's entry what it used between the cuts; return it by phase.

    Args:
        spans: those that run.
        entries: theirs, in the same order.
        where: they lie.
        cuts_ns: ascending, shape (n + 1,).
        readings: of the device at the cuts; ``None`` where nothing is known.
        idle_w: what the device would draw with nothing to do, in watts, if that is known.
        costs: of the device; they learn from this.
        told: what the device itself has said about its energy between the cuts.
    """
    if not spans or len(cuts_ns) < 2:
        return Shared(np.zeros(len(spans)), np.zeros(len(spans)))
    at = _Columns(readings)
    work = Work(spans, entries, where, cuts_ns, costs.slots(spans))
    seen, between = observe(work, cuts_ns, told)
    costs.learn(seen, idle_w)
    asked = Asked(work, costs)
    parts_j, times_s = asked.shared(at.piece_j), asked.shared(work.durations_s)
    # Running sums round: beside a span of a microsecond the parts of others were off by a microjoule.
    parts_j *= float(at.piece_j[where.running > 0].sum()) / (float(parts_j.sum()) or 1.0)

    span, piece, share = asked.pairs()
    lengths = where.end - where.first
    runs = lengths > 0
    last = np.cumsum(lengths) - 1
    begins = (last - lengths + 1)[runs]

    def per_span(values: Floats) -> Floats:
        found = np.zeros(len(spans))
        found[runs] = np.add.reduceat(values, begins) if len(values) else 0.0
        return found

    before = np.concatenate(([0.0], share[:-1]))
    before[begins] = [entries[number].share for number in span[begins].tolist()]
    var_j2 = (share - before) ** 2 * at.boundary_j2[piece] + share**2 * at.way_j2[piece]
    together = np.bincount(piece, share**2, work.pieces)
    others = np.sqrt(np.maximum(1 - 2 * share + together[piece], 0.0))
    own_std_j = costs.spread * per_span(share * others * at.piece_j[piece])

    several = where.running > 1
    shared_w = np.where(several, at.piece_j / work.durations_s, 0.0)
    costs.judge(seen, *between(np.stack((shared_w, shared_w * together), axis=1)).T)
    shared = Shared(parts_j[0::2], parts_j[1::2], float(at.piece_j[several].sum()))
    columns = {
        "prefill_j": shared.prefill_j,
        "decode_j": shared.rest_j,
        "var_j2": per_span(var_j2),
        "share_std_j": np.hypot(own_std_j, asked.std_j(at.piece_j)),
        "time_s": times_s[0::2] + times_s[1::2],
        "unknown": where.any(~at.known),
        "allocated": where.any(several),
        "decoded": work.decoded,
        "share": share[last] if len(share) else last,
    }
    named = zip(*(column[runs].tolist() for column in columns.values()), strict=True)
    for number, values in zip(np.flatnonzero(runs).tolist(), named, strict=True):
        entries[number].add(idle_w, *values)
    _within_ticks(span, piece, share, at, entries)
    return shared


def _within_ticks(span: Integers, piece: Integers, share: Floats, at: _Columns, entries: Sequence[Entry]) -> None:
    """Tell each entry, tick by tick, of the parts that its span had of it: Σ s²·v and Σ s·v."""
    start, end = at.tick[piece], at.tick[piece + 1]
    same = start == end
    before_j2, within_j2 = at.before_j2, at.within_j2
    # A piece lies in one tick, or reaches from one over edges into another.
    first_j2 = np.where(same, before_j2[piece + 1], within_j2[piece]) - before_j2[piece]
    spans, ticks = np.concatenate((span, span)), np.concatenate((start, end))
    shares, parts_j2 = np.concatenate((share, share)), np.concatenate((first_j2, before_j2[piece + 1]))
    wholes_j2 = np.concatenate((within_j2[piece], within_j2[piece + 1]))
    counted = (ticks != NO_TICK) & np.concatenate((np.ones_like(same), ~same))
    spans, ticks, shares, parts_j2, wholes_j2 = (each[counted] for each in (spans, ticks, shares, parts_j2, wholes_j2))
    names, codes = np.unique(ticks, return_inverse=True)
    groups, firsts, numbers = np.unique(spans * len(names) + codes, return_index=True, return_inverse=True)
    squares_j2 = np.bincount(numbers, shares**2 * parts_j2, len(groups)).tolist()
    linears_j2 = np.bincount(numbers, shares * parts_j2, len(groups)).tolist()
    columns = (spans[firsts].tolist(), ticks[firsts].tolist(), wholes_j2[firsts].tolist(), squares_j2, linears_j2)
    for number, tick, whole_j2, square_j2, linear_j2 in zip(*columns, strict=True):
        entries[number].add_in_tick(tick, whole_j2, square_j2, linear_j2)


class _Columns:
    """Readings as columns: of the cuts, and of the pieces between them.

    Where there is no reading, epoch and tick are no other's. What is not known of a piece counts nothing: it takes the
    whole energy of the spans in it away.
    """

    def __init__(self, readings: Sequence[Reading | None]) -> None:
        found = [_NOTHING if reading is None else reading for reading in readings]
        there = np.array([reading is not None for reading in readings])
        epoch = np.array([reading.epoch for reading in found])
        self.tick = np.array([reading.tick for reading in found], np.int64)
        self.before_j2 = np.array([reading.before_j2 for reading in found])
        self.within_j2 = np.array([reading.within_j2 for reading in found])
        self.known = there[:-1] & there[1:] & (epoch[:-1] == epoch[1:])
        self.piece_j = np.where(self.known, np.diff([reading.energy_j for reading in found]), 0.0)
        self.boundary_j2 = np.where(self.known, [reading.boundary_var_j2 for reading in found[:-1]], 0.0)
        self.way_j2 = np.where(self.known, np.diff([reading.path_var_j2 for reading in found]), 0.0)


_NOTHING = Reading(0.0, 0.0, 0.0, -1)
