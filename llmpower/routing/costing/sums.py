"""What assignments give each choice, added up over the cells in one pass for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.predictions import RUNTIME, Predictor
from llmpower.routing.pointers import Choices
from llmpower.routing.problem.choices import Choice
from llmpower.routing.problem.workload import IntArray, Workload
from llmpower.routing.solving import kernels
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.stretches import in_stretches

CELLS_AT_ONCE = 2**13

Assigned = Assignment | IntArray | Choices
"""Queries of each cell on each choice (n_cells, n_choices), or the one choice of all queries of each (n_cells,)."""


class Sums:
    """Queries and tokens by class and choice (n_classes, n_choices); J, s and late queries a choice (n_choices,).

    ``rate_energy_j`` (n_rates, n_choices) are the joules again, by rate.
    """

    def __init__(self, n_classes: int, n_rates: int, n_choices: int) -> None:
        self.queries, self.tokens = np.zeros((2, n_classes, n_choices), np.int64)
        self.energy_j, self.runtime_s = np.zeros((2, n_choices))
        self.late = np.zeros(n_choices, np.int64)
        self.rate_energy_j = np.zeros((n_rates, n_choices))

    def add(self, other: Sums) -> None:
        """Take up the sums of other cells."""
        self.queries += other.queries
        self.tokens += other.tokens
        self.energy_j += other.energy_j
        self.runtime_s += other.runtime_s
        self.late += other.late
        self.rate_energy_j += other.rate_energy_j


def add_up(
    workload: Workload,
    choices: tuple[Choice, ...],
    energy_j: FloatArray,
    late: NDArray[np.bool_] | None,
    assignments: Sequence[Assigned | None],
) -> list[Sums]:
    """Of each assignment, ``None`` standing for everything on each choice.

    ``energy_j`` and ``late`` have shape (n_cells, n_choices).
    """
    n_choices, n_rates, n_classes = len(choices), workload.rates.number, len(workload.classes)
    predictor = Predictor(choices, workload, RUNTIME)

    def of(cells: slice) -> list[Sums]:
        count, classes, joules = workload.count[cells], workload.cell_class[cells], energy_j[cells]
        tokens = workload.input_tokens[cells] + workload.output_tokens[cells]
        (seconds,) = predictor.of(cells)
        found = []
        for assigned in assignments:
            sums = Sums(n_classes, n_rates, n_choices)
            found.append(sums)
            if assigned is None:
                queries = count.astype(np.float64)
                sums.energy_j[:], sums.runtime_s[:] = queries @ joules, queries @ seconds
                sums.queries += _by_class(classes, count, n_classes)
                sums.tokens += _by_class(classes, count * tokens, n_classes)
                if late is not None:
                    sums.late += count @ late[cells]
                if n_rates > 1:
                    sums.rate_energy_j += _by_rate(workload, cells, count, joules)
                continue
            into = sums.queries, sums.tokens, sums.energy_j, sums.runtime_s
            quick = _quick(assigned, cells, count) if late is None and n_rates <= 1 else None
            if quick is not None:
                kernels.sum_up(quick, tokens, classes, joules, seconds, into)
                if isinstance(assigned, Assignment):
                    _add_divided(assigned, cells, tokens, classes, joules, seconds, into)
                continue
            x = _queries(assigned, cells, count, n_choices)
            _add_matrix(x, tokens, classes, joules, seconds, into)
            if late is not None:
                sums.late += np.einsum("ck,ck->k", x, late[cells])
            if n_rates > 1:
                sums.rate_energy_j += _by_rate(workload, cells, np.ones_like(count), x * joules)
        return found

    totals = [Sums(n_classes, n_rates, n_choices) for _ in assignments]
    for found in in_stretches(of, workload.n_cells, CELLS_AT_ONCE):
        for total, sums in zip(totals, found, strict=True):
            total.add(sums)
    if n_rates == 1:
        for total in totals:
            total.rate_energy_j[0] = total.energy_j
    return totals


def _quick(assigned: Assigned, cells: slice, count: IntArray) -> tuple[Choices, IntArray | None] | None:
    """What the pass that needs no matrix of 64 bits takes, where that is known."""
    if isinstance(assigned, Assignment):
        return assigned.choice[cells], assigned.whole[cells]
    if assigned.dtype != np.uint16:
        return None
    return cast(Choices, assigned[cells]), count if assigned.ndim == 1 else None


def _add_divided(
    assigned: Assignment,
    cells: slice,
    tokens: IntArray,
    classes: IntArray,
    joules: FloatArray,
    seconds: FloatArray,
    into: kernels.Into,
) -> None:
    """What of these cells is divided."""
    here = assigned.divided_in(cells)
    if len(x := assigned.queries[here]):
        at = assigned.divided[here] - cells.start
        _add_matrix(x, tokens[at], np.ascontiguousarray(classes[at]), joules[at], seconds[at], into)


def _add_matrix(
    x: IntArray, tokens: IntArray, classes: IntArray, joules: FloatArray, seconds: FloatArray, into: kernels.Into
) -> None:
    queries, of_tokens, energy_j, runtime_s = into
    kernels.count(x, tokens, classes, queries, of_tokens)
    kernels.add(x, joules, energy_j)
    kernels.add(x, seconds, runtime_s)


def _queries(assigned: Assigned, cells: slice, count: IntArray, n_choices: int) -> IntArray:
    """Of these cells, which have ``count`` queries, on each choice."""
    if isinstance(assigned, Assignment):
        return assigned.rows(cells)
    if assigned.ndim == 1:
        return kernels.assign(assigned[cells].astype(np.uint16, copy=False), count, n_choices)
    return assigned[cells].astype(np.int64, copy=False)


def _by_class(cell_class: IntArray, values: IntArray, n_classes: int) -> IntArray:
    """Sums of whole numbers by class, shape (n_classes, 1)."""
    if n_classes == 1:
        return np.array([[values.sum()]])
    return np.array([[values[cell_class == number].sum()] for number in range(n_classes)])


def _by_rate(workload: Workload, cells: slice, count: IntArray, energy_j: FloatArray) -> FloatArray:
    """Σ count·joules of these cells by rate (n_rates, n_choices)."""
    assert workload.cell_rate is not None
    return kernels.tally(workload.cell_rate[cells], workload.rates.number, count, energy_j)
