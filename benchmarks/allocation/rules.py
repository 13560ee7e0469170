"""Rules that other tools share by, on the true energy of the card: none of them is charged with a sensor's error.

Time is cut at the requests' starts, first tokens and ends, and the true energy of each piece is shared among those that
run in it in proportion to a weight:

- *equal*: 1.
- *tokens*: the rate of its tokens, (input + output)/duration.
- *tokens by phase*: the rate of the phase's tokens, of which a decoded one counts 20 times.

*Time overlap* is CodeCarbon's way, which knows a task by when it ran: in each of its intervals (15 s) the energy is
shared in proportion to the time that each request overlaps with it. Idle time is taken off for it, as for the others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from allocation.engine import Played
from allocation.laws import Floats
from allocation.replay import Card

Integers = NDArray[np.int64]

INTERVAL_S = 15.0
DECODED = 20.0


def shared(played: Played, idle_w: float) -> dict[str, Floats]:
    """Joules of every request by each rule, shape (n,)."""
    card = Card.of(played, idle_w)
    rows = played.requests
    start_s, token_s, end_s = (np.array([getattr(r, name) for r in rows]) for name in ("start_s", "token_s", "end_s"))
    inputs, outputs = np.array([r.inputs for r in rows]), np.array([r.outputs for r in rows])
    cuts_s = np.unique(np.concatenate((start_s, token_s, end_s)))
    energy_j = np.diff(card.energy_j(cuts_s))
    cuts = (np.searchsorted(cuts_s, start_s), np.searchsorted(cuts_s, token_s), np.searchsorted(cuts_s, end_s))
    even = np.ones(len(rows))
    rate = (inputs + outputs) / (end_s - start_s)
    prefill, decode = inputs / (token_s - start_s), DECODED * outputs / np.maximum(end_s - token_s, 1e-9)
    return {
        "equal": _by(cuts, even, even, energy_j),
        "tokens": _by(cuts, rate, rate, energy_j),
        "tokens by phase": _by(cuts, prefill, decode, energy_j),
        "time overlap": _overlap(card, start_s, end_s, idle_w),
    }


def _by(cuts: tuple[Integers, Integers, Integers], before: Floats, after: Floats, energy_j: Floats) -> Floats:
    """Each piece by the weights of those that run in it, before their first token and after it."""
    first, token, end = cuts
    total = np.zeros(len(energy_j) + 1)
    for begin, over, weight in ((first, token, before), (token, end, after)):
        np.add.at(total, begin, weight)
        np.add.at(total, over, -weight)
    total = np.cumsum(total)[:-1]
    gain = np.where(total > 1e-9, energy_j / np.maximum(total, 1e-9), 0.0)
    running = np.concatenate(([0.0], np.cumsum(gain)))
    found: Floats = before * (running[token] - running[first]) + after * (running[end] - running[token])
    return found


def _overlap(card: Card, start_s: Floats, end_s: Floats, idle_w: float) -> Floats:
    got = np.zeros(len(start_s))
    for low_s in np.arange(0.0, float(end_s.max()), INTERVAL_S):
        high_s = min(low_s + INTERVAL_S, float(card.moments_s[-1]))
        overlap_s = np.clip(np.minimum(end_s, high_s) - np.maximum(start_s, low_s), 0, None)
        if overlap_s.sum() > 0:
            low_j, high_j = card.energy_j(np.array([low_s, high_s]))
            cuts_s = np.unique(np.clip(np.concatenate((start_s, end_s, [low_s, high_s])), low_s, high_s))
            idle = np.array([not ((start_s <= cut_s) & (end_s > cut_s)).any() for cut_s in cuts_s[:-1]])
            idle_j = idle_w * float(np.diff(cuts_s)[idle].sum())
            got += overlap_s / overlap_s.sum() * (high_j - low_j - idle_j)
    return got
