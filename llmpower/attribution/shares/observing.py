"""What ran between the moments at which a device showed its energy.

Pieces between cuts are short, and their energies are divided out of what the device shows; what it shows itself is
known from one edge of its counter to the next. So the work is summed over the pieces up to each edge, evenly within a
piece, and the differences are set against the device's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.series import Told
from llmpower.attribution.shares.costs import Observed
from llmpower.attribution.shares.weights import Work

Floats = NDArray[np.float64]

LEAST_S = 0.05
"""Observations are at least about this long: of a counter that moves every millisecond, one in fifty edges is taken."""


def observe(work: Work, cuts_ns: Sequence[int], told: Told) -> tuple[Observed, Callable[[Floats], Floats]]:
    """What was done between the moments told; and a function that sums any rates, of shape (pieces, m), between them.

    Args:
        work: between the cuts.
        cuts_ns: ascending.
        told: moments between the first cut and the last, and the energies there.
    """
    told = _thinned(told)
    cuts = np.array(cuts_ns, np.int64)
    whole = np.diff(told.epochs) == 0
    piece = np.clip(np.searchsorted(cuts, told.moments_ns, "right") - 1, 0, work.pieces - 1)
    part = (told.moments_ns - cuts[piece]) / 1e9

    def between(rates: Floats) -> Floats:
        sums = np.zeros((work.pieces + 1, rates.shape[1]))
        np.cumsum(rates * work.durations_s[:, None], axis=0, out=sums[1:])
        found: Floats = np.diff(sums[piece] + rates[piece] * part[:, None], axis=0)[whole]
        return found

    durations_s = np.diff(told.moments_ns)[whole] / 1e9
    busy = (work.running > 0)[:, None].astype(float)
    done = between(np.concatenate((busy, work.done), axis=1))
    energy_j = np.diff(told.energies_j)[whole]
    return Observed(durations_s, done[:, 0], energy_j, done[:, 1:] / durations_s[:, None]), between


def _thinned(told: Told) -> Told:
    count = len(told.moments_ns)
    if count < 2:
        return Told(told.moments_ns[:0], told.energies_j[:0], told.epochs[:0])
    mean_s = float(told.moments_ns[-1] - told.moments_ns[0]) / 1e9 / (count - 1)
    every = slice(None, None, max(1, round(LEAST_S / max(mean_s, 1e-9))))
    return Told(told.moments_ns[every], told.energies_j[every], told.epochs[every])
