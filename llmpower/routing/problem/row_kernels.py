"""Rows to cells and back, in C: the functions of ``csrc/routing/cells.c``, which says what they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmpower.routing.pointers import CELLS_END, Choices, IntArray, Numbers, ffi, int64, lib, pointer, uint16, uint32
from llmpower.routing.stretches import in_stretches

ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, slots=True, eq=False)
class Collapsed:
    """Cells in ascending order, each (n_cells,), and the cell of each row (n_rows,)."""

    input_tokens: IntArray
    output_tokens: IntArray
    cell_class: IntArray
    count: IntArray
    row_cells: Numbers


def collapse(
    input_tokens: IntArray,
    output_tokens: IntArray,
    query_class: IntArray | None,
    row_counts: IntArray | None,
    ends: tuple[int, int, int],
) -> Collapsed:
    """The distinct rows of up to three columns (n_rows,) of numbers ≥ 0 that are below their ``ends``.

    ``query_class`` and ``row_counts`` may be left out: one class, one query per row.
    """
    n_rows = len(input_tokens)
    assert n_rows < CELLS_END
    n_in, n_out, n_classes = ends
    n_words = -(-n_in * n_out * n_classes // 64)
    bits, ranks = np.zeros(n_words, np.uint64), np.empty(n_words, np.uint32)
    words = pointer("uint64_t[]", bits, (n_words,)), uint32(ranks, (n_words,))

    def of(rows: slice) -> list[Any]:
        columns = (input_tokens, output_tokens, query_class)
        return [ffi.NULL if column is None else int64(column[rows], (rows.stop - rows.start,)) for column in columns]

    def mark(rows: slice) -> None:
        lib.llmpower_mark(*of(rows), rows.stop - rows.start, n_out, n_classes, words[0])

    in_stretches(mark, n_rows, ROWS_AT_ONCE)
    n_cells = int(lib.llmpower_rank(words[0], n_words, words[1]))
    cells_in, cells_out, count = (np.empty(n_cells, np.int64) for _ in range(3))
    # Where there is one class, one 0 says it of all cells.
    cell_class = np.broadcast_to(np.int64(0), n_cells) if query_class is None else np.empty(n_cells, np.int64)
    lib.llmpower_cells(
        words[0],
        n_words,
        n_out,
        n_classes,
        int64(cells_in, (n_cells,)),
        int64(cells_out, (n_cells,)),
        ffi.NULL if query_class is None else int64(cell_class, (n_cells,)),
        int64(count, (n_cells,)),
    )
    row_cells = np.empty(n_rows, np.uint32)

    def number(rows: slice) -> None:
        n = rows.stop - rows.start
        counts = ffi.NULL if row_counts is None else int64(row_counts[rows], (n,))
        places = int64(count, (n_cells,)), uint32(row_cells[rows], (n,))
        lib.llmpower_number(*of(rows), counts, n, n_out, n_classes, *words, *places)

    in_stretches(number, n_rows, ROWS_AT_ONCE)
    return Collapsed(cells_in, cells_out, cell_class, count, row_cells)


def turns(row_cells: Numbers, n_cells: int, n_models: int) -> Choices:
    """Round robin's assignment (n_cells, n_models): row i, which is one query, goes to model i mod n_models.

    No cell may have as many as 2¹⁶ queries: rows come to cells in any order, and a quarter of the memory is in a cache
    four times as often.
    """
    assigned = np.zeros((n_cells, n_models), np.uint16)
    rows = uint32(row_cells, (len(row_cells),))
    lib.llmpower_turns(rows, len(row_cells), n_models, uint16(assigned, assigned.shape))
    return assigned


def read_back(of_cell: Choices, row_cells: Numbers) -> Choices:
    """``of_cell[row_cells]`` (n_rows,)."""
    of_row = np.empty(len(row_cells), np.uint16)

    def fill(rows: slice) -> None:
        n = rows.stop - rows.start
        pointers = uint16(of_cell, of_cell.shape), uint32(row_cells[rows], (n,))
        lib.llmpower_read_back(*pointers, n, uint16(of_row[rows], (n,)))

    in_stretches(fill, len(row_cells), ROWS_AT_ONCE)
    return of_row
