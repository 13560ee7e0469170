"""A workload as the solver sees it: distinct (input, output) cells with how many queries each holds.

Two queries of the same lengths cost the same on every model, so nothing is lost by solving for cells and everything
is gained: the problem grows with the number of distinct lengths, not of queries. Cells are sorted, which makes the
plan independent of the order of the rows; each row remembers its cell, which is how a plan is read back in that order.
A class of queries (what they are for: chat, code, …) on which models are not equally accurate makes cells of its own,
and so does a rate: what a kWh cost when a query came, where that is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.exceptions import InputError
from llmpower.routing.pointers import IntArray
from llmpower.routing.problem import row_kernels
from llmpower.routing.problem.rates import NO_RATES, Rates, RowRates
from llmpower.routing.problem.row_kernels import Collapsed
from llmpower.routing.problem.tariff import Tariff, check_tariff
from llmpower.routing.problem.timestamps import check_times
from llmpower.routing.stretches import in_stretches
from llmpower.tables import NO_NUMBERS, check_frame, number_of, read_table

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["OPTIONAL", "REQUIRED", "IntArray", "Workload", "read_workload"]

N = TypeVar("N", np.int64, np.uint32)

REQUIRED = ("input_tokens", "output_tokens")
OPTIONAL = ("count", "query_class")
# Two token counts must fit into one 64-bit key, and no context is anywhere near this long.
TOKENS_END = 2**31
# Possible cells, in all and for each row, up to which a bitmap of them is made: 1.5 bits each.
BITMAP_END = 2**32
BITS_PER_ROW = 2**10
KEY_END = 2**63
# Sums of queries stay exact in float64 up to here, and those of their tokens in 64 bits up to there.
QUERIES_END = 2**53
TOKENS_IN_ALL_END = 2**63


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Cells in ascending order of (input_tokens, output_tokens, class, rate), and the rows that they came from.

    ``input_tokens``, ``output_tokens`` and ``count`` have shape (n_cells,); ``row_cells`` (the cell of a row) and
    ``row_counts`` (how many queries the row stands for) have shape (n_rows,), in input order. ``cell_class`` (n_cells,)
    counts in ``classes``, the names of the queries' classes in order; the name of no class is the empty one.
    ``cell_rate`` (n_cells,) counts in ``rates``, if there are any.
    """

    input_tokens: IntArray
    output_tokens: IntArray
    count: IntArray
    row_cells: NDArray[np.uint32]
    row_counts: IntArray
    cell_class: IntArray
    classes: tuple[str, ...] = ("",)
    cell_rate: IntArray | None = None
    rates: Rates = NO_RATES

    @classmethod
    def from_tokens(
        cls,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        count: ArrayLike | None = None,
        query_class: ArrayLike | None = None,
        *,
        row_rates: RowRates | None = None,
    ) -> Workload:
        """Collapse rows into cells; arguments have shape (n_rows,), ``count`` is 1 each by default.

        ``query_class`` holds a name per row, empty (or ``None``, NaN) where a query has none; ``row_rates`` are what
        :meth:`~llmpower.routing.problem.tariff.Tariff.rates` says of the queries' times.

        Raises:
            InputError: no rows, rows of different lengths, a token count that is empty, negative or no whole number,
                a row without any token, or a count below 1. The error names column, value and row (from 1).

        Example:
            >>> workload = Workload.from_tokens([8, 512, 8], [32, 32, 32])
            >>> workload.input_tokens.tolist(), workload.count.tolist()
            ([8, 512], [2, 1])
        """
        columns = {"input_tokens": np.asarray(input_tokens), "output_tokens": np.asarray(output_tokens)}
        if count is not None:
            columns["count"] = np.asarray(count)
        shape = columns["input_tokens"].shape
        names, class_of_row = _classes(query_class)
        rates, rate_of_row = row_rates or (NO_RATES, None)
        further = [numbers for numbers in (class_of_row, rate_of_row) if numbers is not None]
        if len({values.shape for values in (*columns.values(), *further)}) > 1 or len(shape) != 1:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in columns.items())
            raise InputError("workload", shapes, "give one value per query in each column")
        if shape == (0,):
            raise InputError("workload", "0 rows", "there is nothing to route; give a file with one row per query")
        tokens_in = _whole("input_tokens", columns["input_tokens"], 0, TOKENS_END)
        tokens_out = _whole("output_tokens", columns["output_tokens"], 0, TOKENS_END)
        row_counts = None if count is None else _whole("count", columns["count"], 1, QUERIES_END).values
        # Where every query has tokens of both kinds, or of one, none is without any.
        if tokens_in.least == tokens_out.least == 0 and (without := (tokens_in.values | tokens_out.values) == 0).any():
            advice = f"row {np.argmax(without) + 1} has no input tokens either, so it is not a query; leave it out"
            raise InputError("output_tokens", 0, advice)
        if row_counts is not None and (total := float(row_counts.sum(dtype=np.float64))) >= QUERIES_END:
            raise InputError("count", f"{total:.3g} in all", "that many cannot be counted exactly; scale them down")

        # Of each class the queries of one rate are a class of their own while rows collapse.
        kind = class_of_row
        if rate_of_row is not None and rates.number > 1:
            kind = rate_of_row if class_of_row is None else class_of_row * rates.number + rate_of_row
        found = _collapse(tokens_in, tokens_out, kind, row_counts)
        in_all = found.count.astype(np.float64) @ (found.input_tokens + found.output_tokens)
        if in_all >= TOKENS_IN_ALL_END:
            raise InputError("count", f"{in_all:.3g} tokens in all", "that many cannot be counted; scale them down")
        cell_class, cell_rate = found.cell_class, None
        if rates.number:
            cell_class, cell_rate = np.divmod(found.cell_class, rates.number)
        return cls(
            input_tokens=_frozen(found.input_tokens),
            output_tokens=_frozen(found.output_tokens),
            count=_frozen(found.count),
            row_cells=_frozen(found.row_cells),
            row_counts=np.broadcast_to(np.int64(1), shape) if row_counts is None else _frozen(row_counts),
            cell_class=_frozen(cell_class),
            classes=names,
            cell_rate=None if cell_rate is None else _frozen(cell_rate),
            rates=rates,
        )

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, tariff: Tariff | None = None) -> Workload:
        """Collapse a table with ``input_tokens``, ``output_tokens`` and, optionally, ``count`` and ``query_class``.

        A ``tariff`` needs ``timestamp`` too. Errors as above, as of the tariff, and of what is no such table.
        """
        check_frame(frame, "workload", REQUIRED)
        tokens = (frame["input_tokens"].to_numpy(), frame["output_tokens"].to_numpy())
        further = (frame[name].to_numpy() if name in frame.columns else None for name in OPTIONAL)
        row_rates = None
        if tariff is not None:
            check_tariff(tariff)
            check_times(frame, "a tariff needs the time of each query")
            row_rates = tariff.rates(frame["timestamp"])
        return cls.from_tokens(*tokens, *further, row_rates=row_rates)

    def check_rows(self, frame: pd.DataFrame) -> None:
        """Refuse a table that this workload was not made from, row by row.

        Raises:
            InputError: it has other rows, or them in another order.
        """
        check_frame(frame, "workload", REQUIRED)
        for column in REQUIRED:
            theirs = _whole(column, frame[column].to_numpy(), 0, TOKENS_END).values if len(frame) else np.zeros(0)
            if not np.array_equal(theirs, getattr(self, column)[self.row_cells]):
                advice = (
                    f"are not the {len(self.row_cells)} of the plan, in their order; give the table it was made for"
                )
                raise InputError("workload", f"{len(frame)} rows", advice)

    @property
    def n_cells(self) -> int:
        """Number of distinct (input_tokens, output_tokens, class, rate)."""
        return len(self.count)

    @property
    def n_queries(self) -> int:
        """Number of queries over all cells."""
        return int(self.count.sum())

    @property
    def tokens(self) -> IntArray:
        """Input and output tokens of one query of each cell, shape (n_cells,)."""
        return self.input_tokens + self.output_tokens


def read_workload(
    path: str | PathLike[str], columns: Mapping[str, str] | None = None, tariff: Tariff | None = None
) -> Workload:
    """Read a CSV, Parquet or JSON-lines file; ``columns`` maps our names to its headers.

    Raises:
        InputError: the file cannot be read, lacks a column, or holds a row that is not a query or that ``tariff`` has
            no rate for.
    """
    return Workload.from_frame(read_table(Path(path), columns=columns, required=REQUIRED, what="--workload"), tariff)


def check_workload(workload: object) -> None:
    """Refuse what is no workload.

    Raises:
        InputError: it is something else, such as the table that one is made from.
    """
    if not isinstance(workload, Workload):
        advice = "is not a workload; make one with Workload.from_frame(table)"
        raise InputError("workload", type(workload).__name__, advice)


def _frozen(array: NDArray[N]) -> NDArray[N]:
    """A view that nobody writes through; the array itself may be the caller's own."""
    view = array.view()
    view.flags.writeable = False
    return view


class _Whole(NamedTuple):
    """Whole numbers, the least of them and the greatest."""

    values: IntArray
    least: int
    greatest: int


def _collapse(
    tokens_in: _Whole, tokens_out: _Whole, class_of_row: IntArray | None, row_counts: IntArray | None
) -> Collapsed:
    """The distinct rows, in ascending order, and which of them each row is.

    Where a bitmap of all that could occur fits into memory, a row is looked up there; sorting takes ten times as long.
    """
    n_in, n_out = tokens_in.greatest + 1, tokens_out.greatest + 1
    n_classes = 1 if class_of_row is None else int(class_of_row.max()) + 1
    size = n_in * n_out * n_classes
    if size <= min(BITMAP_END, BITS_PER_ROW * len(tokens_in.values)):
        lengths = tokens_in.values, tokens_out.values
        return row_kernels.collapse(*lengths, class_of_row, row_counts, (n_in, n_out, n_classes))
    if size >= KEY_END:
        # Ranks of the token counts serve as well, and there are no more of them than rows.
        values_in, ranks_in = np.unique(tokens_in.values, return_inverse=True)
        values_out, ranks_out = np.unique(tokens_out.values, return_inverse=True)
        ranks = _Whole(ranks_in, 0, len(values_in) - 1), _Whole(ranks_out, 0, len(values_out) - 1)
        found = _collapse(*ranks, class_of_row, row_counts)
        return replace(found, input_tokens=values_in[found.input_tokens], output_tokens=values_out[found.output_tokens])
    key = tokens_in.values * n_out
    key += tokens_out.values
    if class_of_row is not None:
        key *= n_classes
        key += class_of_row
    distinct, row_cells = np.unique(key, return_inverse=True)
    cells, cell_class = np.divmod(distinct, n_classes)
    # Up to QUERIES_END sums of whole numbers are exact in float64.
    count = np.bincount(row_cells, row_counts, len(cells)).astype(np.int64)
    return Collapsed(cells // n_out, cells % n_out, cell_class, count, row_cells.astype(np.uint32))


def _classes(query_class: ArrayLike | None) -> tuple[tuple[str, ...], IntArray | None]:
    """Names of the classes in order, and each row's number among them; ``None`` where nobody asks."""
    if query_class is None:
        return ("",), None
    values = np.asarray(query_class, dtype=object)
    names, numbers = np.unique(
        np.array(["" if _is_empty(value) else str(value) for value in values.ravel()]), return_inverse=True
    )
    return tuple(names.tolist()), numbers.reshape(values.shape).astype(np.int64)


def _whole(column: str, values: NDArray[Any], low: int, end: int) -> _Whole:
    """``values``, of which there are some, as integers in low … end − 1.

    Raises:
        InputError: for the first value that is not one.
    """
    if values.dtype.kind in "iu":
        least, greatest = _extent(values)
        if low <= least and greatest < end:
            return _Whole(np.ascontiguousarray(values, np.int64), least, greatest)
    if values.dtype.kind in NO_NUMBERS:
        numbers = np.full(len(values), np.nan)
    elif values.dtype.kind in "OUS":
        numbers = np.array([number_of(value) for value in values])
    else:
        numbers = values.astype(float)
    wrong = ~((numbers >= low) & (numbers < end) & (numbers == np.floor(numbers)))
    if wrong.any():
        row = int(np.argmax(wrong))
        advice = f"row {row + 1} needs a whole number from {low} to {end - 1} here; correct the row or leave it out"
        raise InputError(column, "empty" if _is_empty(values[row]) else values[row], advice)
    whole = numbers.astype(np.int64)
    return _Whole(whole, *_extent(whole))


def _extent(values: NDArray[Any]) -> tuple[int, int]:
    """The least and the greatest."""
    ends = in_stretches(lambda rows: (values[rows].min(), values[rows].max()), len(values), row_kernels.ROWS_AT_ONCE)
    return int(min(least for least, _ in ends)), int(max(greatest for _, greatest in ends))


def _is_empty(value: object) -> bool:
    return value is None or str(value) in ("", "nan", "<NA>", "NaT")
