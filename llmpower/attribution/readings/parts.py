"""What a reconstruction says of the energy between cuts, and how uncertain that is.

Neighbouring parts err oppositely, because readings determine their sum, and so do those next to a cut that the sensor
saw blurred. A ledger that adds up parts needs to know that, so the covariance Σ of their energies is stated as
variances ``edge_j2`` of the cuts and ``own_j2`` of the parts,

    edge_i = max(−Σ_(i,i+1), 0)        own_i = max(Σ_(i,i) − edge_(i−1) − edge_i, Σ_(i,i)/10)

from which Σ own + edge_first + edge_last is the variance of any parts in a row, but for what those further apart share.
What lies before the first cut and behind the last is long, and a part may share more with it than it varies by; parts
settled at different times, each with all of its variance at its far end, would have none when they are added up.
Where readings surprised, power did something unexpected, and the variances are enlarged accordingly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.readings.reconstruction import Reconstruction

Floats = NDArray[np.float64]

FORM = 1.2
"""By how much variances are enlarged because power forgets itself in no device as simply as is assumed."""

LEAST_OWN = 0.1
"""Least share of a part's variance that is its own."""

MOST = 16.0
"""What a squared surprise counts as at most."""


class Parts(NamedTuple):
    """Energy since the first cut, variance of each cut, shapes (n + 1,); and of the parts between them, shape (n,)."""

    energy_j: Floats
    edge_j2: Floats
    own_j2: Floats


def parts(seen: Reconstruction, bounds_s: Floats, cuts_s: Floats, caution: float) -> Parts:
    """The energy between cuts.

    Args:
        seen: the power of stretches.
        bounds_s: of these, ascending; they begin before the first cut and end behind the last.
        cuts_s: ascending, among the bounds.
        caution: by how much squares of surprises exceed what was predicted, on average.
    """
    lengths_s = np.diff(bounds_s)
    at = np.searchsorted(bounds_s, cuts_s)
    used_j = np.concatenate(([0.0], np.cumsum(seen.power_w * lengths_s)))[at]
    firsts = np.concatenate(([0], at))
    prior_j2 = seen.prior_w2 * lengths_s * lengths_s[:, None]
    prior_j2 = np.add.reduceat(np.add.reduceat(prior_j2, firsts, 0), firsts, 1)
    told_j = np.add.reduceat(seen.told_w * lengths_s, firsts, 1)
    edge_j2 = np.maximum((told_j[:, :-1] * told_j[:, 1:]).sum(axis=0) - np.diag(prior_j2, 1), 0.0)
    var_j2 = np.maximum(np.diag(prior_j2) - (told_j**2).sum(axis=0), 0.0)[1:-1]
    own_j2 = np.maximum(var_j2 - edge_j2[:-1] - edge_j2[1:], LEAST_OWN * var_j2)

    weights = np.maximum(seen.shares.sum(axis=0), 1e-3)
    squares = (seen.shares.T * np.minimum(seen.surprises**2, MOST)).sum(axis=1)
    beside = (squares / weights)[at - 1] / 2 + (squares / weights)[at] / 2
    inside = (np.add.reduceat(squares, firsts) / np.add.reduceat(weights, firsts))[1:-1]
    least = FORM * max(caution, 1.0)
    return Parts(used_j - used_j[0], edge_j2 * np.maximum(beside, least), own_j2 * np.maximum(inside, least))


def mixed(weights: Floats, opinions: Sequence[Parts]) -> Parts:
    """Several opinions of the same parts, by their probabilities; what they differ by is uncertain too."""
    used_j, edge_j2, own_j2 = (weights @ np.array(column) for column in zip(*opinions, strict=True))
    pieces_j = np.diff([each.energy_j for each in opinions], axis=1)
    apart_j2 = weights @ (pieces_j - weights @ pieces_j) ** 2
    return Parts(used_j, edge_j2, own_j2 + apart_j2)
