"""What the models say of a workload's cells: φ, joules and seconds of each, and where that cannot be true.

A published form predicts negative joules for short queries and anything at all beyond the lengths it was fitted on,
and an optimiser seeks out exactly those cells. So a prediction at or below zero stops the plan, and queries outside
the fitted ranges are marked.

Models of one form share φ, so it is computed once for all of them, for as many cells at a time as a processor's cache
holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import Fit
from llmpower.modelling.forms import FloatArray, make_form
from llmpower.phrases import plural
from llmpower.routing.problem.choices import Choice
from llmpower.routing.problem.workload import IntArray, Workload
from llmpower.routing.stretches import in_stretches

CELLS_AT_ONCE = 2**13
CELLS_NAMED = 3


class Kind(NamedTuple):
    """What a model predicts of a query."""

    what: str
    unit: str
    of: Callable[[Choice], Fit]


ENERGY = Kind("energy", "J", lambda choice: choice.model.energy)
RUNTIME = Kind("runtime", "s", lambda choice: choice.model.runtime)


class Predictor:
    """Figures of one or more ``kinds`` for stretches of a workload's cells; φ is computed once for fits of one form."""

    def __init__(self, choices: Sequence[Choice], workload: Workload, *kinds: Kind) -> None:
        self._workload, self._shape = workload, (len(kinds), len(choices))
        fits = [kind.of(choice) for kind in kinds for choice in choices]
        # Of each form: a fit, and by kind the columns of its choices and their coefficients.
        self._forms: list[tuple[Fit, list[tuple[int, slice | list[int], FloatArray]]]] = []
        for members in by_form(fits):
            parts = []
            for kind in range(len(kinds)):
                mine = [number for number in members if number // len(choices) == kind]
                columns = [number % len(choices) for number in mine]
                if mine:
                    where = slice(None) if len(columns) == len(choices) else columns
                    parts.append((kind, where, np.column_stack([fits[number].coefficients for number in mine])))
            self._forms.append((fits[members[0]], parts))

    def of(self, cells: slice) -> FloatArray:
        """Figures of one query of each of these cells, shape (n_kinds, n_cells, n_choices)."""
        τin, τout = self._workload.input_tokens[cells], self._workload.output_tokens[cells]
        found = np.empty((self._shape[0], len(τin), self._shape[1]))
        for fit, parts in self._forms:
            φ = design(fit, τin, τout)
            for kind, columns, coefficients in parts:
                found[kind][:, columns] = φ @ coefficients
        return found


def predict(choices: Sequence[Choice], workload: Workload, *, seconds: bool) -> tuple[FloatArray, FloatArray | None]:
    """Joules of one query of each cell on each choice (n_cells, n_choices), and its seconds; all of them positive.

    Unless ``seconds`` are asked for they are looked at and not kept: memory is what takes time with millions of cells.

    Raises:
        InputError: a form predicts nothing positive for some cells; the error names them.
    """
    kinds = (ENERGY, RUNTIME)
    predictor = Predictor(choices, workload, *kinds)
    joules = np.empty((workload.n_cells, len(choices)))
    kept_s = np.empty_like(joules) if seconds else None

    def fill(cells: slice) -> tuple[bool, ...]:
        found = predictor.of(cells)
        joules[cells] = found[0]
        if kept_s is not None:
            kept_s[cells] = found[1]
        return tuple(bool(figures.min() > 0 and figures.max() < np.inf) for figures in found)

    for kind, sound in zip(kinds, zip(*in_stretches(fill, workload.n_cells, CELLS_AT_ONCE), strict=True), strict=True):
        if not all(sound):
            _refuse_nonsense(kind, choices, workload)
    return joules, kept_s


def by_form(fits: Sequence[Fit]) -> list[list[int]]:
    """Which fits share a form, and so the columns of a design."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for number, fit in enumerate(fits):
        groups.setdefault((fit.form, fit.terms), []).append(number)
    return list(groups.values())


def design(fit: Fit, input_tokens: IntArray, output_tokens: IntArray) -> FloatArray:
    """φ of each query, shape (n_queries, n_terms), from token counts of shape (n_queries,)."""
    return make_form(fit.form, intercept="intercept" in fit.terms).design(input_tokens, output_tokens)


def extrapolated(choices: Sequence[Choice], workload: Workload) -> NDArray[np.bool_]:
    """Which cells (n_cells,) lie outside the fitted range of at least one fit, of a request alone."""
    τin, τout = workload.input_tokens, workload.output_tokens
    fits = [fit for choice in choices for fit in (choice.model.energy, choice.model.runtime)]
    # Most campaigns measure the same lengths on every model.
    distinct = {(fit.input_range, fit.output_range, fit.batch_range): fit for fit in fits}.values()

    def outside(cells: slice) -> NDArray[np.bool_]:
        return np.asarray(~np.logical_and.reduce([fit.inside(τin[cells], τout[cells]) for fit in distinct]))

    return np.concatenate(in_stretches(outside, workload.n_cells, CELLS_AT_ONCE))


def lengths(workload: Workload, cells: IntArray) -> str:
    """The first few of these cells, for a message."""
    shown = ", ".join(f"{workload.input_tokens[cell]} + {workload.output_tokens[cell]}" for cell in cells[:CELLS_NAMED])
    return f"{shown} tokens (input + output)"


def _refuse_nonsense(kind: Kind, choices: Sequence[Choice], workload: Workload) -> None:
    """Name the first choice that predicts nothing positive for some cells, and the lowest of those."""
    for choice in choices:
        fit = kind.of(choice)
        tokens = workload.input_tokens, workload.output_tokens
        predicted = design(fit, *tokens) @ fit.coefficients
        wrong = ~((predicted > 0) & np.isfinite(predicted))
        if not wrong.any():
            continue
        queries = 100 * workload.count[wrong].sum() / workload.n_queries
        worst = np.flatnonzero(wrong)
        worst = worst[np.argsort(predicted[worst], kind="stable")]
        advice = (
            f"the form {fit.form} predicts nothing positive for {wrong.sum():,} of {plural(workload.n_cells, 'cell')}"
            f" ({queries:.2g} % of the queries), lowest for {lengths(workload, worst)}; fit again with"
            " another form (llmpower fit --form auto), or leave those queries out"
        )
        raise InputError(f"{kind.what} of {choice.name} [{kind.unit}]", f"{predicted[worst[0]]:.4g}", advice)
