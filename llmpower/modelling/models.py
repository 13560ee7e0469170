"""What a fit is once it is done: numbers apart from the settings that led to them, all frozen.

Nothing here needs pandas, scipy or statsmodels to be imported: routing and ``llmpower predict`` load these records
from models.json and evaluate them with numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.modelling.forms import FloatArray, Form, make_form

LEAVE_ONE_CELL_OUT = "leave_one_cell_out"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors on measurements that the fit had not seen.

    ``mape``, ``median_ape`` and ``worst_ape`` are fractions (0.055 is 5.5 %) over all held-out rows, ``None`` where
    the remaining cells could not determine the form. ``negative_predictions`` counts cells predicted at or below
    zero. ``scheme`` is how rows were held out: all rows with the same (τin, τout) at a time.
    """

    mape: float | None
    median_ape: float | None
    worst_ape: float | None
    negative_predictions: int | None
    scheme: str = LEAVE_ONE_CELL_OUT


@dataclass(frozen=True, slots=True)
class Alternative:
    """A form that was tried and not chosen, with the held-out error that decided it."""

    form: str
    heldout: HeldOut


@dataclass(frozen=True, eq=False)
class Fit:
    """One target, ``energy_j`` [J] or ``runtime_s`` [s], of one model as a linear form of its token counts.

    ``coefficients`` and ``std_errors`` have shape (n_terms,), ``covariance`` (n_terms, n_terms), in the order of
    ``terms``. A term held at zero by its bound has coefficient 0 and no standard error: NaN. ``r_squared``,
    ``f_statistic`` and ``f_pvalue`` are what statsmodels prints for the fit; ``r_squared_centered`` and
    ``r_squared_uncentered`` are on the raw scale whatever the weights were. A statistic that the data do not
    determine is ``None``. Ranges are the lowest and highest token counts fitted.
    """

    form: str
    terms: tuple[str, ...]
    coefficients: FloatArray
    std_errors: FloatArray
    covariance: FloatArray
    n_obs: int
    r_squared: float | None
    r_squared_centered: float | None
    r_squared_uncentered: float | None
    f_statistic: float | None
    f_pvalue: float | None
    heldout: HeldOut
    input_range: tuple[int, int]
    output_range: tuple[int, int]
    warnings: tuple[str, ...] = ()
    alternatives: tuple[Alternative, ...] = ()

    def __post_init__(self) -> None:
        for name in ("coefficients", "std_errors", "covariance"):
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fit):
            return NotImplemented
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in fields(self))

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash

    def predict(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
        """Expected joules or seconds, of the shape of the token counts; unchecked outside the fitted range."""
        return np.asarray(self._form().design(input_tokens, output_tokens) @ self.coefficients)

    def interval(
        self, input_tokens: ArrayLike, output_tokens: ArrayLike, confidence: float = 0.95
    ) -> tuple[FloatArray, FloatArray]:
        """Confidence interval of the mean: low and high, each of the shape of the token counts.

            ŷ ± t_{(1+confidence)/2, n−p} · √(xᵀ C x)

        x is a row of the design matrix, C the coefficients' covariance, p the number of terms not held at zero;
        terms held there count as known. NaN where the data left no degree of freedom.
        """
        from scipy.special import stdtrit

        x = self._form().design(input_tokens, output_tokens)
        free = ~np.isnan(self.std_errors)
        C = self.covariance[np.ix_(free, free)]
        degrees = self.n_obs - np.count_nonzero(self.coefficients)
        t = stdtrit(degrees, (1 + confidence) / 2) if degrees > 0 else np.nan
        ŷ = x @ self.coefficients
        half_width = t * np.sqrt(np.einsum("...i,ij,...j->...", x[..., free], C, x[..., free]))
        return np.asarray(ŷ - half_width), np.asarray(ŷ + half_width)

    def inside(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> NDArray[np.bool_]:
        """Where both token counts lie within the fitted ranges, ends included."""
        τin, τout = np.asarray(input_tokens), np.asarray(output_tokens)
        (in_low, in_high), (out_low, out_high) = self.input_range, self.output_range
        return np.asarray((τin >= in_low) & (τin <= in_high) & (τout >= out_low) & (τout <= out_high))

    def _form(self) -> Form:
        return make_form(self.form, intercept="intercept" in self.terms)


@dataclass(frozen=True, slots=True)
class WorkloadModel:
    """Energy and runtime of one model on one system.

    ``simulated`` is true when the rows came from a simulated device. ``boundary`` says what ``energy`` covers
    (``gpu``, ``cpu``, ``gpu+cpu``), ``None`` when the measurements did not say.
    """

    model_name: str
    system: str
    simulated: bool
    energy: Fit
    runtime: Fit
    boundary: str | None = None


def _same(ours: object, theirs: object) -> bool:
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return np.array_equal(ours, theirs, equal_nan=True)
    return ours == theirs
