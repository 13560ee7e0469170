"""A batch of Parquet as the arrays that a tally takes, with the file and row that each of its rows is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError
from llmpower.modelling.kernels import COUNTS
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.frames import Array, Rows
from llmpower.modelling.rows.measurements import LEAST, MOST, MOST_COUNT, bounds_of, flags
from llmpower.modelling.rows.tally import Key
from llmpower.tables import NO_NUMBERS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass
class Batch:
    """Rows under our names; ``stretches`` are the files they come of, with the first row and how many follow it."""

    table: pa.Table
    stretches: tuple[tuple[str, int, int], ...]
    positions: NDArray[np.intp]
    _numbers: dict[str, FloatArray] = field(default_factory=dict)
    _counts: dict[str, Array] = field(default_factory=dict)
    _words: dict[str, tuple[NDArray[np.integer[Any]], list[Any]]] = field(default_factory=dict)
    _rows_of_words: dict[str, NDArray[np.intp]] = field(default_factory=dict)
    _impossible: dict[tuple[str, ...], NDArray[np.intp] | None] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.positions)

    def __contains__(self, name: str) -> bool:
        return name in self.table.column_names

    def take(self, rows: NDArray[np.intp]) -> Batch:
        """These rows by position."""
        return Batch(self.table.take(rows), self.stretches, self.positions[rows])

    def place(self, row: int) -> tuple[str, int]:
        """The file of a row, and its number there from 1."""
        position = int(self.positions[row])
        for name, first, n in self.stretches:
            if position < n:
                return name, first + position
            position -= n
        raise IndexError(row)

    def frame(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """As pandas has them, numbered from 0."""
        frame: pd.DataFrame = (self.table if names is None else self.table.select(list(names))).to_pandas()
        return frame

    def placed_frame(self) -> pd.DataFrame:
        """As :func:`~llmpower.modelling.rows.measurements.load_measurements` gives them: by file and number."""
        import pandas as pd

        places = [self.place(row) for row in range(len(self))]
        return self.frame().set_index(pd.MultiIndex.from_tuples(places, names=["source", "row"]))

    def numbers(self, name: str) -> FloatArray:
        """A column as floats, NaN where it is empty or no number."""
        if name not in self._numbers:
            self._numbers[name] = _floats(self.table.column(name))
        return self._numbers[name]

    def counts(self, name: str) -> Array:
        """A column of whole numbers as it stands where none is missing; as :meth:`numbers` otherwise."""
        import pyarrow as pa

        if name not in self._counts:
            column = self.table.column(name)
            whole = column.type == pa.int64() and not column.null_count
            self._counts[name] = column.to_numpy() if whole else self.numbers(name)
        return self._counts[name]

    def words(self, name: str) -> tuple[NDArray[np.integer[Any]], list[Any]]:
        """A column as numbers of its distinct values, and the values; an empty cell is ``None``."""
        if name not in self._words:
            self._words[name] = self._numbered(name)
        return self._words[name]

    def rows_of_words(self, name: str) -> NDArray[np.intp]:
        """How many rows have each of the values of :meth:`words`."""
        if name not in self._rows_of_words:
            codes, values = self.words(name)
            self._rows_of_words[name] = np.bincount(codes, minlength=len(values))
        return self._rows_of_words[name]

    def _numbered(self, name: str) -> tuple[NDArray[np.integer[Any]], list[Any]]:
        import pyarrow as pa

        if name not in self:
            return np.zeros(len(self), dtype=np.int64), [""]
        column = self.table.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        array = column.unify_dictionaries().combine_chunks()
        array = array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
        values = array.dictionary.to_pylist()
        if not array.null_count and pa.types.is_signed_integer(array.indices.type):
            return array.indices.to_numpy(), values
        # The number after the last may be more than the values' own type holds.
        codes = array.indices.cast(pa.int64()).fill_null(len(values)).to_numpy()
        return codes, [*values, None] if array.null_count else values

    def impossible(self, energies: Sequence[str]) -> NDArray[np.intp] | None:
        """Rows that no form can be fitted to, ``None`` where there are none."""
        asked = tuple(energies)
        if asked not in self._impossible:
            self._impossible[asked] = self._found_impossible(asked)
        return self._impossible[asked]

    def _found_impossible(self, energies: Sequence[str]) -> NDArray[np.intp] | None:
        names, values = self.words("model_name")
        wrong = np.zeros(len(self), dtype=bool)
        for nameless in {None, ""}.intersection(values):
            wrong |= names == values.index(nameless)
        for name in ("input_tokens", "output_tokens"):
            counts = self.counts(name)
            possible = counts.min() >= 0 and counts.max() < MOST_COUNT
            if not (possible and (counts.dtype == np.int64 or (counts == np.floor(counts)).all())):
                wrong |= ~((counts >= 0) & (counts < MOST_COUNT) & (counts == np.floor(counts)))
        runtime_s = self.numbers("runtime_s")
        if not (runtime_s.min() >= LEAST and runtime_s.max() <= MOST):
            wrong |= ~((runtime_s >= LEAST) & (runtime_s <= MOST))
        for name, bounds in bounds_of(energies).items():
            if name in self:
                for found in (bounds.beyond(self.counts(name)), self.unread(name)):
                    if found is not None:
                        wrong |= found
        return np.flatnonzero(wrong) if wrong.any() else None

    def unread(self, name: str) -> NDArray[np.bool_] | None:
        """Where a column holds something that is not a number; ``None`` where its type has nothing else."""
        import pyarrow as pa

        column = self.table.column(name)
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            return None
        there = np.asarray(column.is_valid().to_numpy(), dtype=bool)
        return np.asarray(there & np.isnan(self.numbers(name)))

    def rows(self, names: Sequence[str]) -> Rows:
        """What a tally takes: ``names`` that are there as floats, flags, and the system."""
        columns: dict[str, Array] = {
            name: self.counts(name) if name in COUNTS else self.numbers(name) for name in names if name in self
        }
        columns["simulated"] = self._flag("simulated") if "simulated" in self else np.zeros(len(self), dtype=bool)
        if "allocated" in self:
            columns["allocated"] = self._flag("allocated")
        if "quality" in self:
            codes, values = self.words("quality")
            columns["modelled"] = (
                codes == values.index("modelled") if "modelled" in values else np.zeros(len(self), dtype=bool)
            )
        codes, systems = self.words("system")
        columns["system"] = codes
        return Rows(columns, tuple("" if system is None else str(system) for system in systems))

    def keys(self, group_by: Sequence[str]) -> tuple[NDArray[np.integer[Any]], list[Key], NDArray[np.intp]]:
        """Each row's key by its number, the keys that there are, and how many rows each has."""
        # Where a column says one thing only, as most do, there is nothing to put together.
        telling = [name for name in group_by if len(self.words(name)[1]) > 1]
        together = self.words(telling[0])[0] if telling else np.zeros(len(self), dtype=np.int32)
        for name in telling[1:]:
            codes, values = self.words(name)
            together = together.astype(np.int64) * len(values) + codes
        seen = self.rows_of_words(telling[0]) if len(telling) == 1 else np.bincount(together)
        parts = [_emptied(self.words(name)[1], "" if name == "system" else None) for name in group_by]
        there = np.flatnonzero(seen)
        seen = seen[: there[-1] + 1]
        places = np.unravel_index(there, [len(values) for values in parts])
        keys = [tuple(v[p] for v, p in zip(parts, place, strict=True)) for place in zip(*places, strict=True)]
        # Two values that are the same to us, such as an empty cell and one that is not a number, are one key.
        distinct = list(dict.fromkeys(keys))
        if len(distinct) == len(seen):
            return together, distinct, seen
        number = np.zeros(len(seen), dtype=np.int32)
        number[there] = [distinct.index(key) for key in keys]
        return number[together], distinct, np.bincount(number, seen, minlength=len(distinct)).astype(np.intp)

    def _flag(self, name: str) -> NDArray[np.bool_]:
        import pyarrow as pa

        column = self.table.column(name)
        if pa.types.is_boolean(column.type):
            if not column.null_count and not any(chunk.true_count for chunk in column.chunks):
                return np.zeros(len(self), dtype=bool)
            return np.asarray(column.fill_null(fill_value=False).to_numpy(), dtype=bool)
        try:
            return np.asarray(flags(self.frame([name]), name), dtype=bool)
        except FitError:
            flags(self.placed_frame(), name)
            raise


def batch_of(read: Sequence[tuple[str, int, Any]], headers: Mapping[str, str]) -> Batch:
    """Record batches with their files and first rows, under our names."""
    import pyarrow as pa

    table = pa.Table.from_batches([batch for _, _, batch in read])
    ours = {header: name for name, header in headers.items()}
    stretches = tuple((name, first, len(batch)) for name, first, batch in read)
    return Batch(table.rename_columns([ours[name] for name in table.column_names]), stretches, np.arange(len(table)))


def _emptied(values: Sequence[Any], empty: str | None) -> list[Any]:
    """The values, ``empty`` for what a file has where it says nothing: no value, or NaN."""
    return [empty if value is None or value != value else value for value in values]


def _floats(column: pa.ChunkedArray) -> FloatArray:
    import pandas as pd
    import pyarrow as pa

    if pa.types.is_integer(column.type) and column.null_count == 0:
        return np.asarray(column.to_numpy(), dtype=np.float64)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    values = column.to_pandas()
    if values.dtype.kind in NO_NUMBERS:
        return np.full(len(values), np.nan)
    return np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)
