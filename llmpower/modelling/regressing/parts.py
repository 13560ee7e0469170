"""The regressions that a form is, one or one for each phase, and the sums that an update of it needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError
from llmpower.modelling.forms import Phases
from llmpower.modelling.linear import FloatArray, Form
from llmpower.modelling.regressing.designs import Designs, mean_of
from llmpower.modelling.rows.groups import Group
from llmpower.modelling.rows.moments import FitMoments, Moments, Sums
from llmpower.modelling.rows.targets import Phase, Target


@dataclass(frozen=True, slots=True)
class Part:
    """What the coefficients ``terms`` are solved from: the design of cells at their points, and the sums of each."""

    terms: slice
    points: FloatArray
    sums: Sums

    @property
    def design(self) -> FloatArray:
        """φ of the cells."""
        return mean_of(self.points)


def parts_of(designs: Designs, target: Target, form: Form, sums: Sums) -> Iterator[Part]:
    """The regressions that a form is: one, or one for each phase."""
    if type(form) is Phases:
        for terms, phase, told in told_cells(designs.group, target, designs.of_cells(form, target, target.relative)):
            yield Part(terms, designs.points(form, target, phase.sums)[:, told, terms], phase.sums.of(told))
    else:
        counted = sums if form.non_negative else target.raw
        yield Part(slice(None), designs.points(form, target, counted), counted)


def told_cells(group: Group, target: Target, design: FloatArray) -> Iterator[tuple[slice, Phase, NDArray[np.bool_]]]:
    """Each phase: its terms, its part of the target, and which cells have rows that have it.

    Where nothing is decoded there is no decode to fit; an empty cell is a phase that was not measured.

    Raises:
        FitError: no row tells both.
    """
    if target.phases is None:
        raise FitError(
            target.phase_columns, "missing", f"{group.model_name}: form phases needs both phases; take form cached"
        )
    for terms, phase in zip((slice(0, Phases.N_PREFILL), slice(Phases.N_PREFILL, None)), target.phases, strict=True):
        yield terms, phase, (design[:, terms] > 0).any(axis=1) & (phase.sums.n > 0)


def moments_of(designs: Designs, target: Target, form: Form, sums: Sums, β: FloatArray) -> FitMoments:
    """The sums that an update of a fit needs, of rows that count as in ``sums``; nothing is solved.

    Within bands rows are taken to follow ``β``.
    """
    raw = _moments(designs.points(form, target, target.raw), target.raw, β)
    if not form.non_negative:
        return FitMoments(raw, raw, raw)
    relative = _moments(designs.points(form, target, sums), sums, β)
    if type(form) is not Phases:
        return FitMoments(relative, relative, raw)
    n_terms = len(form.terms)
    gram, moment = np.zeros((n_terms, n_terms)), np.zeros(n_terms)
    for part in parts_of(designs, target, form, sums):
        of_part = _moments(part.points, part.sums, β[part.terms])
        gram[part.terms, part.terms], moment[part.terms] = of_part.gram, of_part.moment
    return FitMoments(replace(relative, gram=gram, moment=moment), relative, raw)


def _moments(points: FloatArray, sums: Sums, β: FloatArray) -> Moments:
    moments = Moments.of(mean_of(points), sums)
    return moments if len(points) == 1 else moments.spread(points, sums.w, β)
