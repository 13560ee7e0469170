"""Routing's door to C: cffi's module, and nothing but calls that turn NumPy arrays into pointers and back.

The functions of ``csrc/routing/routing.h``, which says what they do. Their arguments are checked here, because C
cannot: every array is contiguous, of the type that C reads, and as long as it says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing import _exchange  # compiled from csrc/routing/routing.h
from llmpower.routing.stretches import in_stretches

# The package's __getattr__ makes every name of it an object for mypy, this module's too.
extension: Any = _exchange
ffi: Any = extension.ffi
lib: Any = extension.lib

IntArray = NDArray[np.int64]
Choices = NDArray[np.uint16]
Numbers = NDArray[np.uint32]
Into = tuple[IntArray, IntArray, FloatArray, FloatArray]
"""Queries and tokens of each class and model (n_classes, n_models); J and s of each model (n_models,)."""
MODELS_END = 2**16
CELLS_END = 2**32
CELLS_AT_ONCE = 2**15
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
    size: int,
) -> Collapsed:
    """The distinct rows of up to three columns (n_rows,) of numbers ≥ 0, of which ``size`` could occur.

    ``query_class`` and ``row_counts`` may be left out: one class, one query a row.
    """
    n_rows = len(input_tokens)
    assert n_rows < CELLS_END
    n_out = int(output_tokens.max()) + 1
    n_classes = 1 if query_class is None else int(query_class.max()) + 1
    n_words = -(-size // 64)
    bits, ranks = np.zeros(n_words, np.uint64), np.empty(n_words, np.uint32)
    words = _pointer("uint64_t[]", bits, (n_words,)), _uint32(ranks, (n_words,))

    def of(rows: slice) -> list[Any]:
        columns = (input_tokens, output_tokens, query_class)
        return [ffi.NULL if column is None else _int64(column[rows], (rows.stop - rows.start,)) for column in columns]

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
        _int64(cells_in, (n_cells,)),
        _int64(cells_out, (n_cells,)),
        ffi.NULL if query_class is None else _int64(cell_class, (n_cells,)),
        _int64(count, (n_cells,)),
    )
    row_cells = np.empty(n_rows, np.uint32)

    def number(rows: slice) -> None:
        n = rows.stop - rows.start
        counts = ffi.NULL if row_counts is None else _int64(row_counts[rows], (n,))
        places = _int64(count, (n_cells,)), _uint32(row_cells[rows], (n,))
        lib.llmpower_number(*of(rows), counts, n, n_out, n_classes, *words, *places)

    in_stretches(number, n_rows, ROWS_AT_ONCE)
    return Collapsed(cells_in, cells_out, cell_class, count, row_cells)


def turns(row_cells: Numbers, n_cells: int, n_models: int) -> Choices:
    """Round robin's assignment (n_cells, n_models): row i, which is one query, goes to model i mod n_models.

    No cell may have as many as 2¹⁶ queries: rows come to cells in any order, and a quarter of the memory is in a cache
    four times as often.
    """
    assigned = np.zeros((n_cells, n_models), np.uint16)
    rows = _uint32(row_cells, (len(row_cells),))
    lib.llmpower_turns(rows, len(row_cells), n_models, _uint16(assigned, assigned.shape))
    return assigned


def models_of_cells(assigned: IntArray) -> tuple[Choices, Choices]:
    """Of each cell the last model that has queries of it, and how many models have some; each (n_cells,)."""
    n_cells, n_models = _shape(assigned)
    model, models = np.empty(n_cells, np.uint16), np.empty(n_cells, np.uint16)
    pointers = (_uint16(array, (n_cells,)) for array in (model, models))
    lib.llmpower_models(_int64(assigned, assigned.shape), n_cells, n_models, *pointers)
    return model, models


def read_back(of_cell: Choices, row_cells: Numbers) -> Choices:
    """``of_cell[row_cells]`` (n_rows,)."""
    of_row = np.empty(len(row_cells), np.uint16)
    lib.llmpower_read_back(
        _uint16(of_cell, (len(of_cell),)),
        _uint32(row_cells, of_row.shape),
        len(row_cells),
        _uint16(of_row, of_row.shape),
    )
    return of_row


def assign(choice: Choices, count: IntArray, n_models: int) -> IntArray:
    """The assignment (n_cells, n_models) of every cell's ``count`` to its ``choice``."""
    assigned = np.empty((len(choice), n_models), np.int64)

    def fill(cells: slice) -> None:
        of_cells = choice[cells]
        lib.llmpower_assign(
            _uint16(of_cells, of_cells.shape),
            _int64(count[cells], of_cells.shape),
            *_shape(assigned[cells]),
            _int64(assigned[cells], (len(of_cells), n_models)),
        )

    in_stretches(fill, len(choice), CELLS_AT_ONCE)
    return assigned


def add(assigned: IntArray, values: FloatArray, sums: FloatArray) -> None:
    """Add Σ_c x_cK·v_cK of each model to ``sums`` (n_models,), both of shape (n_cells, n_models)."""
    n_cells, n_models = _shape(values)
    lib.llmpower_add(
        _int64(assigned, values.shape), _double(values, values.shape), n_cells, n_models, _double(sums, (n_models,))
    )


def sum_up(
    assigned: tuple[Choices, IntArray | None],
    tokens: IntArray,
    cell_class: IntArray,
    joules: FloatArray,
    seconds: FloatArray,
    into: Into,
) -> None:
    """As :func:`count` and, of ``joules`` and ``seconds`` (n_cells, n_models), :func:`add`, in one pass.

    ``assigned`` is the choice of each cell and its queries, all of which go there, each (n_cells,); or queries of each
    cell on each model (n_cells, n_models), and ``None``. ``into`` is added to.
    """
    given, whole = assigned
    queries, of_tokens, of_joules, of_seconds = into
    n_cells, n_models = _shape(joules)
    of_classes = (len(queries), n_models)
    further = (
        _int64(tokens, (n_cells,)),
        ffi.NULL if len(queries) == 1 else _int64(cell_class, (n_cells,)),
        _double(joules, joules.shape),
        _double(seconds, joules.shape),
        n_cells,
        n_models,
        _int64(queries, of_classes),
        _int64(of_tokens, of_classes),
        _double(of_joules, (n_models,)),
        _double(of_seconds, (n_models,)),
    )
    if whole is None:
        lib.llmpower_sum_turns(_uint16(given, joules.shape), *further)
    else:
        assert int(given.max()) < n_models
        lib.llmpower_sum_choices(_uint16(given, (n_cells,)), _int64(whole, (n_cells,)), *further)


def count(assigned: IntArray, tokens: IntArray, cell_class: IntArray, queries: IntArray, of_tokens: IntArray) -> None:
    """Add Σ_c x_cK and Σ_c x_cK·tokens_c of each class and model to ``queries`` and ``of_tokens``.

    Both have shape (n_classes, n_models).
    """
    n_cells, n_models = _shape(assigned)
    shape = (len(queries), n_models)
    lib.llmpower_count(
        _int64(assigned, assigned.shape),
        _int64(tokens, (n_cells,)),
        ffi.NULL if len(queries) == 1 else _int64(cell_class, (n_cells,)),
        n_cells,
        n_models,
        _int64(queries, shape),
        _int64(of_tokens, shape),
    )


def tally(keys: IntArray, n_keys: int, count: IntArray, values: FloatArray) -> FloatArray:
    """Σ count_c·v_cK over the cells of each key 0 … n_keys − 1, shape (n_keys, n_models)."""
    n_cells, n_models = _shape(values)
    found = np.zeros((n_keys, n_models))
    lib.llmpower_tally(
        _int64(keys, (n_cells,)),
        _int64(count, (n_cells,)),
        _double(values, values.shape),
        n_cells,
        n_models,
        _double(found, found.shape),
    )
    return found


def price(costs: FloatArray, count: IntArray, prices: FloatArray) -> tuple[Choices, Choices, FloatArray, IntArray]:
    """Cheapest and second best model and their margin, each (n_cells,), at these prices, and the loads (n_models,)."""
    n_cells, n_models = _shape(costs)
    choice, runner_up = np.empty(n_cells, np.uint16), np.empty(n_cells, np.uint16)
    margin = np.empty(n_cells)

    def fill(cells: slice) -> IntArray:
        n = cells.stop - cells.start
        loads = np.empty(n_models, np.int64)
        lib.llmpower_price(
            _double(costs[cells], (n, n_models)),
            _int64(count[cells], (n,)),
            n,
            n_models,
            _double(prices, (n_models,)),
            _uint16(choice[cells], (n,)),
            _uint16(runner_up[cells], (n,)),
            _double(margin[cells], (n,)),
            _int64(loads, (n_models,)),
        )
        return loads

    loads = sum(in_stretches(fill, n_cells, CELLS_AT_ONCE), np.zeros(n_models, np.int64))
    return choice, runner_up, margin, loads


def regret(costs: FloatArray, assigned: IntArray, prices: FloatArray) -> tuple[float, float]:
    """Σ x·(c + p − min (c + p)) and Σ x·|c| over what is assigned (n_cells, n_models)."""
    n_cells, n_models = _shape(costs)

    def add_up(cells: slice) -> tuple[float, float]:
        shape = cells.stop - cells.start, n_models
        above, paid = ffi.new("double *"), ffi.new("double *")
        lib.llmpower_regret(
            _double(costs[cells], shape),
            _int64(assigned[cells], shape),
            *shape,
            _double(prices, (n_models,)),
            above,
            paid,
        )
        return float(above[0]), float(paid[0])

    above, paid = zip((0.0, 0.0), *in_stretches(add_up, n_cells, CELLS_AT_ONCE), strict=True)
    return sum(above), sum(paid)


def regret_of_choices(costs: FloatArray, choice: Choices, whole: IntArray, prices: FloatArray) -> tuple[float, float]:
    """As :func:`regret`, of all ``whole`` queries of each cell (n_cells,) on its ``choice``."""
    n_cells, n_models = _shape(costs)

    def add_up(cells: slice) -> tuple[float, float]:
        n = cells.stop - cells.start
        above, paid = ffi.new("double *"), ffi.new("double *")
        assert int(choice[cells].max()) < n_models
        lib.llmpower_regret_of_choices(
            _double(costs[cells], (n, n_models)),
            _uint16(choice[cells], (n,)),
            _int64(whole[cells], (n,)),
            n,
            n_models,
            _double(prices, (n_models,)),
            above,
            paid,
        )
        return float(above[0]), float(paid[0])

    above, paid = zip((0.0, 0.0), *in_stretches(add_up, n_cells, CELLS_AT_ONCE), strict=True)
    return sum(above), sum(paid)


def exchange(costs: FloatArray, low: IntArray, high: IntArray, assigned: IntArray, prices: FloatArray) -> bool:
    """Bring the loads of ``assigned`` within ``low`` and ``high``; both it and ``prices`` are overwritten.

    Whether that was possible. ``assigned`` must be optimal for its own loads at ``prices``.

    Raises:
        MemoryError: there is not enough of it.
    """
    n_cells, n_models = _shape(costs)
    status = lib.llmpower_exchange(
        _double(costs, (n_cells, n_models)),
        n_cells,
        n_models,
        _int64(low, (n_models,)),
        _int64(high, (n_models,)),
        _int64(assigned, (n_cells, n_models)),
        _double(prices, (n_models,)),
    )
    if status == lib.LLMPOWER_EXCHANGE_NO_MEMORY:
        raise MemoryError(f"exchanging {n_cells} cells among {n_models} models")
    return bool(status == lib.LLMPOWER_EXCHANGE_DONE)


def _shape(matrix: FloatArray | IntArray) -> tuple[int, int]:
    n_cells, n_models = matrix.shape
    assert 0 < n_models < MODELS_END
    assert n_cells < CELLS_END
    return n_cells, n_models


def _double(array: FloatArray, shape: tuple[int, ...]) -> Any:
    assert array.dtype == np.float64
    return _pointer("double[]", array, shape)


def _int64(array: IntArray, shape: tuple[int, ...]) -> Any:
    assert array.dtype == np.int64
    return _pointer("int64_t[]", array, shape)


def _uint32(array: Numbers, shape: tuple[int, ...]) -> Any:
    assert array.dtype == np.uint32
    return _pointer("uint32_t[]", array, shape)


def _uint16(array: NDArray[np.uint16], shape: tuple[int, ...]) -> Any:
    assert array.dtype == np.uint16
    return _pointer("uint16_t[]", array, shape)


def _pointer(c_type: str, array: NDArray[Any], shape: tuple[int, ...]) -> Any:
    assert array.shape == shape
    assert array.flags.c_contiguous
    return ffi.from_buffer(c_type, array)
