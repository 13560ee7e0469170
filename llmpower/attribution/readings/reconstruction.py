"""The course of a device's power, from a sensor that shows little of it and from what work of each kind draws.

Time is cut into short stretches. What is known beforehand of the power x of a stretch in which regime r runs: it is
μ_r, uncertain by V_r in common for all time of that regime, and deviates from it by S_r², which is the same for
stretches close together and decorrelates over a time θ, and by F_r² of flicker, which is uncorrelated,

    C_ij = V_r + S_r²·exp(−∫ dt/θ) + F_r²·exp(−∫ dt/25 ms)   from i to j of one regime, V alone if another ran between

A reading is H·x + ε, with H what the sensor shows of each stretch (:mod:`~llmpower.attribution.readings.sensor`) and R
the covariance of ε, of what is uncertain about the reading itself and of the moment of its update. Both being Gaussian,

    x | readings  ~  N(μ + K·(readings − H·μ), C − K·H·C),   K = C·Hᵀ·(H·C·Hᵀ + R)⁻¹

which is kriging (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, eq. 2.22 to 2.24). With L the
Cholesky root of what is inverted and T = L⁻¹·H·C, what the readings take off C is K·H·C = Tᵀ·T. Work of which the
sensor showed nothing keeps what its kind has shown before, and how uncertain that is; a step within long work is placed
by the readings on either side; lag and window are undone as far as that goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.readings.roughness import FLICKER_S
from llmpower.attribution.readings.sensor import Sensor

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

READ_STD, LEAST_STD_W = 0.001, 0.05
"""How uncertain a reading is by itself: relative, and at least."""

EXACT = 1e-11
"""Relative to the greatest variance: readings are not taken to be surer than arithmetic is."""

BEAT_S = 1.0
"""For how long updates are seen late by about as much."""

ALONE = 1 << 18
"""Multiplications up to which OpenBLAS computes a product of matrices in the thread that asks for it. Threads that help
with a larger one spin while they wait for each other; on a busy machine that takes fifty times as long."""

ROWS = 64
"""The same of equations in LAPACK: a sensor that moves every 20 ms has two hundred readings in four seconds."""


class Known(NamedTuple):
    """What is known of the power of each stretch beforehand: μ, V, S², θ and F², shapes (n,)."""

    mean_w: Floats
    common_w2: Floats
    slow_w2: Floats
    lasts_s: Floats
    fast_w2: Floats


@dataclass(frozen=True, slots=True)
class Reconstruction:
    """Mean power of n stretches, shape (n,), and its covariance, C − Tᵀ·T; and k readings beside it.

    ``prior_w2``, shape (n, n), is C, and ``told_w``, shape (k, n), is T. ``surprises``, shape (k,), are what each
    reading differed by from what those before it predicted, in standard deviations, and ``log_std`` the logarithms of
    these: a reading's log-likelihood is −surprise²/2 − log_std. ``shares``, shape (k, n), are H.
    """

    power_w: Floats
    prior_w2: Floats
    told_w: Floats
    surprises: Floats
    log_std: Floats
    shares: Floats


def reconstruct(
    sensor: Sensor,
    bounds_s: Floats,
    kinds: Integers,
    known: Known,
    shown_s: Floats,
    shown_std_s: Floats,
    jitter_s: float,
    read_w: Floats,
) -> Reconstruction:
    """The power of each stretch.

    Args:
        sensor: how it was seen.
        bounds_s: of the stretches, shape (n + 1,).
        kinds: which regime ran in each, shape (n,).
        known: of each beforehand, shapes (n,).
        shown_s: when the readings were shown, ascending, shape (k,).
        shown_std_s: how uncertain that is, by when the sensor was read.
        jitter_s: by how much what is shown is off in time beside that, as a standard deviation.
        read_w: the readings.
    """
    runs = np.concatenate(([0], np.cumsum(np.diff(kinds) != 0)))
    lengths_s = np.diff(bounds_s)
    own_w2 = known.slow_w2 * _alike(lengths_s / known.lasts_s) + known.fast_w2 * _alike(lengths_s / FLICKER_S)
    c = np.where(runs[:, None] == runs, own_w2, 0.0) + np.where(kinds[:, None] == kinds, known.common_w2, 0.0)
    h = sensor.shares(shown_s, bounds_s)
    rates = sensor.rates(shown_s, bounds_s)
    ch = _product(c, h)
    foretold_w2 = _product(h, ch.T)
    power_w = known.mean_w
    # Read at a steady rate, updates in a row are all seen early or all late: the two rates beat slowly.
    timed_s2 = shown_std_s * shown_std_s[:, None] * np.exp(-np.abs(shown_s - shown_s[:, None]) / BEAT_S)
    each = np.eye(len(shown_s))
    timed_s2 += jitter_s**2 * each
    for _ in range(2):  # steps within work of one kind show in the first answer only
        change_w = _sums(rates, power_w)
        r = ((READ_STD * read_w) ** 2 + LEAST_STD_W**2) * each + change_w * change_w[:, None] * timed_s2
        # A card that once showed megawatts may draw anything; against that a reading is exact to no more than doubles.
        root = _root(foretold_w2 + r + EXACT * foretold_w2.max() * each)
        both = _solved(root, np.column_stack((read_w - _sums(h, known.mean_w), ch.T)))
        surprises, told_w = both[:, 0], both[:, 1:]
        power_w = np.maximum(known.mean_w + _sums(told_w.T, surprises), 0.0)
    return Reconstruction(power_w, c, told_w, surprises, np.log(np.diag(root)), h)


def _alike(passed: Floats) -> Floats:
    """How far stretches correlate of which each lasts this many times what it takes to forget."""
    middles = np.cumsum(passed) - passed / 2
    found: Floats = np.exp(-np.abs(middles[:, None] - middles))
    return found


def _product(a: Floats, b: Floats) -> Floats:
    """a·bᵀ in blocks of :data:`ALONE`, shapes (n, m) and (k, m) to (n, k)."""
    side = max(isqrt(ALONE // max(a.shape[1], 1)), 1)
    found = np.empty((len(a), len(b)))
    for row in range(0, len(a), side):
        for column in range(0, len(b), side):
            found[row : row + side, column : column + side] = a[row : row + side] @ b[column : column + side].T
    return found


def _root(a: Floats) -> Floats:
    """The Cholesky root of a matrix, by rows of blocks of :data:`ROWS`.

    That of [[A, Bᵀ], [B, C]] is [[L, 0], [B·L⁻ᵀ, M]], with L the root of A and M that of C − B·L⁻ᵀ·L⁻¹·Bᵀ.
    """
    found = np.zeros_like(a)
    for row in range(0, len(a), ROWS):
        block = slice(row, row + ROWS)
        found[block, :row] = _solved(found[:row, :row], a[:row, block]).T
        rest = a[block, block] - _product(found[block, :row], found[block, :row])
        found[block, block] = np.linalg.cholesky(rest)
    return found


def _solved(root: Floats, right: Floats) -> Floats:
    """L⁻¹·B by forward substitution in blocks of :data:`ROWS`, shapes (k, k) and (k, n) to (k, n)."""
    found = np.empty_like(right)
    for row in range(0, len(root), ROWS):
        block = slice(row, row + ROWS)
        left = right[block] - _product(root[block, :row], found[:row].T)
        found[block] = np.linalg.solve(root[block, block], left)
    return found


def _sums(a: Floats, weights: Floats) -> Floats:
    """a·weights, shapes (n, m) and (m,) to (n,), without BLAS."""
    found: Floats = np.einsum("ij,j->i", a, weights)
    return found
