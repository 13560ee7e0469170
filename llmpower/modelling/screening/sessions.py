"""Sessions: what one program does on one set of devices with one group, without a long pause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpower.modelling.screening.order import Codes, by_code
from llmpower.modelling.screening.rows import Rows, combine

PAUSE_NS = 1800 * 1_000_000_000
"""After so long a card has cooled and the program may be another."""


@dataclass(frozen=True)
class Sessions:
    """Of all rows; ``order`` has them by session and within it by time, ``number`` is the session of each of these."""

    order: Codes
    number: Codes

    @property
    def first(self) -> Codes:
        """The first row of each."""
        return self.order[np.diff(self.number, prepend=-1) > 0]


def sessions_of(rows: Rows) -> Sessions:
    """In the order of time where the file has times, else in its own."""
    program = combine(rows.group, rows.codes("hostname", "pid", "device_uuids"), n=len(rows))
    order = by_code(program, in_time(rows))
    new = np.diff(program[order], prepend=-1) != 0
    if rows.started_ns is not None:
        new[1:] |= np.diff(rows.started_ns[order]) > PAUSE_NS
    return Sessions(order, np.cumsum(new) - 1)


def in_time(rows: Rows) -> Codes | None:
    """Rows in the order of time; ``None`` where they are, or where the file has no times."""
    time_ns = rows.started_ns
    if time_ns is None or bool((time_ns[1:] >= time_ns[:-1]).all()):
        return None
    return np.argsort(time_ns, kind="stable")
