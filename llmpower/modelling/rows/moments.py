"""Sufficient statistics: all of the data that a fit needs to be made again, or made with more of them.

Least squares knows rows only through sums of products. Those of two sets of rows add up, so a model learns from new
measurements without the old ones; a model of five terms keeps some thirty numbers for each set of weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Σ1, Σw, Σwy and Σwy² of the rows of each cell (or stratum), shape (m,).

    Where cells are bands ``lengths`` has Σwτin and Σwτout, shape (2, m): two sums are the same where they are one.
    """

    n: FloatArray
    w: FloatArray
    wy: FloatArray
    wyy: FloatArray
    lengths: FloatArray | None = None

    @classmethod
    def of_rows(
        cls,
        cells: NDArray[np.int64],
        y: FloatArray,
        w: FloatArray,
        n_cells: int,
        lengths: FloatArray | None = None,
    ) -> Sums:
        """From each row's cell, value and weight; ``lengths`` (2, n) are τin and τout."""
        wy, wτ = w * y, None if lengths is None else w * lengths
        n, w, wy, wyy = (_gathered(cells, column, n_cells) for column in (np.ones(len(y)), w, wy, wy * y))
        return cls(n, w, wy, wyy, _gathered_each(cells, wτ, n_cells))

    def gathered(self, cells: NDArray[np.int64], factors: FloatArray | None = None) -> Sums:
        """Of cells, from those of strata whose cells are given, each row counting ``factors`` (1) times as much."""
        m = int(cells.max(initial=-1)) + 1
        u = 1.0 if factors is None else factors
        w, wy, wyy = (_gathered(cells, u * column, m) for column in (self.w, self.wy, self.wyy))
        wτ = None if self.lengths is None else u * self.lengths
        return Sums(_gathered(cells, self.n, m), w, wy, wyy, _gathered_each(cells, wτ, m))

    def of(self, chosen: NDArray[np.generic]) -> Sums:
        """Those of some cells."""
        lengths = None if self.lengths is None else self.lengths[:, chosen]
        return Sums(self.n[chosen], self.w[chosen], self.wy[chosen], self.wyy[chosen], lengths)


def _gathered(cells: NDArray[np.int64], values: FloatArray, n_cells: int) -> FloatArray:
    return np.asarray(np.bincount(cells, values, n_cells), dtype=np.float64)


def _gathered_each(cells: NDArray[np.int64], columns: FloatArray | None, n_cells: int) -> FloatArray | None:
    return None if columns is None else np.stack([_gathered(cells, column, n_cells) for column in columns])


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Σw, Σwy, Σwy², XᵀWX of shape (n_terms, n_terms) and XᵀWy of shape (n_terms,) over n rows."""

    n: int
    w: float
    wy: float
    wyy: float
    gram: FloatArray
    moment: FloatArray

    @classmethod
    def of(cls, design: FloatArray, sums: Sums) -> Moments:
        """From the design of the cells (m, n_terms), and the sums of each."""
        gram = design.T @ (design * sums.w[:, np.newaxis])
        n, w, wy, wyy = (float(column.sum()) for column in (sums.n, sums.w, sums.wy, sums.wyy))
        return cls(round(n), w, wy, wyy, gram, design.T @ sums.wy)

    def spread(self, points: FloatArray, w: FloatArray, β: FloatArray) -> Moments:
        """With what the rows of bands spread about the means that a design has.

        ``points`` (k, m, n_terms) is φ at k points that stand for a band's rows, ``w`` (m,) is W: XᵀWX is the mean of
        those of the points. Rows follow β within a band, so XᵀWy has Cβ more where XᵀWX has C: what solves the normal
        equations is the same.
        """
        columns = np.moveaxis(points, -1, 0)
        gram = np.tensordot(columns * w, columns, axes=((1, 2), (1, 2))) / len(points)
        return replace(self, gram=gram, moment=self.moment + (gram - self.gram) @ β)

    def residual(self, β: FloatArray) -> float:
        """Σw(y − Xβ)² ≥ 0."""
        return max(0.0, self.wyy - 2 * float(β @ self.moment) + float(β @ self.gram @ β))

    def r_squared(self, β: FloatArray, *, centered: bool) -> float | None:
        """1 − Σw(y − Xβ)² / Σw(y − ȳ)², or over Σwy² where not centred; ``None`` where that is 0."""
        total = self.total(centered=centered)
        return 1 - self.residual(β) / total if total > 1e-12 * self.wyy else None

    def total(self, *, centered: bool) -> float:
        """Σw(y − ȳ)² or Σwy²."""
        return self.wyy - self.wy**2 / self.w if centered else self.wyy

    def __add__(self, other: Moments) -> Moments:
        """Of both sets of rows."""
        return Moments(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        return all(np.array_equal(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


@dataclass(frozen=True, slots=True)
class FitMoments:
    """What an update needs of one fit.

    ``estimate`` is what coefficients are solved from, ``relative`` what R², F and p of that fit are made of (the same
    but for ``phases``, whose coefficients come of two targets), ``raw`` the rows as they are, for R² on the raw scale.
    """

    estimate: Moments
    relative: Moments
    raw: Moments
