"""Slow starts, costlier than what follows: a device, a host or a library that had not settled.

A first call that loads kernels is one trial, and has a check of its own. Clocks, caches and a busy host take longer:
the first trials of a program then cost more than the same cells do later in it, and where the order of trials is random
they are in every part of the grid. With c the cell and k how many trials the beginning has,

    ln y_i = a_c + b·[i ≤ k] + r_i     in the order of time

is solved by least squares for every k up to half of the session at once. Within cells, with z the deviations of ln y
from its cell's mean and n_ck how many of a cell's n_c trials are among the first k,

    b_k = C_k/X_k     C_k = Σ_{i≤k} z_i     X_k = Σ_c n_ck(n_c − n_ck)/n_c     t_k² = df·(C_k²/X_k)/(Σz² − C_k²/X_k)

The k with the largest t is named where t > 5 and e^b > 1.2. As the largest over all k, t passes 4 by noise alone in one
of 400 sessions of 36 trials, and 5 in one of 4,000.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.screening.marks import Checked, Mark, Unasked
from llmpower.modelling.screening.order import Codes, Mask, by_code, first_of
from llmpower.modelling.screening.rows import Rows, combine
from llmpower.modelling.screening.sessions import Sessions

COSTLIER = 1.2
SURE = 5.0
FEWEST = 3
"""Trials of a slow start: one or two may be outliers."""

MIN_REPEATS = 9
"""With fewer, t can be large by chance."""


def check_settling(rows: Rows, sessions: Sessions, usable: Mask, first: Mask, logs: Sequence[FloatArray]) -> Checked:
    """The usable trials of each session's beginning, by the ``logs`` of their costs, NaN where there is none.

    ``first`` ones are the first calls: whether there is a beginning is for the others to say.
    """
    if rows.started_ns is None:
        return Unasked("unsettled", "there is no column started_at with times in ISO 8601")
    started_ns, order, number = rows.started_ns, sessions.order, sessions.number
    asked = np.flatnonzero((usable & ~first)[order])
    if repeats(number[asked], rows.cell[order[asked]]).max(initial=0) < MIN_REPEATS:
        return Unasked("unsettled", f"no program has {MIN_REPEATS} trials of cells that it measured before")
    last, times = np.full(int(number.max()) + 1, -1), np.zeros(int(number.max()) + 1)
    for log in logs:
        known = asked[~np.isnan(log[order[asked]])]
        if len(known):
            at, b = beginnings(log[order[known]], number[known], rows.cell[order[known]])
            of = slice(len(at))
            last[of], times[of] = (
                np.maximum(last[of], np.where(at < 0, -1, known[at])),
                np.maximum(times[of], np.exp(b)),
            )
    session, unsettled = np.empty(len(rows), dtype=np.intp), np.empty(len(rows), dtype=bool)
    session[order], unsettled[order] = number, np.arange(len(rows)) <= last[number]
    unsettled &= usable

    def says(row: int) -> str:
        of = np.flatnonzero(unsettled & (session == session[row]))
        end_s = ((started_ns[of] - started_ns[of].min()) / 1e9 + rows.runtime_s[of]).max()
        excess = f"{times[session[row]]:.2f} times what their cells cost later"
        return f"the first {len(of)} trials of a program, {end_s:.3g} s, cost {excess}"

    return Mark("unsettled", unsettled, times[session], says)


def beginnings(log: FloatArray, session: Codes, cell: Codes) -> tuple[Codes, FloatArray]:
    """Of each session the position of the last trial of its beginning, −1 where it has none, and b.

    Args:
        log: logarithm of a cost, of each trial, by session and within it by time; shape (n,).
        session: their numbers, from 0 and ascending; shape (n,).
        cell: codes of what may be compared; shape (n,).
    """
    own = combine(session, cell, n=len(log))
    trials_of_cell = np.bincount(own)
    n_c = trials_of_cell[own]
    z = log - (np.bincount(own, log) / trials_of_cell)[own]
    order = by_code(own)
    rank = np.empty(len(log), dtype=np.intp)
    rank[order] = np.arange(len(log)) - (np.cumsum(trials_of_cell) - trials_of_cell)[own[order]]

    n = np.bincount(session)
    start = np.cumsum(n) - n
    # The trials of a session tell the noise beyond one of each cell and b.
    df = (repeats(session, cell) - 1)[session]
    k = np.arange(len(log)) - start[session] + 1
    C, X = (_running(each, start[session]) for each in (z, (n_c - 2 * rank - 1) / n_c))
    squares = np.bincount(session, z**2)[session]
    with np.errstate(invalid="ignore", divide="ignore"):
        # The least X above rounding: half of a cell of two trials.
        explained = np.where((C > 0) & (X > 0.4), C**2 / X, 0.0)
        t = np.sqrt(df * explained / np.maximum(squares - explained, 0.0))
        b = C / X
    possible = (
        (k >= FEWEST) & (2 * k <= n[session]) & (df >= MIN_REPEATS - 1) & (explained > 0) & (b > np.log(COSTLIER))
    )
    t = np.where(possible & (t > SURE), t, 0.0)
    best = np.zeros(len(n))
    np.maximum.at(best, session, t)
    at = np.flatnonzero((t > 0) & (t == best[session]))
    last, times = np.full(len(n), -1, dtype=np.intp), np.zeros(len(n))
    last[session[at]], times[session[at]] = at, b[at]
    return last, times


def repeats(session: Codes, cell: Codes) -> Codes:
    """Of each session how many of its trials are of cells that it has measured before."""
    n = np.bincount(session)
    first = first_of(combine(session, cell, n=len(session)))
    return np.asarray(n - np.bincount(session[first], minlength=len(n)))


def _running(values: FloatArray, start: Codes) -> FloatArray:
    """Their sums from the first of each session on."""
    sums = np.cumsum(values)
    return np.asarray(sums - (sums - values)[start])
