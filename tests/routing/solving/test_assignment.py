"""A compact assignment says what its matrix says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmpower.routing.solving.assignment import Assignment

queries = st.lists(st.tuples(*[st.sampled_from([0, 0, 0, 1, 5])] * 3), min_size=1, max_size=12)


def matrix_of(rows: list[tuple[int, int, int]]) -> NDArray[np.int64]:
    return np.array(rows, np.int64).reshape(-1, 3)


@settings(max_examples=60, deadline=None)
@given(rows=queries, start=st.integers(0, 12), marked=st.lists(st.booleans(), min_size=12, max_size=12))
def test_a_matrix_comes_back_whole_and_in_parts(
    rows: list[tuple[int, int, int]], start: int, marked: list[bool]
) -> None:
    matrix = matrix_of(rows)
    assignment = Assignment.of_matrix(matrix)
    assert assignment.matrix.tolist() == matrix.tolist()
    assert assignment.loads.tolist() == matrix.sum(axis=0).tolist()
    start = min(start, len(matrix) - 1)
    assert assignment.rows(slice(start, len(matrix))).tolist() == matrix[start:].tolist()
    values, cells = np.arange(matrix.size, dtype=np.float64).reshape(matrix.shape), np.array(marked[: len(matrix)])
    assert assignment.total(values, cells) == pytest.approx((matrix[cells] * values[cells]).sum())


@settings(max_examples=60, deadline=None)
@given(rows=queries, every=st.integers(1, 4))
def test_cells_that_move_take_their_queries_along(rows: list[tuple[int, int, int]], every: int) -> None:
    moved = matrix_of(rows)
    count, choice = moved.sum(axis=1), np.arange(len(moved), dtype=np.uint16) % 3
    loads = np.bincount(choice, count, 3).astype(np.int64)
    before = Assignment.of_choices(choice, count, loads)
    cells = np.arange(0, len(moved), every)
    expected = before.matrix.copy()
    expected[cells] = moved[cells]
    after = before.moved(cells, moved[cells])
    assert after.matrix.tolist() == expected.tolist()
    assert after.loads.tolist() == expected.sum(axis=0).tolist()
    assert before.loads.tolist() == before.matrix.sum(axis=0).tolist()
