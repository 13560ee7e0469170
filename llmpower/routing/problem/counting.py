"""A data set's queries, counted into cells portion by portion: all that a plan needs of rows that no memory holds.

Memory is that of a batch and of the cells, which grow with distinct lengths and not with rows. Cells of two portions
add up, so workers may count portions of their own; the plan is then solved where it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling.streaming import open_datasets
from llmpower.modelling.streaming.arrays import Batch
from llmpower.modelling.streaming.dataset import Portion
from llmpower.modelling.streaming.reading import batches
from llmpower.modelling.streaming.scanners import Scanner, here
from llmpower.routing.problem.workload import OPTIONAL, QUERIES_END, REQUIRED, TOKENS_END, IntArray, Workload

if TYPE_CHECKING:
    import pyarrow as pa

WHAT = "--workload"


@dataclass
class Counted:
    """Queries of one class: distinct ``keys`` in order, τin · 2³¹ + τout, and how many of each; some still wait."""

    keys: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    count: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    waiting: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    n_waiting: int = 0

    def add(self, keys: IntArray, count: IntArray) -> None:
        """Further queries; joined when as many wait as there are, so that each is sorted a few times only."""
        self.waiting.append((keys, count))
        self.n_waiting += len(keys)
        if self.n_waiting > max(len(self.keys), 1 << 16):
            self.settle()

    def settle(self) -> None:
        """Nothing waits any more."""
        if not self.waiting:
            return
        keys, count = (np.concatenate(columns) for columns in zip((self.keys, self.count), *self.waiting, strict=True))
        self.keys, place = np.unique(keys, return_inverse=True)
        # Up to QUERIES_END, which the workload keeps, sums of whole numbers are exact in float64.
        self.count = np.bincount(place, count, len(self.keys)).astype(np.int64)
        self.waiting, self.n_waiting = [], 0


Cells = dict[str, Counted]
"""By the name of a class of queries, the empty one where they have none."""


@dataclass(frozen=True)
class Counting:
    """What is done with every portion; ``headers`` are the columns that are read, our name → theirs."""

    schema: pa.Schema
    headers: dict[str, str]

    def scan(self, portions: Sequence[Portion], tell: Callable[[int], None] | None = None) -> Cells:
        """Count the rows of portions.

        Raises:
            InputError: a file cannot be read, or a row is not a query.
        """
        cells: Cells = {}
        for batch in batches(self.schema, self.headers, portions):
            _add(cells, batch)
            if tell is not None:
                tell(len(batch))
        return _settled(cells)

    def merge(self, parts: Iterable[Cells]) -> Cells:
        """All of them, none of them changed."""
        cells: Cells = {}
        for each in parts:
            for name, counted in each.items():
                cells.setdefault(name, Counted()).add(counted.keys, counted.count)
        return _settled(cells)


def count_datasets(
    sources: Sequence[str],
    columns: dict[str, str] | None = None,
    *,
    scanner: Scanner | None = None,
    tell: Callable[[int, int], None] | None = None,
) -> Workload:
    """The cells of all rows of data sets of Parquet files, which stand for the rows in the workload.

    ``sources`` are directories, URLs that fsspec knows, Parquet files or globs of them; ``columns`` our names to the
    files' headers; ``scanner`` is what reads, by default this process, where ``tell`` hears how many rows were read, of
    how many.

    Raises:
        InputError: a source or file cannot be used, or a row is not a query; it is named with its file.
    """
    renamed = columns or {}
    dataset = open_datasets(sources, renamed, REQUIRED, WHAT)
    named = {name: renamed.get(name, name) for name in (*REQUIRED, *OPTIONAL)}
    headers = {name: header for name, header in named.items() if header in dataset.schema.names}
    cells = (scanner or here(tell))(Counting(dataset.schema, headers), dataset)
    keys = np.concatenate([counted.keys for counted in cells.values()])
    count = np.concatenate([counted.count for counted in cells.values()])
    classes = None
    if set(cells) != {""}:
        sizes = [len(counted.keys) for counted in cells.values()]
        classes = np.repeat(np.array(list(cells), dtype=object), sizes)
    return Workload.from_tokens(*np.divmod(keys, TOKENS_END), count, classes)


def _add(cells: Cells, batch: Batch) -> None:
    tokens_in, tokens_out = (_whole(batch, name, 0, TOKENS_END) for name in REQUIRED)
    count = _whole(batch, "count", 1, QUERIES_END) if "count" in batch else None
    if tokens_in.min() == 0 and (without := (tokens_in | tokens_out) == 0).any():
        advice = f"{_place(batch, without)} has no input tokens either, so it is not a query; leave it out"
        raise InputError("output_tokens", 0, advice)
    if "query_class" not in batch:
        _collapse(cells, "", tokens_in, tokens_out, count)
        return
    of_row, names = batch.words("query_class")
    for number, name in enumerate(names):
        own = of_row == number
        if own.any():
            rows = (tokens_in[own], tokens_out[own], None if count is None else count[own])
            _collapse(cells, "" if name is None or name != name else str(name), *rows)


def _collapse(cells: Cells, name: str, tokens_in: IntArray, tokens_out: IntArray, count: IntArray | None) -> None:
    found = Workload.from_tokens(tokens_in, tokens_out, count)
    cells.setdefault(name, Counted()).add(found.input_tokens * TOKENS_END + found.output_tokens, found.count)


def _whole(batch: Batch, column: str, low: int, end: int) -> IntArray:
    values = batch.numbers(column)
    wrong = ~((values >= low) & (values < end) & (values == np.floor(values)))
    if wrong.any():
        value = batch.table.column(column)[int(np.argmax(wrong))].as_py()
        place = _place(batch, wrong)
        advice = f"{place} needs a whole number from {low} to {end - 1} here; correct the row or leave it out"
        raise InputError(column, "empty" if value is None or value != value or value == "" else value, advice)
    return values.astype(np.int64)


def _place(batch: Batch, wrong: NDArray[np.bool_]) -> str:
    source, row = batch.place(int(np.argmax(wrong)))
    return f"row {row} of {source}"


def _settled(cells: Cells) -> Cells:
    for counted in cells.values():
        counted.settle()
    return cells
