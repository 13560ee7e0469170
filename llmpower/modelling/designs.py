"""Design matrices of one model's rows: those of its cells, and of the rows that errors are judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from llmpower.exceptions import FitError
from llmpower.modelling.forms import Batched
from llmpower.modelling.groups import Group, Target
from llmpower.modelling.linear import FloatArray, Form

Made = TypeVar("Made")


def design_of(group: Group, target: Target, form: Form) -> FloatArray:
    """φ of the model's cells as their rows count: joules and seconds of a whole batch are those of its requests."""
    lengths = (group.cell_input_tokens, group.cell_output_tokens, group.cell_batch_size, group.cell_sharing)
    return _design(group, target, form, lengths)


def row_design_of(group: Group, target: Target, form: Form) -> FloatArray | None:
    """φ of the rows by which errors are judged, where cells are bands and do not have their lengths, else ``None``."""
    return None if group.row_lengths is None else _design(group, target, form, group.row_lengths)


class Designs:
    """The designs of a model's forms, each made once for both targets; those of ``batched`` differ between them."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._made: dict[tuple[object, ...], Any] = {}

    def of_cells(self, form: Form, target: Target) -> FloatArray:
        """As :func:`design_of`."""
        return self._once(design_of, form, target)

    def of_rows(self, form: Form, target: Target) -> Sequence[FloatArray]:
        """Columns of :func:`row_design_of`; none where that is ``None``."""
        return self._once(_row_columns_of, form, target)

    def _once(self, make: Callable[[Group, Target, Form], Made], form: Form, target: Target) -> Made:
        key = (make, form.label, target.unit if isinstance(form, Batched) else None)
        if key not in self._made:
            self._made[key] = make(self._group, target, form)
        made: Made = self._made[key]
        return made


def _row_columns_of(group: Group, target: Target, form: Form) -> Sequence[FloatArray]:
    if group.row_lengths is None:
        return ()
    if isinstance(form, Batched):
        columns: Sequence[FloatArray] = tuple(_design(group, target, form, group.row_lengths).T)
    else:
        columns = form.columns(*group.row_lengths[:2])
    return [np.ascontiguousarray(column, dtype=np.float64) for column in columns]


def _design(group: Group, target: Target, form: Form, lengths: Sequence[FloatArray] | FloatArray) -> FloatArray:
    τin, τout, B, sharing = lengths
    if not isinstance(form, Batched):
        return form.design(τin, τout)
    if not group.batched:
        advice = (
            f"{group.model_name}: all rows have the same batch size and concurrency; vary them, or take form cached"
        )
        raise FitError("batch_size", f"{B[0]:.0f}", advice)
    requests = sharing if target.unit == "s" else B
    return np.asarray(form.design(τin / B, τout / B, sharing) * requests[:, np.newaxis])
