"""How the energy of one device is divided among the spans of many pieces at once.

Time is cut at the starts, first tokens and ends of spans, and each piece's energy is shared among the spans running in
it (:mod:`~llmpower.attribution.weights`). Thousands of spans a second, dozens of them at a time, make hundreds of
thousands of (span, piece) pairs a second, too many to visit one by one; here they are columns of arrays, in order of
span and then of piece. What a span adds up to is what :mod:`~llmpower.attribution.entry` states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.entry import Entry
from llmpower.attribution.series import NO_TICK, Reading
from llmpower.attribution.weights import decode_weight, prefill_weight, share_std
from llmpower.types import Span

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """Where the spans lie among the cuts: span i runs in pieces ``first[i]`` to ``end[i]`` - 1, and has shown its first
    token from piece ``token[i]`` on; shapes (spans,). ``running`` counts them by piece.
    """

    first: Integers
    token: Integers
    end: Integers
    running: Integers


@dataclass(frozen=True, slots=True)
class Shared:
    """What each span got, shape (spans,), in joules."""

    prefill_j: Floats
    rest_j: Floats


def course(spans: Sequence[Span], cuts_ns: Sequence[int]) -> Course:
    """Find the spans among ascending cuts, at which they begin and end as far as they lie between them."""
    cuts = np.array(cuts_ns, np.int64)
    starts = np.array([span.start_ns for span in spans], np.int64)
    ends = np.array([span.end_ns for span in spans], np.int64)
    tokens = np.array([s.start_ns if s.first_token_ns is None else s.first_token_ns for s in spans], np.int64)
    last = len(cuts_ns) - 1
    first = np.minimum(np.searchsorted(cuts, starts), last)
    end = np.maximum(np.minimum(np.searchsorted(cuts, ends), last), first)
    running = np.cumsum(np.bincount(first, minlength=last + 1) - np.bincount(end, minlength=last + 1))[:last]
    return Course(first, np.searchsorted(cuts, tokens), end, running)


def share_out(
    spans: Sequence[Span],
    entries: Sequence[Entry],
    where: Course,
    cuts_ns: Sequence[int],
    readings: Sequence[Reading | None],
    idle_w: float | None,
) -> Shared:
    """Add to each span's entry what it used between the cuts; return it by phase.

    Args:
        spans: those that run.
        entries: theirs, in the same order.
        where: they lie.
        cuts_ns: ascending, shape (n + 1,).
        readings: of the device at the cuts; ``None`` where nothing is known.
        idle_w: what the device would draw with nothing to do, in watts, if that is known.
    """
    lengths = where.end - where.first
    span = np.repeat(np.arange(len(spans)), lengths)
    starts = np.cumsum(lengths) - lengths
    piece = np.arange(len(span)) - np.repeat(starts - where.first, lengths)
    pieces = len(cuts_ns) - 1

    prefill = piece < where.token[span]
    weights = np.where(prefill, _weights(prefill_weight, spans)[span], _weights(decode_weight, spans)[span])
    share = weights / np.bincount(piece, weights, pieces)[piece]
    running = where.running

    at = _Columns(readings)
    known = at.known[:-1] & at.known[1:] & (at.epoch[:-1] == at.epoch[1:])
    # What is not known counts nothing: it takes the whole span's energy away.
    energy_j = np.where(known, np.diff(at.energy_j), 0.0)
    part_j = share * energy_j[piece]
    durations_s = np.diff(np.array(cuts_ns, np.int64)) / 1e9

    def per_span(values: NDArray[Any]) -> Floats:
        sums: Floats = np.bincount(span, values, len(spans)).astype(np.float64, copy=False)
        return sums

    before = np.concatenate(([0.0], share[:-1]))
    begins = starts[lengths > 0]
    before[begins] = [entries[number].share for number in span[begins]]
    var_j2 = (share - before) ** 2 * at.boundary_var_j2[piece]
    var_j2 += share**2 * (at.path_var_j2[piece + 1] - at.path_var_j2[piece])

    shared = Shared(per_span(np.where(prefill, part_j, 0.0)), per_span(np.where(prefill, 0.0, part_j)))
    added = zip(
        entries,
        shared.prefill_j.tolist(),
        shared.rest_j.tolist(),
        per_span(np.where(known[piece], var_j2, 0.0)).tolist(),
        per_span(share_std(share) * energy_j[piece]).tolist(),
        per_span(durations_s[piece] / running[piece]).tolist(),
        (per_span(~known[piece]) > 0).tolist(),
        (per_span(running[piece] > 1) > 0).tolist(),
        (lengths > 0).tolist(),
        (starts + lengths - 1).tolist(),
        strict=True,
    )
    for entry, prefill_part_j, rest_j, var, share_std_j, idle_s, unknown, allocated, runs, latest in added:
        if runs:
            entry.prefill_j += prefill_part_j
            entry.decode_j += rest_j
            entry.var_j2 += var
            entry.share_std_j += share_std_j
            entry.add_idle(idle_w, idle_s)
            entry.known &= not unknown
            entry.allocated |= allocated
            entry.share = float(share[latest])
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


def _weights(weight: Callable[[Span], float], spans: Sequence[Span]) -> Floats:
    return np.array([weight(span) for span in spans])


class _Columns:
    """Readings as columns, each of shape (cuts,); where there is none, of an epoch and a tick that are no other's."""

    def __init__(self, readings: Sequence[Reading | None]) -> None:
        found = [_NOTHING if reading is None else reading for reading in readings]
        self.known = np.array([reading is not None for reading in readings])
        self.energy_j = np.array([reading.energy_j for reading in found])
        self.boundary_var_j2 = np.array([reading.boundary_var_j2 for reading in found])
        self.path_var_j2 = np.array([reading.path_var_j2 for reading in found])
        self.epoch = np.array([reading.epoch for reading in found])
        self.tick = np.array([reading.tick for reading in found], np.int64)
        self.before_j2 = np.array([reading.before_j2 for reading in found])
        self.within_j2 = np.array([reading.within_j2 for reading in found])


_NOTHING = Reading(0.0, 0.0, 0.0, -1)
