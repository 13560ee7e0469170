"""Design matrices of one model's rows: those of its cells, and of the rows that errors are judged by.

A cell is one point (τin, τout), but a band is as wide as its lengths are rounded. Rows of a band count by w, which
falls with the lengths; so the band is put at its mean by these weights, of each target and phase its own:

    τ̄ = Σwτ / Σw     Σ w(y − φ(τ)β) = Σw·(ȳ − φ(τ̄)β)     wherever φ is linear

For what is not, the mean of φ is that over four points with the band's variances (the cubature of degree 3; Stroud,
Approximate calculation of multiple integrals, 1971), s of all rows alike:

    φ̄ = ¼ Σ φ(τ̄in ± √2·s_in, τ̄out) + ¼ Σ φ(τ̄in, τ̄out ± √2·s_out)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from llmpower.modelling.forms import Batched
from llmpower.modelling.linear import FloatArray, Form
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import Sums
from llmpower.modelling.rows.targets import Target

Made = TypeVar("Made")


def mean_of(points: FloatArray) -> FloatArray:
    """φ̄ of :meth:`Designs.points`."""
    return points[0] if len(points) == 1 else np.asarray(np.add.reduce(points) / len(points))


class Designs:
    """The designs of a model's forms, each made once where it is the same.

    Those of ``batched`` differ between targets, those of bands by what rows count. As rows are: joules and seconds of a
    whole batch are those of its requests.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._made: dict[tuple[object, ...], Any] = {}
        self._lengths: dict[Sums | None, tuple[FloatArray, ...]] = {}

    def points(self, form: Form, target: Target, sums: Sums) -> FloatArray:
        """φ at the points that stand for a cell's rows, shape (k, m, n_terms): one where lengths are exact, else four.

        Rows count as in ``sums``; see the module.
        """
        counted = self._counted(sums)
        if counted not in self._lengths:
            self._lengths[counted] = _lengths_of(self.group, sums)
        return _design(target, form, self._lengths[counted])

    def of_cells(self, form: Form, target: Target, sums: Sums) -> FloatArray:
        """φ of the model's cells, shape (m, n_terms), the mean of the points."""
        if form.within is not None:
            whole, terms = form.within
            return self.of_cells(whole, target, sums)[:, terms]
        return self._once(lambda: mean_of(self.points(form, target, sums)), form, target, self._counted(sums))

    def of_rows(self, form: Form, target: Target) -> Sequence[FloatArray]:
        """Columns of φ of the rows that errors are judged by; none where cells are exact, which have their lengths."""
        if form.within is not None:
            whole, terms = form.within
            return self.of_rows(whole, target)[terms]
        return self._once(lambda: _row_columns_of(self.group, target, form), form, target, "rows")

    def _counted(self, sums: Sums) -> Sums | None:
        return None if self.group.cell_spread is None else sums

    def _once(self, make: Callable[[], Made], form: Form, target: Target, of: object) -> Made:
        key = (of, form.label, target.unit if isinstance(form, Batched) else None)
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made


def _lengths_of(group: Group, sums: Sums) -> tuple[FloatArray, ...]:
    """τin, τout, B and sharing at the points, shape (k, m), of the last two (m,)."""
    τin, τout = group.cell_input_tokens, group.cell_output_tokens
    others = group.cell_batch_size, group.cell_sharing
    if group.cell_spread is None:
        return τin[np.newaxis], τout[np.newaxis], *others
    assert sums.lengths is not None
    means = np.divide(sums.lengths, sums.w, out=np.array([τin, τout]), where=sums.w > 0)
    points = np.repeat(means[:, np.newaxis], 4, axis=1)
    a, b = np.sqrt(2) * group.cell_spread
    points[0, 0] -= a
    points[0, 1] += a
    points[1, 2] -= b
    points[1, 3] += b
    return *points, *others


def _row_columns_of(group: Group, target: Target, form: Form) -> Sequence[FloatArray]:
    if group.row_lengths is None:
        return ()
    if isinstance(form, Batched):
        columns: Sequence[FloatArray] = tuple(_design(target, form, group.row_lengths).T)
    else:
        columns = form.columns(*group.row_lengths[:2])
    return [np.ascontiguousarray(column, dtype=np.float64) for column in columns]


def _design(target: Target, form: Form, lengths: Sequence[FloatArray] | FloatArray) -> FloatArray:
    τin, τout, B, sharing = lengths
    if not isinstance(form, Batched):
        return form.design(τin, τout)
    requests = sharing if target.unit == "s" else B
    return np.asarray(form.design(τin / B, τout / B, sharing) * requests[..., np.newaxis])
