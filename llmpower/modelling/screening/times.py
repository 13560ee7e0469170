"""Checks of when trials ran: none begins twice, and two on one device at once share joules that neither owns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.screening.marks import Checked, Mark, Unasked
from llmpower.modelling.screening.order import Mask
from llmpower.modelling.screening.rows import NO_TIME, Rows, code_of, combine

TOUCHING_NS = 5_000_000
"""The wall clock may have been set between two trials by so much."""

SECOND_NS = 1_000_000_000
LONGEST_S = 2**62 / SECOND_NS
"""Half of the years that 64 bits of nanoseconds count; what seems to have run for longer has run into all after it."""


def check_times(rows: Rows, sound: Mask) -> Iterator[Checked]:
    """Duplicate timestamps and overlaps; neither where the file has no times."""
    import pandas as pd

    if rows.started_ns is None:
        for kind in ("duplicate_timestamp", "overlap"):
            yield Unasked(kind, "there is no column started_at with times in ISO 8601")
        return
    # What ran beside others on purpose is marked as a share.
    timed = sound & (rows.started_ns != NO_TIME) & ~rows.allocated
    started_ns = rows.started_ns
    where = combine(rows.model, rows.codes("hostname", "device_uuids"), n=len(rows))
    same = combine(where, code_of(pd.Series(started_ns)), n=len(rows))
    twice = timed & (np.bincount(same[timed], minlength=int(same.max()) + 1)[same] > 1)

    def when(at: int) -> str:
        return f"{np.datetime64(int(started_ns[at]), 'ns').astype('datetime64[us]')}Z, {rows.runtime_s[at]:.3g} s long"

    yield Mark("duplicate_timestamp", twice, rows.runtime_s, when)
    if not rows.has("device_uuids"):
        yield Unasked("overlap", "there is no column device_uuids: trials at one time may have run on several")
        return
    overlap_s = _overlaps(rows, started_ns, timed)
    yield Mark(
        "overlap",
        overlap_s > 0,
        overlap_s,
        lambda at: f"{overlap_s[at]:.3g} s together with another trial, from {when(at)}",
    )


def _overlaps(rows: Rows, started_ns: NDArray[np.int64], timed: Mask) -> NDArray[np.float64]:
    """How long each row ran while another did on one of its devices [s]; 0 where it was alone.

    With a device's rows in the order of their starts, one runs into a later one if the next begins before its own
    end, and into an earlier one if any before it has ended later than it began.
    """
    import pandas as pd

    row, device = _on_devices(rows, np.flatnonzero(timed))
    overlap_s = np.zeros(len(rows))
    if not len(row):
        return overlap_s
    begin = started_ns[row]
    ran_ns = np.round(np.minimum(rows.runtime_s[row], LONGEST_S) * SECOND_NS).astype(np.int64)
    end = begin + np.minimum(ran_ns, np.iinfo(np.int64).max - np.maximum(begin, 0))
    order = np.lexsort((begin, device))
    row, device, begin, end = row[order], device[order], begin[order], end[order]
    latest = np.asarray(pd.Series(end).groupby(device).cummax())
    alike = device[1:] == device[:-1]
    touching = SECOND_NS if (begin % SECOND_NS == 0).all() else TOUCHING_NS
    into_next = np.where(alike & (end[:-1] > begin[1:]), end[:-1] - begin[1:], 0)
    into_former = np.where(alike & (latest[:-1] > begin[1:]), np.minimum(latest[:-1], end[1:]) - begin[1:], 0)
    for rows_in, length in ((row[:-1], into_next), (row[1:], into_former)):
        np.maximum.at(overlap_s, rows_in, np.where(length > touching, length / SECOND_NS, 0.0))
    return np.minimum(overlap_s, np.nan_to_num(rows.runtime_s))


def _on_devices(rows: Rows, chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The chosen rows once for each of their devices, and the numbers of these devices."""
    import pandas as pd

    sets, texts = pd.factorize(rows.frame["device_uuids"].iloc[chosen])
    uuids = [str(text).split(";") for text in texts]
    numbers = {uuid: number for number, uuid in enumerate(dict.fromkeys(u for each in uuids for u in each if u))}
    devices = [np.array([numbers[uuid] for uuid in each if uuid], dtype=np.intp) for each in uuids]
    # Rows that do not name their devices are on none.
    counts = np.array([*(len(each) for each in devices), 0], dtype=np.intp)[sets]
    row = np.repeat(chosen, counts)
    starts = np.array([0, *np.cumsum([len(each) for each in devices])], dtype=np.intp)
    flat = np.concatenate([*devices, np.zeros(0, dtype=np.intp)]).astype(np.intp)
    within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
    return row, flat[np.repeat(starts[sets], counts) + within]
