"""What a query will cost, with an interval, and what to do where the model does not apply.

Outside the fitted lengths a form is a guess, and at or below zero it is wrong. Which of the two stops a program, which
is only said, and which it takes upon itself is for the caller to choose; by default the first is said and the second
stops.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.exceptions import InputError
from llmpower.modelling.fitted.models import Fit, WorkloadModel
from llmpower.modelling.linear import FloatArray

Policy = Literal["raise", "warn", "allow"]
"""What to do about a doubtful prediction: :class:`InputError`, :class:`PredictionWarning`, or nothing."""


class PredictionWarning(UserWarning):
    """A prediction outside what was fitted, or at or below zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Joules or seconds, each array of the shape of the token counts.

    ``low`` and ``high`` bound the mean over such queries with the confidence asked for, NaN where the fit left no
    degree of freedom; a single query varies more: for 95 % of the held-out ones the prediction was off by at most
    ``p95_ape``, a fraction of what was measured, ``None`` where that is not known. ``outside`` marks lengths or batch
    sizes beyond the fitted ones.
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    outside: NDArray[np.bool_]
    p95_ape: float | None


@dataclass(frozen=True, slots=True, eq=False)
class ModelPrediction:
    """Energy in joules and runtime in seconds of the same queries."""

    energy_j: Prediction
    runtime_s: Prediction


def predict(
    model: WorkloadModel,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    batch_size: float = 1,
    confidence: float = 0.95,
    outside: Policy = "warn",
    nonpositive: Policy = "raise",
) -> ModelPrediction:
    """Predict queries of these lengths, served ``batch_size`` at a time where the model knows of batches.

    Raises:
        InputError: a policy is unknown, a length, the batch size or the confidence cannot be, or a prediction is
            doubtful and its policy is ``raise``; the first such query is named.

    Example:
        >>> import pandas as pd
        >>> from llmpower.modelling import fit
        >>> L = (8, 64, 512)
        >>> rows = pd.DataFrame(
        ...     [("llama", τin, τout, 5 + 0.1 * τin + 2 * τout, 0.1 + 0.02 * τout) for τin in L for τout in L],
        ...     columns=["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"],
        ... )
        >>> (model,) = fit(rows, form="cached")
        >>> energy = predict(model, [100, 400], 50).energy_j
        >>> energy.mean.round(3).tolist(), energy.outside.tolist()
        ([115.0, 145.0], [False, False])
    """
    if not isinstance(model, WorkloadModel):
        raise InputError(
            "model", type(model).__name__, "is not a model; give one of those that fit or load_models return"
        )
    for name, policy in (("outside", outside), ("nonpositive", nonpositive)):
        if policy not in get_args(Policy):
            raise InputError(name, policy, f"unknown; use one of {', '.join(get_args(Policy))}")
    τin, τout = at_least("input_tokens", input_tokens, 0), at_least("output_tokens", output_tokens, 0)
    if (size := at_least("batch_size", batch_size, 1)).ndim:
        raise InputError(
            "batch_size", batch_size, "is one number; predict what is served at another batch size separately"
        )
    batch_size = float(size)
    if batch_size > 1 and model.energy.batch_range is None and model.runtime.batch_range is None:
        advice = f"{model.model_name} was not fitted to batches; fit rows of several batch sizes with --form batched"
        raise InputError("batch_size", f"{batch_size:g}", advice)
    try:
        τin, τout = np.broadcast_arrays(τin, τout)
    except ValueError as error:
        advice = f"have another shape than input_tokens, {τin.shape}; give one for each query, or one for all"
        raise InputError("output_tokens", τout.shape, advice) from error
    queries = _Queries(τin, τout, confidence)
    served = model.at_batch_size(batch_size)
    beyond = [
        ~fit.inside(queries.input_tokens, queries.output_tokens, batch_size) for fit in (model.energy, model.runtime)
    ]
    queries.complain(outside, beyond[0] | beyond[1], "input_tokens, output_tokens", _ranges(model))
    return ModelPrediction(
        energy_j=queries.ask(served.energy, "energy_j", beyond[0], nonpositive),
        runtime_s=queries.ask(served.runtime, "runtime_s", beyond[1], nonpositive),
    )


def at_least(field: str, values: ArrayLike, least: float) -> FloatArray:
    """``values`` as floats.

    Raises:
        InputError: one is none, or below ``least``.
    """
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise InputError(field, values, f"must be a number ≥ {least}") from error
    if wrong := numbers[~((numbers >= least) & np.isfinite(numbers))].tolist():
        raise InputError(field, f"{wrong[0]:g}", f"must be a number ≥ {least}")
    return numbers


def _ranges(model: WorkloadModel) -> str:
    (in_low, in_high), (out_low, out_high) = model.energy.input_range, model.energy.output_range
    batch = model.energy.batch_range
    further = "" if batch is None else f", {batch[0]} to {batch[1]} at a time"
    return (
        f"outside what was fitted ({in_low} to {in_high} input and {out_low} to {out_high} output tokens{further});"
        " this is an extrapolation"
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Queries:
    input_tokens: FloatArray
    output_tokens: FloatArray
    confidence: float

    def ask(self, fit: Fit, what: str, outside: NDArray[np.bool_], nonpositive: Policy) -> Prediction:
        mean = fit.predict(self.input_tokens, self.output_tokens)
        low, high = fit.interval(self.input_tokens, self.output_tokens, self.confidence)
        advice = (
            f"the form {fit.label} predicts nothing positive there and cannot be trusted; fit again with --form auto"
        )
        self.complain(nonpositive, ~(mean > 0), what, advice, mean)
        return Prediction(mean, low, high, outside, fit.heldout.p95_ape)

    def complain(
        self, policy: Policy, wrong: NDArray[np.bool_], field: str, advice: str, found: FloatArray | None = None
    ) -> None:
        """Do what the policy says about the queries that are wrong, naming the first."""
        if policy == "allow" or not wrong.any():
            return
        first = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        query = f"{self.input_tokens[first]:.12g} input and {self.output_tokens[first]:.12g} output tokens"
        others = f" (and {int(wrong.sum()) - 1} more)" if wrong.sum() > 1 else ""
        value = query + others if found is None else f"{found[first]:.4g} for {query}{others}"
        if policy == "raise":
            raise InputError(field, value, advice)
        warnings.warn(f"{field} = {value}: {advice}", PredictionWarning, stacklevel=4)
