"""What a fit is once it is done: numbers apart from the settings that led to them, all frozen.

Nothing here needs pandas, scipy or statsmodels to be imported: routing and ``llmpower predict`` load these records
from models.json and evaluate them with numpy alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.exceptions import InputError
from llmpower.modelling.forms import Batched, Cached, FloatArray, Form, make_form
from llmpower.modelling.rows.moments import FitMoments
from llmpower.tables import number_of

LEAVE_ONE_CELL_OUT = "leave_one_cell_out"
LEAVE_ONE_LENGTH_OUT = "leave_one_length_out"
NESTED = "leave_one_cell_out, form chosen without it"
PROSPECTIVE = "leave_one_cell_out, then new rows before they were learnt"
"""The scheme of an updated fit's held-out error."""

SHORT = 0.05
"""A shortfall that is said wherever joules are added up: of what is billed or planned, a twentieth is missed."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Errors on measurements that the fit had not seen.

    ``mape``, ``median_ape`` and ``worst_ape`` are fractions (0.055 is 5.5 %) over all held-out rows, ``None`` where
    the remaining cells could not determine the form. ``negative_predictions`` counts cells predicted at or below
    zero. ``scheme`` is how rows were held out: all rows with the same (τin, τout) at a time, or all of one length.
    ``p95_ape`` is what 95 % of the errors stay below; ``bias`` the signed error of the total, Σ(ŷ − y)/Σy.
    """

    mape: float | None
    median_ape: float | None
    worst_ape: float | None
    negative_predictions: int | None
    scheme: str = LEAVE_ONE_CELL_OUT
    p95_ape: float | None = None
    bias: float | None = None


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

    What follows ``alternatives`` older files lack. ``n_cells`` counts distinct lengths, ``batch_range`` holds the
    fewest and most requests that shared a decode step (form ``batched`` alone, whose token ranges are one request's),
    ``extrapolation`` the errors with one length held out at a time, ``replicate_noise`` the relative standard deviation
    of repeated trials, ``estimator`` how coefficients and their errors were found, ``choice`` why this form,
    ``moments`` what an update needs, and ``nested`` the held-out errors where the form, too, is chosen without the cell
    (``None`` where it was not chosen, or of too many cells).
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
    n_cells: int | None = None
    batch_range: tuple[int, int] | None = None
    extrapolation: HeldOut | None = None
    replicate_noise: float | None = None
    estimator: str = ""
    choice: str = ""
    moments: FitMoments | None = None
    nested: HeldOut | None = None

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

    @property
    def label(self) -> str:
        """The form as a user asks for it: ``paper+intercept`` where there is an intercept."""
        return self._form().label

    @property
    def formula(self) -> str:
        """What a prediction is, for people."""
        return self._form().formula

    @property
    def of_first_rows(self) -> str:
        """What to say beside figures that an update leaves as they were, if there was one."""
        return " in the rows before the update" if self.heldout.scheme == PROSPECTIVE else ""

    @property
    def shortfall(self) -> float:
        """By what fraction of it predictions fell short of a total, held out.

        Relative error is drawn to the cheaper of rows that vary (:mod:`~llmpower.modelling.regressing.totals`), and no
        :meth:`interval` knows of it. 0 where they did not, and for the form ``paper``, which is not drawn.
        """
        return max(0.0, -(self.heldout.bias or 0.0)) if self._form().non_negative else 0.0

    @property
    def degrees_of_freedom(self) -> int:
        """What was independent, m of :meth:`interval`, less the terms that were estimated; may be none or negative."""
        independent = self.n_obs if self.n_cells is None or not self._form().non_negative else self.n_cells
        return independent - int(np.count_nonzero(self.coefficients))

    def predict(self, input_tokens: ArrayLike, output_tokens: ArrayLike, batch_size: ArrayLike = 1) -> FloatArray:
        """Expected joules or seconds, of the shape of the token counts; unchecked outside the fitted range.

        ``batch_size`` matters to the form ``batched``: joules of one request among this many.
        """
        return np.asarray(self._form().design(input_tokens, output_tokens, batch_size) @ self.coefficients)

    def interval(
        self,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        confidence: float = 0.95,
        batch_size: ArrayLike = 1,
    ) -> tuple[FloatArray, FloatArray]:
        """Confidence interval of the mean: low and high, each of the shape of the token counts.

            ŷ ± t_{(1+confidence)/2, m−p} · √(xᵀ C x)

        x is a row of the design matrix, C the coefficients' covariance, p the number of terms not held at zero;
        terms held there count as known. m counts what was independent: the cells, or the rows where ``n_cells`` is
        not known and for the form ``paper``, whose errors are those of ordinary least squares. NaN where the data left
        no degree of freedom. Of the mean where predictions are unbiased: see :attr:`shortfall`.

        Raises:
            InputError: ``confidence`` is not a fraction.
        """
        x = self._form().design(input_tokens, output_tokens, batch_size)
        free = ~np.isnan(self.std_errors)
        C = self.covariance[np.ix_(free, free)]
        t = self._t(confidence) if free.any() else np.nan
        ŷ = x @ self.coefficients
        half_width = t * np.sqrt(np.einsum("...i,ij,...j->...", x[..., free], C, x[..., free]))
        return np.asarray(ŷ - half_width), np.asarray(ŷ + half_width)

    def coefficient_intervals(self, confidence: float = 0.95) -> FloatArray:
        """Low and high of each coefficient, shape (n_terms, 2); NaN where it has no standard error."""
        t = self._t(confidence)
        return np.stack([self.coefficients - t * self.std_errors, self.coefficients + t * self.std_errors], axis=1)

    def inside(self, input_tokens: ArrayLike, output_tokens: ArrayLike, batch_size: ArrayLike = 1) -> NDArray[np.bool_]:
        """Where all counts lie within the fitted ranges, ends included."""
        τin, τout = np.asarray(input_tokens), np.asarray(output_tokens)
        (in_low, in_high), (out_low, out_high) = self.input_range, self.output_range
        inside = (τin >= in_low) & (τin <= in_high) & (τout >= out_low) & (τout <= out_high)
        if self.batch_range is not None:
            low, high = self.batch_range
            inside = inside & (np.asarray(batch_size) >= low) & (np.asarray(batch_size) <= high)
        return np.asarray(inside)

    def at_batch_size(self, batch_size: float, *, per_request: bool = True) -> Fit:
        """The fit of form ``cached`` that says what this one does for requests served ``batch_size`` at a time.

        ``per_request`` divides what the batch costs among its requests, as joules are; without it the figure is the
        whole batch's, as seconds are. A fit of any other form is returned as it is.

        Raises:
            InputError: this many cannot be served.
        """
        if not 1 <= number_of(batch_size) < np.inf:
            raise InputError("batch_size", batch_size, "must be a number ≥ 1")
        batch_size = float(batch_size)
        if self.form != Batched.name:
            return self
        M = Batched.at(batch_size) * (1 if per_request else batch_size)
        known = np.where(np.isnan(self.covariance), 0.0, self.covariance)
        covariance = M @ known @ M.T
        coefficients = M @ self.coefficients
        covariance[np.ix_(coefficients == 0, coefficients == 0)] = np.nan
        terms = Cached().terms
        return replace(
            self,
            form=Cached.name,
            terms=terms,
            coefficients=coefficients,
            covariance=covariance,
            std_errors=np.sqrt(np.diag(covariance)),
            batch_range=None,
            moments=None,
        )

    def _t(self, confidence: float) -> float:
        """t_{(1+confidence)/2, m−p}; NaN without a degree of freedom."""
        from scipy.special import stdtrit

        if not 0 < (of_one := number_of(confidence)) < 1:
            raise InputError("confidence", confidence, "is a fraction between 0 and 1; write 0.95 for 95 %")
        degrees = self.degrees_of_freedom
        return float(stdtrit(degrees, (1 + of_one) / 2)) if degrees > 0 else np.nan

    def _form(self) -> Form:
        return make_form(self.form, intercept="intercept" in self.terms)


@dataclass(frozen=True, slots=True)
class WorkloadModel:
    """Energy and runtime of one model on one system.

    ``simulated`` is true when the rows came from a simulated device. ``boundary`` says what ``energy`` covers
    (``gpu``, ``cpu``, ``gpu+cpu``, and each with ``-idle`` behind it where the idle share is taken away), ``None`` when
    the measurements did not say.
    """

    model_name: str
    system: str
    simulated: bool
    energy: Fit
    runtime: Fit
    boundary: str | None = None

    def at_batch_size(self, batch_size: float) -> WorkloadModel:
        """This model for requests served ``batch_size`` at a time: joules of one of them, seconds until it is done.

        What is not of form ``batched`` stays as it is.
        """
        energy = self.energy.at_batch_size(batch_size)
        return replace(self, energy=energy, runtime=self.runtime.at_batch_size(batch_size, per_request=False))


def labels_of(models: Sequence[WorkloadModel]) -> list[str]:
    """Names that tell the models apart, as a plan calls them: with the system where a model stands on several."""
    times = Counter(model.model_name for model in models)
    return [m.model_name if times[m.model_name] == 1 else f"{m.model_name}@{m.system}" for m in models]


def models_of(models: object) -> list[WorkloadModel]:
    """``models`` as a list; one may be given as it is.

    Raises:
        InputError: something else is among them.
    """
    found = []
    for model in models if isinstance(models, Iterable) and not isinstance(models, str) else [models]:
        if not isinstance(model, WorkloadModel):
            shown = model if isinstance(model, str) else type(model).__name__
            raise InputError("models", shown, "is not a model; give what fit returns, or load_models of a file")
        found.append(model)
    return found


def _same(ours: object, theirs: object) -> bool:
    if isinstance(ours, np.ndarray) and isinstance(theirs, np.ndarray):
        return np.array_equal(ours, theirs, equal_nan=True)
    return ours == theirs
