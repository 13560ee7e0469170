"""A workload as the solver sees it: distinct (input, output) cells with how many queries each holds.

Two queries of the same lengths cost the same on every model, so nothing is lost by solving for cells and everything
is gained: the problem grows with the number of distinct lengths, not of queries. Cells are sorted, which makes the
plan independent of the order of the rows; each row remembers its cell, which is how a plan is read back in that order.
A class of queries (what they are for: chat, code, …) on which models are not equally accurate makes cells of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.exceptions import InputError
from llmpower.tables import read_table

if TYPE_CHECKING:
    import pandas as pd

IntArray = NDArray[np.int64]

REQUIRED = ("input_tokens", "output_tokens")
# Two token counts must fit into one 64-bit key, and no context is anywhere near this long.
TOKENS_END = 2**31
# Possible cells, in all and for each row, up to which a table of them is made: 5 bytes an entry.
TABLE_END = 2**27
TABLE_ENTRIES_PER_ROW = 32
KEY_END = 2**63
# Sums of queries and of tokens stay exact in float64 up to here.
QUERIES_END = 2**53


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Cells in ascending order of (input_tokens, output_tokens, class), and the rows that they came from.

    ``input_tokens``, ``output_tokens`` and ``count`` have shape (n_cells,); ``row_cells`` (the cell of a row) and
    ``row_counts`` (how many queries the row stands for) have shape (n_rows,), in input order. ``cell_class`` (n_cells,)
    counts in ``classes``, the names of the queries' classes in order; the name of no class is the empty one.
    """

    input_tokens: IntArray
    output_tokens: IntArray
    count: IntArray
    row_cells: IntArray
    row_counts: IntArray
    cell_class: IntArray
    classes: tuple[str, ...] = ("",)

    @classmethod
    def from_tokens(
        cls,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        count: ArrayLike | None = None,
        query_class: ArrayLike | None = None,
    ) -> Workload:
        """Collapse rows into cells; arguments have shape (n_rows,), ``count`` is 1 each by default.

        ``query_class`` holds a name a row, empty (or ``None``, NaN) where a query has none.

        Raises:
            InputError: no rows, rows of different lengths, a token count that is empty, negative or no whole number,
                a row without any token, or a count below 1. The error names column, value and row (from 1).
        """
        columns = {
            "input_tokens": np.asarray(input_tokens),
            "output_tokens": np.asarray(output_tokens),
            "count": np.ones(np.shape(input_tokens), np.int64) if count is None else np.asarray(count),
        }
        names, class_of_row = _classes(query_class, columns["input_tokens"].shape)
        if len({values.shape for values in (*columns.values(), class_of_row)}) > 1 or columns["count"].ndim != 1:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in columns.items())
            raise InputError("workload", shapes, "give one value a query in each column")
        if not columns["count"].size:
            raise InputError("workload", "0 rows", "there is nothing to route; give a file with a row a query")
        tokens_in = _whole("input_tokens", columns["input_tokens"], 0, TOKENS_END)
        tokens_out = _whole("output_tokens", columns["output_tokens"], 0, TOKENS_END)
        row_counts = _whole("count", columns["count"], 1, QUERIES_END)
        without_tokens = (tokens_in | tokens_out) == 0
        if without_tokens.any():
            advice = f"row {np.argmax(without_tokens) + 1} has no input tokens either, so it is no query; leave it out"
            raise InputError("output_tokens", 0, advice)
        if (total := float(row_counts.sum(dtype=np.float64))) >= QUERIES_END:
            raise InputError("count", f"{total:.3g} in all", "that many cannot be counted exactly; scale them down")

        (cells_in, cells_out, cell_class), row_cells = _collapse((tokens_in, tokens_out, class_of_row))
        # Up to QUERIES_END sums of whole numbers are exact in float64.
        count_of_cell = np.bincount(row_cells, None if count is None else row_counts, len(cells_in))
        return cls(
            input_tokens=_frozen(cells_in),
            output_tokens=_frozen(cells_out),
            count=_frozen(count_of_cell.astype(np.int64)),
            row_cells=_frozen(row_cells),
            row_counts=_frozen(row_counts),
            cell_class=_frozen(cell_class),
            classes=names,
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> Workload:
        """Collapse a table with ``input_tokens``, ``output_tokens`` and, optionally, ``count`` and ``query_class``.

        Errors as above.
        """
        tokens = (frame["input_tokens"].to_numpy(), frame["output_tokens"].to_numpy())
        further = (frame[name].to_numpy() if name in frame.columns else None for name in ("count", "query_class"))
        return cls.from_tokens(*tokens, *further)

    @property
    def n_cells(self) -> int:
        """Number of distinct (input_tokens, output_tokens, class)."""
        return len(self.count)

    @property
    def n_queries(self) -> int:
        """Number of queries over all cells."""
        return int(self.count.sum())

    @property
    def tokens(self) -> IntArray:
        """Input and output tokens of one query of each cell, shape (n_cells,)."""
        return self.input_tokens + self.output_tokens


def read_workload(path: Path, columns: Mapping[str, str] | None = None) -> Workload:
    """Read a CSV, Parquet or JSON-lines file; ``columns`` maps our names to its headers.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a row that is no query.
    """
    return Workload.from_frame(read_table(path, columns=columns, required=REQUIRED, what="--workload"))


def _frozen(array: IntArray) -> IntArray:
    """A view that nobody writes through; the array itself may be the caller's own."""
    view = array.view()
    view.flags.writeable = False
    return view


def _collapse(columns: tuple[IntArray, IntArray, IntArray]) -> tuple[tuple[IntArray, IntArray, IntArray], IntArray]:
    """The distinct rows of three columns of numbers ≥ 0, in ascending order, and which of them each row is.

    Where a table of all that could occur fits into memory, a row is looked up there; sorting takes several times as
    long.
    """
    tokens_in, tokens_out, class_of_row = columns
    n_out, n_classes = int(tokens_out.max()) + 1, int(class_of_row.max()) + 1
    size = (int(tokens_in.max()) + 1) * n_out * n_classes
    if size >= KEY_END:
        # Ranks of the token counts serve as well, and there are no more of them than rows.
        values_in, tokens_in = np.unique(tokens_in, return_inverse=True)
        values_out, tokens_out = np.unique(tokens_out, return_inverse=True)
        (ranks_in, ranks_out, cell_class), row_cells = _collapse((tokens_in, tokens_out, class_of_row))
        return (values_in[ranks_in], values_out[ranks_out], cell_class), row_cells
    key = tokens_in * n_out
    key += tokens_out
    if n_classes > 1:
        key *= n_classes
        key += class_of_row
    if size <= min(TABLE_END, TABLE_ENTRIES_PER_ROW * len(key)):
        present = np.zeros(size, bool)
        present[key] = True
        found = np.flatnonzero(present)
        place = np.empty(size, np.int32)
        place[found] = np.arange(len(found), dtype=np.int32)
        row_cells = place[key].astype(np.int64)
    else:
        found, row_cells = np.unique(key, return_inverse=True)
    cells, cell_class = np.divmod(found, n_classes)
    return (cells // n_out, cells % n_out, cell_class), row_cells


def _classes(query_class: ArrayLike | None, shape: tuple[int, ...]) -> tuple[tuple[str, ...], IntArray]:
    """Names of the classes in order, and each row's number among them."""
    if query_class is None:
        return ("",), np.zeros(shape, np.int64)
    values = np.asarray(query_class, dtype=object)
    names, numbers = np.unique(
        np.array(["" if _is_empty(value) else str(value) for value in values.ravel()]), return_inverse=True
    )
    return tuple(names.tolist()), numbers.reshape(values.shape).astype(np.int64)


def _whole(column: str, values: NDArray[Any], low: int, end: int) -> IntArray:
    """``values`` as integers in low … end − 1.

    Raises:
        InputError: for the first value that is not one.
    """
    if values.dtype.kind in "iu" and values.size and values.min() >= low and values.max() < end:
        return values.astype(np.int64, copy=False)
    numbers = np.array([_number(value) for value in values]) if values.dtype.kind in "OUSM" else values.astype(float)
    wrong = ~((numbers >= low) & (numbers < end) & (numbers == np.floor(numbers)))
    if wrong.any():
        row = int(np.argmax(wrong))
        advice = f"row {row + 1} needs a whole number from {low} to {end - 1} here; correct the row or leave it out"
        raise InputError(column, "empty" if _is_empty(values[row]) else values[row], advice)
    return numbers.astype(np.int64)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # whatever is no number raises, which is the question
    except (TypeError, ValueError):
        return np.nan


def _is_empty(value: object) -> bool:
    return value is None or str(value) in ("", "nan", "<NA>", "NaT")
