"""Parquet to Parquet: a workload of any length, a row group at a time.

A plan looks at two to four columns; the others are only handed through. So the file is read twice: what the plan looks
at, as whole columns, and then the others, a row group after the other, the first while the plan is made and each next
one while the one before is written with its models. No other rows are in memory, and pandas is not even loaded: memory
that is used for the first time and modules that are imported take longer than routing does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.files import file_state
from llmpower.routing.plans.expansion import name_columns, runs
from llmpower.tables import our_names, refusing

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from llmpower.routing.plans.loaded import Assigned
    from llmpower.routing.plans.plan import RoutingPlan

COUNTS = ("input_tokens", "output_tokens", "count")


class ParquetRows:
    """The rows of one file; ``columns`` maps our names to its headers.

    Raises:
        InputError: the file cannot be read, or lacks a column.
    """

    def __init__(self, path: Path, columns: Mapping[str, str], required: Sequence[str], what: str) -> None:
        self.path, self._what = path, what
        with refusing(path, what):
            import pyarrow.parquet as pq

            self._state = file_state(path)
            with pq.ParquetFile(path) as file:
                # What pandas keeps of an index that nobody named is nobody's column.
                self._schema = file.schema_arrow
                self._headers = [name for name in self._schema.names if not name.startswith("__index_level_")]
        self._renamed = our_names(self._headers, columns, required, path)
        # By header: columns that are written as they were read.
        self._kept: dict[str, NDArray[Any]] = {}

    def columns(self, names: Collection[str], *, keep: bool = False) -> dict[str, NDArray[Any]]:
        """Those of the columns of these names that there are, whole; NaN or ``None`` where a cell is empty.

        Where they are to ``keep``, whole numbers need not be read again to be written; nobody may change them then.
        """
        headers = {header: name for header in self._headers if (name := self._name(header)) in names}

        def read(header: str) -> NDArray[Any]:
            with self._opened() as file:
                return _column(file, header)

        # Each by a reader of its own: pyarrow reads one column on one processor.
        with ThreadPoolExecutor(len(headers)) as pool:
            found = dict(zip(headers, pool.map(read, headers), strict=True))
        if keep:
            # A column with empty cells has become one of floats.
            self._kept = {
                header: values
                for header, values in found.items()
                if values.dtype.kind in "iu" and str(values.dtype) == str(self._schema.field(header).type)
            }
        return {name: found[header] for header, name in headers.items()}

    def write(self, plan: Future[RoutingPlan] | Future[Assigned], path: Path) -> None:
        """Write the rows in their order, each with the model that it goes to, as :func:`rows_table` lays them out.

        The first of them are read while the plan is made.

        Raises:
            InputError: the workload is not what it was.
            OSError: the file cannot be written.
            CancelledError: there will be no plan.
        """
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        with ExitStack() as stack:
            file, pool = stack.enter_context(self._opened()), stack.enter_context(ThreadPoolExecutor(1))
            # Before there is a plan, as it may have to wait for the disk.
            out = stack.enter_context(pa.OSFile(str(path), "wb"))
            lengths = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = [0, *accumulate(lengths)]
            columns: _PlanColumns | None = None

            def ready(group: int) -> pa.Table:
                nonlocal columns
                rows = self._group(file, group, slice(ends[group], ends[group + 1]))
                columns = columns or _PlanColumns(plan.result())
                return columns.beside(rows, ends[group])

            # Each is made ready while the one before is written.
            coming = pool.submit(ready, 0)
            sink: pq.ParquetWriter | None = None
            for group in range(1, len(ends)):
                table = coming.result()
                if group < file.num_row_groups:
                    coming = pool.submit(ready, group)
                if sink is None:
                    sink = stack.enter_context(ParquetWriter(out, table.schema, **_encodings(table)))
                sink.write_table(table)

    def _group(self, file: pq.ParquetFile, group: int, here: slice) -> pa.Table:
        """A row group under our names; ``here`` are its rows among all of them."""
        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            header: _numbers(values[here]) for header, values in self._kept.items()
        }
        if others := [header for header in self._headers if header not in self._kept]:
            columns |= zip(others, file.read_row_group(group, others).columns, strict=True)
        return self._named(columns)

    def _opened(self) -> pq.ParquetFile:
        from pyarrow.parquet import ParquetFile

        if file_state(self.path) != self._state:
            raise InputError(self._what, self.path, "has changed since it was read; leave it alone, and run this again")
        return ParquetFile(self.path)

    def _name(self, header: str) -> str:
        return self._renamed.get(header, header)

    def _named(self, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Table:
        """In the file's order, under our names, and without what pandas once noted of its columns."""
        import pyarrow as pa

        fields = [self._schema.field(header).with_name(self._name(header)) for header in self._headers]
        return pa.Table.from_arrays([columns[header] for header in self._headers], schema=pa.schema(fields))


class _PlanColumns:
    """What a plan adds to rows: who serves them."""

    def __init__(self, plan: RoutingPlan | Assigned) -> None:
        self._rows, self._models, self._counts = runs(plan.workload, plan.assignment)
        self._columns = name_columns(plan)

    def beside(self, table: pa.Table, first: int) -> pa.Table:
        """With these rows, which begin with the workload's row ``first``; some of them may be divided."""
        import pyarrow as pa

        here = slice(first, first + len(table))
        if self._rows is not None:
            here = slice(*np.searchsorted(self._rows, (here.start, here.stop)).tolist())
            table = table.take(_numbers(self._rows[here] - first))
        if "count" in table.column_names:
            table = table.set_column(table.column_names.index("count"), "count", _numbers(self._counts[here]))
        for column, (names, codes) in self._columns.items():
            if column in table.column_names:
                old, kept = table.column(column), f"workload_{column}"
                table = table.drop_columns([column])
                # A plan's rows that are routed again have one of these as well, and no name may stand there twice.
                if kept in table.column_names:
                    table = table.set_column(table.column_names.index(kept), kept, old)
                else:
                    table = table.append_column(kept, old)
            values = pa.DictionaryArray.from_arrays(_numbers(codes[self._models[here]]), _texts(names))
            table = table.append_column(column, values)
        return table


def _encodings(table: pa.Table) -> dict[str, Any]:
    """Of columns as they stand: times and lengths by differences, which are quick to write; times take half the room.

    What repeats gets a dictionary; measured figures rarely come twice. Differences in as few bits as they need are not
    compressed once more, which would save no room; and the least and the last of a dictionary's names, which every
    row group has, tell no reader which to leave out.
    """
    import pyarrow as pa

    fields = [field for field in table.schema if not pa.types.is_floating(field.type)]
    by_differences = [
        field.name
        for field in fields
        if pa.types.is_temporal(field.type) or (field.name in COUNTS and pa.types.is_integer(field.type))
    ]
    names = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    return {
        "use_dictionary": [field.name for field in fields if field.name not in by_differences],
        "compression": {name: "NONE" if name in by_differences else "SNAPPY" for name in table.column_names},
        "write_statistics": [name for name in table.column_names if name not in names],
        "column_encoding": dict.fromkeys(by_differences, "DELTA_BINARY_PACKED"),
    }


def _column(file: pq.ParquetFile, header: str) -> NDArray[Any]:
    """A column as NumPy has it. Whole numbers are filled in a row group at a time: most columns that count are."""
    import pyarrow as pa

    kind = file.schema_arrow.field(header).type
    if not pa.types.is_integer(kind):
        column = file.read([header]).column(0)
        if pa.types.is_dictionary(kind):
            column = column.cast(kind.value_type)
        found: NDArray[Any] = column.to_numpy()
        return found
    values, first = np.empty(file.metadata.num_rows, np.dtype(str(kind))), 0
    for chunk in _chunks(file, header):
        if chunk.null_count:
            whole: NDArray[Any] = file.read([header]).column(0).to_numpy()
            return whole
        here = np.frombuffer(chunk.buffers()[1], values.dtype)[chunk.offset : chunk.offset + len(chunk)]
        values[first : first + len(chunk)] = here
        first += len(chunk)
    return values


def _chunks(file: pq.ParquetFile, header: str) -> Iterator[pa.Array]:
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, [header]).column(0).chunks


def _numbers(values: NDArray[Any]) -> pa.Array:
    """An array as it stands. Made from its buffer, as pyarrow loads pandas to ask whether an object is one of its."""
    import pyarrow as pa

    whole = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.type_for_alias(whole.dtype.name), len(whole), [None, pa.py_buffer(whole)])


def _texts(values: Sequence[str]) -> pa.StringArray:
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
