"""How the energy of one device is divided among the spans of many pieces at once.

Time is cut at the starts, first tokens and ends of spans, and each piece's energy is shared among the spans running in
it (:mod:`~llmpower.attribution.shares.weights`). Thousands of spans a second, dozens of them at a time, make hundreds
of thousands of (span, piece) pairs a second or millions, too many to visit: what spans add up to, and its variance, is
found without them (:mod:`~llmpower.attribution.shares.asked`). It is what :mod:`~llmpower.attribution.entry` states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.course import Course
from llmpower.attribution.entry import Entry
from llmpower.attribution.series import NO_TICK, Reading, Told
from llmpower.attribution.shares.asked import Asked, Stretches
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

    several = where.running > 1
    own_std_j, together_j = np.zeros(len(spans)), 0.0
    if several.any():
        # Alone a span has all of a piece, however much it differs from others.
        shared_j, together = np.where(several, at.piece_j, 0.0), asked.concentration()
        together_j = float(shared_j.sum())
        shared_w = shared_j / work.durations_s
        costs.judge(seen, *between(np.stack((shared_w, shared_w * together), axis=1)).T)
        got_j, own_j, others_j = (
            _by_span(each)
            for each in (asked.shared(shared_j), asked.squared(shared_j), asked.shared(shared_j * together))
        )
        own_std_j = costs.spread * np.sqrt(np.maximum(got_j * (got_j - 2 * own_j + others_j), 0.0))

    begin, end = asked.whole.begin, asked.whole.end
    runs = (end > begin).reshape(-1, 2)
    first, last = (asked.share(np.minimum(piece, work.pieces - 1)).reshape(-1, 2) for piece in (begin, end - 1))
    share = np.array([entry.share for entry in entries])
    came_j2 = np.zeros(len(spans))
    for phase in (0, 1):
        boundary_j2 = at.boundary_j2[np.minimum(begin[phase::2], work.pieces - 1)]
        came_j2 += np.where(runs[:, phase], (first[:, phase] - share) ** 2 * boundary_j2, 0.0)
        share = np.where(runs[:, phase], last[:, phase], share)

    shared = Shared(parts_j[0::2], parts_j[1::2], together_j)
    columns = {
        "prefill_j": shared.prefill_j,
        "decode_j": shared.rest_j,
        "var_j2": came_j2 + _by_span(asked.changed(at.boundary_j2) + asked.squared(at.way_j2)),
        "share_std_j": np.hypot(own_std_j, asked.std_j(at.piece_j)),
        "time_s": _by_span(times_s),
        "unknown": where.any(~at.known),
        "allocated": where.any(several),
        "decoded": work.decoded,
        "share": share,
    }
    ran = runs.any(axis=1)
    named = zip(*(column[ran].tolist() for column in columns.values()), strict=True)
    for number, values in zip(np.flatnonzero(ran).tolist(), named, strict=True):
        entries[number].add(idle_w, *values)
    _within_ticks(asked, at, entries)
    return shared


def _by_span(values: Floats) -> Floats:
    """The sum of its two segments' of each span."""
    found: Floats = values[0::2] + values[1::2]
    return found


def _within_ticks(asked: Asked, at: _Columns, entries: Sequence[Entry]) -> None:
    """Tell each entry, tick by tick, of the parts that its span had of it: Σ s²·v and Σ s·v."""
    start, end = at.tick[:-1], at.tick[1:]
    same = start == end
    # A piece lies in one tick, or reaches from one over edges into another: then it is a part of both.
    first_j2 = np.where(same, at.before_j2[1:], at.within_j2[:-1]) - at.before_j2[:-1]
    counted = (np.stack((start, end), axis=1) != NO_TICK) & np.stack((np.ones_like(same), ~same), axis=1)
    piece = np.flatnonzero(counted) // 2
    if not len(piece):
        return
    tick = np.stack((start, end), axis=1)[counted]
    part_j2 = np.stack((first_j2, at.before_j2[1:]), axis=1)[counted]
    whole_j2 = np.stack((at.within_j2[:-1], at.within_j2[1:]), axis=1)[counted]

    # Parts of one tick follow one another; a segment's are cut where one ends and the next begins.
    number = np.cumsum(np.diff(tick, prepend=tick[0]) != 0)
    edges = np.concatenate(([0], np.flatnonzero(np.diff(tick)) + 1, [len(tick)]))
    begin, end = np.searchsorted(piece, asked.whole.begin), np.searchsorted(piece, asked.whole.end)
    segment = np.flatnonzero(end > begin)
    begin, end = begin[segment], end[segment]
    earliest = number[begin]
    counts = number[end - 1] - earliest + 1
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts - earliest, counts)
    over = Stretches(
        piece,
        np.repeat(segment, counts),
        np.maximum(np.repeat(begin, counts), edges[within]),
        np.minimum(np.repeat(end, counts), edges[within + 1]),
    )
    squares_j2, linears_j2 = asked.squared(part_j2, over), asked.shared(part_j2, over)
    columns = (over.segment // 2, tick[over.begin], whole_j2[over.begin], squares_j2, linears_j2)
    for span, *parts in zip(*(column.tolist() for column in columns), strict=True):
        entries[span].add_in_tick(*parts)


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
