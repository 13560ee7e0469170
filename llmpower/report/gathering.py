"""Rows gathered into as many points as a picture can show, each point saying how many rows it stands for.

A page of 50,000 dots is slow to open and shows a blot. Rows of like lengths become one point: trials of one cell where
a campaign measured a grid, and else all rows within the same fraction of an octave in either length. The median and the
tenth and ninetieth percentile of what was measured stay; nothing is drawn at random, so the same rows give the same
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.phrases import number

FINENESS = (16, 8, 4, 2, 1)
"""Parts of an octave that are tried, finest first; before them the lengths as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Which of ``n_points`` each row belongs to, shape (n_rows,), and what made rows alike, for a caption."""

    points: NDArray[np.intp]
    n_points: int
    rule: str

    def mean(self, values: FloatArray) -> FloatArray:
        """Mean of each point's rows, shape (n_points,)."""
        return np.asarray(np.bincount(self.points, values, self.n_points) / self.count())

    def count(self) -> NDArray[np.intp]:
        """Rows of each point."""
        return np.bincount(self.points, minlength=self.n_points)

    def quantiles(self, values: FloatArray, at: Sequence[float] = (0.1, 0.5, 0.9)) -> FloatArray:
        """Quantiles of each point's rows, shape (len(at), n_points), between neighbours as NumPy has them."""
        order = np.lexsort((values, self.points))
        ordered, count = values[order], self.count()
        start = np.cumsum(count) - count
        places = start + np.asarray(at)[:, np.newaxis] * (count - 1)
        below = np.floor(places).astype(np.intp)
        above = np.minimum(below + 1, start + count - 1)
        part = places - below
        return np.asarray((1 - part) * ordered[below] + part * ordered[above])


def gather(columns: Sequence[FloatArray], most: int) -> Gathered:
    """Rows with like values in all ``columns`` (n_rows,) together, in at most ``most`` points where that can be.

    Zeros are like nothing but zeros.
    """
    exact = _number([np.unique(column, return_inverse=True)[1] for column in columns])
    if exact.n_points <= most:
        return exact
    found = exact
    for parts in FINENESS:
        steps = [np.where(column > 0, np.rint(parts * np.log2(np.maximum(column, 1e-9))), -999) for column in columns]
        found = _number([np.unique(step, return_inverse=True)[1] for step in steps], parts)
        if found.n_points <= most:
            break
    return found


def _number(codes: Sequence[NDArray[np.intp]], parts: int | None = None) -> Gathered:
    together = np.zeros_like(codes[0])
    for code in codes:
        together = together * (int(code.max(initial=0)) + 1) + code
    _, points = np.unique(together, return_inverse=True)
    rule = "equal lengths" if parts is None else f"lengths within a factor of {number(2 ** (1 / parts))}"
    return Gathered(points, int(points.max(initial=-1)) + 1, rule)
