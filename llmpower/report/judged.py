"""Measurements beside what their models say of them, each counted as the fit counts it.

A row may be a whole batch, whose tokens and joules are those of all its requests, while the form ``batched`` speaks of
one request among B that share their steps. Compared as they stand, a model that is right would look wrong by a factor
of B. So for that form every row is divided by its batch first: its lengths and its joules, not its seconds, which each
of its requests waits for. Any other form was fitted to rows as they stand, whatever they say of batches, and is
compared with them as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmpower.modelling import Fit, WorkloadModel
from llmpower.modelling.fitted.models import labels_of
from llmpower.modelling.forms import Batched, FloatArray
from llmpower.modelling.rows.grouping import group_rows
from llmpower.modelling.rows.groups import Group

if TYPE_CHECKING:
    import pandas as pd

TargetName = Literal["energy", "runtime"]
FURTHER = re.compile(r"^(?P<base>.*) \[(?P<pairs>[^\[\]]+=[^\[\]]*)\]$")


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One target of one model over its rows, of a request or of a row; arrays have shape (n_rows,), joules or seconds.

    ``batch_size`` is what a row was divided by, and 1 where it is not. ``low`` and ``high`` bound the mean of such
    requests with 95 % confidence, as the fit has it; NaN where it left no degree of freedom.
    """

    label: str
    model: WorkloadModel
    target: TargetName
    fit: Fit
    input_tokens: FloatArray
    output_tokens: FloatArray
    batch_size: FloatArray
    sharing: FloatArray
    measured: FloatArray
    predicted: FloatArray
    low: FloatArray
    high: FloatArray

    @property
    def unit(self) -> str:
        """J or s."""
        return "J" if self.target == "energy" else "s"

    @property
    def residual(self) -> FloatArray:
        """What was measured over what was predicted, less 1."""
        return np.asarray(self.measured / self.predicted - 1)

    def line(self, input_tokens: FloatArray, output_tokens: FloatArray, sharing: float) -> FloatArray:
        """What the model says of other requests than those measured."""
        return expected(self.fit, self.target, input_tokens, output_tokens, np.full_like(input_tokens, sharing))[0]


def judge(
    models: Sequence[WorkloadModel], measurements: pd.DataFrame, group_by: str | Sequence[str] | None = None
) -> list[Judged]:
    """Both targets of every model that there are rows of, energy first.

    ``group_by`` is that of the fit; by default what the models' names say.

    Raises:
        FitError: a row cannot be what it claims; it is named.
    """
    labels = labels_of(models)
    known = {
        (model.model_name, model.system, model.boundary): (label, model)
        for label, model in zip(labels, models, strict=True)
    }
    columns = group_by if group_by is not None else grouping_of(models, measurements)
    judged = []
    for boundary, group in _groups(models, measurements, columns):
        if found := known.get((group.model_name, group.system, boundary)):
            judged += [_judged(*found, group, target) for target in ("energy", "runtime")]
    return sorted(judged, key=lambda j: labels.index(j.label))


def grouping_of(models: Sequence[WorkloadModel], measurements: pd.DataFrame) -> list[str] | None:
    """The columns that a fit with ``--group-by`` left in the models' names, ``llama [batch_size=4]``."""
    found: dict[str, None] = {}
    for model in models:
        if match := FURTHER.match(model.model_name):
            found |= dict.fromkeys(pair.partition("=")[0].strip() for pair in match["pairs"].split(", "))
    if not found or not set(found) <= set(measurements.columns):
        return None
    systems = ["system"] if any(model.system for model in models) else []
    return ["model_name", *systems, *found]


def expected(
    fit: Fit, target: TargetName, input_tokens: FloatArray, output_tokens: FloatArray, sharing: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Prediction, low and high: of one request among ``sharing`` for the form ``batched``, and else of a row."""
    if fit.form != Batched.name:
        return fit.predict(input_tokens, output_tokens), *fit.interval(input_tokens, output_tokens)
    factor = sharing if target == "runtime" else np.ones_like(sharing)
    low, high = fit.interval(input_tokens, output_tokens, batch_size=sharing)
    return fit.predict(input_tokens, output_tokens, sharing) * factor, low * factor, high * factor


def _groups(
    models: Sequence[WorkloadModel], measurements: pd.DataFrame, group_by: str | Sequence[str] | None
) -> Iterator[tuple[str | None, Group]]:
    """The rows of each name that models of a boundary have, with joules of that, and it."""
    boundaries = list(dict.fromkeys(model.boundary for model in models))
    for boundary in boundaries:
        names = {base for m in models if m.boundary == boundary for base in (m.model_name, _base(m.model_name))}
        rows = measurements[measurements["model_name"].isin(names)]
        if len(rows):
            yield from ((boundary, group) for group in group_rows(rows, group_by, boundary or "gpu"))


def _base(name: str) -> str:
    match = FURTHER.match(name)
    return match["base"] if match else name


def _judged(label: str, model: WorkloadModel, group: Group, target: TargetName) -> Judged:
    fit = model.energy if target == "energy" else model.runtime
    batched = fit.form == Batched.name
    cells = group.cell_input_tokens, group.cell_output_tokens, group.cell_batch_size, group.cell_sharing
    # Rows of a cell share their lengths; those of a band have their own.
    of_row = group.cells if group.row_lengths is None else np.arange(len(group.cells))
    τin, τout, requests, sharing = cells if group.row_lengths is None else group.row_lengths
    batch_size = requests if batched else np.ones_like(requests)
    lengths = τin / batch_size, τout / batch_size
    predicted, low, high = expected(fit, target, *lengths, sharing)
    # A published form predicts negative joules for short queries; there is no ratio to such a figure.
    predicted = np.where(predicted > 0, predicted, np.nan)
    measured = group.energy.y / batch_size[of_row] if target == "energy" else group.runtime.y
    return Judged(
        label=label,
        model=model,
        target=target,
        fit=fit,
        input_tokens=lengths[0][of_row],
        output_tokens=lengths[1][of_row],
        batch_size=batch_size[of_row],
        sharing=sharing[of_row],
        measured=measured,
        predicted=predicted[of_row],
        low=low[of_row],
        high=high[of_row],
    )
