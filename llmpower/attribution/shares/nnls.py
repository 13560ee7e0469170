"""Least squares with coefficients that cannot be negative, from sums alone.

min ½·zᵀGz − hᵀz over z ≥ 0, G = XᵀX and h = Xᵀy: no row of X is kept. The active set of Lawson and Hanson ("Solving
Least Squares Problems", 1974, chapter 23) in the form of Bro and de Jong ("A fast non-negativity-constrained least
squares algorithm", Journal of Chemometrics 11, 1997). For the few coefficients of a device it takes some ten solutions
of a small system; scipy has the same and adds 48 MB to a daemon.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOLERANCE = 1e-10
"""Gradients below this share of the largest entry of h count as none."""


def nonnegative(gram: Floats, moments: Floats, guess: Bools | None = None) -> Floats:
    """The z ≥ 0 that minimises ½·zᵀ·gram·z − momentsᵀ·z.

    Args:
        gram: symmetric and positive definite, shape (n, n).
        moments: shape (n,).
        guess: which of z are not 0, as when little has changed since the last solution; a wrong one only costs time.
    """
    size = len(moments)
    z, free = np.zeros(size), np.zeros(size, bool)
    if guess is not None and guess.any():
        guessed = np.linalg.solve(gram[np.ix_(guess, guess)], moments[guess])
        if (guessed > 0).all():
            z[guess], free = guessed, guess.copy()
    tolerance = TOLERANCE * float(np.max(np.abs(moments), initial=0.0))
    for _ in range(3 * size):
        gradient = np.where(free, -np.inf, moments - gram @ z)
        if free.all() or gradient.max() <= tolerance:
            break
        free[np.argmax(gradient)] = True
        while True:
            best = np.zeros(size)
            best[free] = np.linalg.solve(gram[np.ix_(free, free)], moments[free])
            below = free & (best <= 0)
            if not below.any():
                break
            # Go towards the best as far as all stay positive; who gets to 0 first is no longer free.
            steps = z[below] / np.maximum(z[below] - best[below], 1e-300)
            z += steps.min() * (best - z)
            free &= z > 1e-15 * max(float(z.max()), 1e-300)
            z[~free] = 0.0
        z = best
    return z
