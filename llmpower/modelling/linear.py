"""What a form is: named terms, and a design matrix that says what each term's coefficient is multiplied with.

Every form is linear in its coefficients, so that fitting is least squares, deleting a cell is a rank-one downdate, and
a routing plan needs no more of a model than φ and its coefficients.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

ROUNDING = 1e-6
"""What correlations may be off by: sums of nearly the same terms keep few digits of what tells them apart."""


class Form(ABC):
    """A linear form: its terms in the order of the design matrix's columns.

    ``non_negative`` says how it is estimated: with coefficients ≥ 0 on relative error, or by ordinary least squares.
    """

    name: ClassVar[str]
    non_negative: ClassVar[bool] = True

    @property
    def label(self) -> str:
        """What a user asks for it by; a variant has a label of its own."""
        return self.name

    @property
    @abstractmethod
    def formula(self) -> str:
        """What a prediction is, for people."""

    @property
    @abstractmethod
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients."""

    @property
    def within(self) -> tuple[Form, slice] | None:
        """A form of more terms, and which of its terms are this form's, where there is one: their columns are alike."""
        return None

    @abstractmethod
    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """What each coefficient is multiplied with; all of the shape of ``τin`` and ``τout``."""

    def design(self, input_tokens: ArrayLike, output_tokens: ArrayLike, batch_size: ArrayLike = 1) -> FloatArray:
        """Design matrix φ of shape (…, n_terms) for token counts of any one shape.

        ``batch_size`` matters to the form ``batched`` alone; every other form is the same whatever it is.
        """
        del batch_size
        τin, τout = np.asarray(input_tokens, dtype=np.float64), np.asarray(output_tokens, dtype=np.float64)
        return stacked(self.columns(τin, τout))

    def features(self, input_tokens: float, output_tokens: float) -> Sequence[float]:
        """φ of one query as plain floats: a microsecond, where arrays take ten."""
        τin, τout = float(input_tokens), float(output_tokens)
        return self.columns(τin, τout)  # type: ignore[arg-type,return-value]  # formulas are alike, of floats they give floats


def stacked(columns: tuple[FloatArray, ...]) -> FloatArray:
    """Columns side by side as the last axis; each stays contiguous in memory, as sums over rows like them."""
    design = np.empty((len(columns), *np.broadcast(*columns).shape))
    for number, column in enumerate(columns):
        design[number] = column
    return design.transpose(*range(1, design.ndim), 0)


def contexts(τin: FloatArray, n: FloatArray) -> FloatArray:
    """What n decode steps see, summed: Σ_{k<n} (τin + k) = n·τin + n(n−1)/2."""
    return n * τin + n * (n - 1) / 2


def ones(τ: FloatArray) -> FloatArray:
    """1 in the shape of τ. This and the two below keep one query's floats plain, see :meth:`Form.features`."""
    return 1.0 if type(τ) is float else np.ones_like(τ)  # type: ignore[comparison-overlap,unreachable]


def positive_part(τ: FloatArray) -> FloatArray:
    """max(0, τ)."""
    return max(0.0, τ) if type(τ) is float else np.maximum(0, τ)  # type: ignore[comparison-overlap,unreachable]


def smaller(a: FloatArray, b: FloatArray) -> FloatArray:
    """min(a, b)."""
    return min(a, b) if type(a) is float else np.minimum(a, b)  # type: ignore[comparison-overlap,unreachable]


def is_covariance(C: FloatArray) -> bool:
    """Whether C (n, n) is symmetric and positive semi-definite but for rounding, so that xᵀCx ≥ 0 for every x.

    Asked of D⁻¹CD⁻¹, D = diag(C)^½, as terms differ in scale by many powers of ten. A term whose variance is NaN has
    none, and is not asked about.
    """
    known = ~np.isnan(np.diag(C))
    C = C[np.ix_(known, known)]
    d = np.sqrt(np.abs(np.diag(C)))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        R = np.where(C == 0, 0, C / d / d[:, np.newaxis])
    if not np.isfinite(R).all() or not np.allclose(R, R.T, rtol=0, atol=ROUNDING):
        return False
    return bool((np.linalg.eigvalsh(R) >= -ROUNDING).all())
