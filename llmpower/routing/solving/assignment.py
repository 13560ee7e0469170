"""Which queries go where, as solvers leave it: nearly every cell is whole on one choice, and a few are divided.

Written out, an assignment is a number of queries for each cell and choice, nearly all of them 0: with millions of cells
more memory than anything else needs, and memory that is used for the first time takes longer than a solution. So the
choice of each cell is kept, and queries of the cells that are divided; who wants the matrix gets it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing.pointers import Choices, IntArray
from llmpower.routing.solving import kernels


@dataclass(frozen=True, eq=False)
class Assignment:
    """``choice`` (n_cells,) has all ``whole`` queries (n_cells,) of its cell, 0 where that is ``divided``.

    ``divided`` (n_divided,) are cells in ascending order, ``queries`` (n_divided, n_choices) those of each choice;
    ``choice`` is then the last that has some. ``loads`` (n_choices,) are all queries of each.
    """

    choice: Choices
    whole: IntArray
    divided: IntArray
    queries: IntArray
    loads: IntArray

    @classmethod
    def of_choices(cls, choice: Choices, count: IntArray, loads: IntArray) -> Assignment:
        """All queries of each cell on its choice."""
        return cls(choice, count, np.zeros(0, np.int64), np.zeros((0, len(loads)), np.int64), loads)

    @classmethod
    def of_matrix(cls, assigned: IntArray) -> Assignment:
        """Of queries (n_cells, n_choices)."""
        assigned = np.ascontiguousarray(assigned, np.int64)
        choice, choices = kernels.models_of_cells(assigned)
        whole = assigned.sum(axis=1)
        divided = np.flatnonzero(choices > 1)
        whole[divided] = 0
        return cls(choice, whole, divided, assigned[divided], assigned.sum(axis=0))

    def moved(self, cells: IntArray, assigned: IntArray) -> Assignment:
        """With these ``cells`` (n,), ascending, reassigned as ``assigned`` (n, n_choices) says; none was divided."""
        assert not len(self.divided)
        changed = Assignment.of_matrix(assigned)
        choice = self.choice.copy()
        choice[cells] = changed.choice
        divided, whole = cells[changed.divided], self.whole
        fixed = self.loads - np.bincount(self.choice[cells], whole[cells], len(self.loads)).astype(np.int64)
        if len(divided):
            whole = whole.copy()
            whole[divided] = 0
        return Assignment(choice, whole, divided, changed.queries, fixed + changed.loads)

    @cached_property
    def matrix(self) -> IntArray:
        """Queries of each cell on each choice (n_cells, n_choices)."""
        return self.rows(slice(0, len(self.choice)))

    def rows(self, cells: slice) -> IntArray:
        """As :attr:`matrix`, of these neighbouring cells."""
        found = kernels.assign(self.choice[cells], self.whole[cells], len(self.loads))
        here = self.divided_in(cells)
        found[self.divided[here] - cells.start] = self.queries[here]
        return found

    def divided_in(self, cells: slice) -> slice:
        """Which of ``divided`` are among these neighbouring cells."""
        return slice(*np.searchsorted(self.divided, (cells.start, cells.stop)).tolist())

    def total(self, values: FloatArray, cells: NDArray[np.bool_]) -> float:
        """Σ x·value over the cells that are marked (n_cells,); ``values`` are of shape (n_cells, n_choices)."""
        at = np.flatnonzero(cells)
        divided = cells[self.divided]
        of_divided = self.queries[divided] * values[self.divided[divided]]
        return float(self.whole[at] @ values[at, self.choice[at]] + of_divided.sum())
