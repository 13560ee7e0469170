"""Rows of a store as Parquet, written group by group, so that memory is that of one group."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import InputError
from llmpower.files import replacing
from llmpower.store.rows import FLAGS

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1 << 16
_WHOLE = ("input_tokens", "output_tokens", "batch_size", "uid")
_REALS = re.compile(r"_(s|j)$")

Row = Sequence[Any]


def write_parquet(columns: Sequence[str], rows: Iterable[Row], path: Path, option: str = "-o") -> int:
    """Write rows as they come, by rename; how many they were.

    Raises:
        InputError: pyarrow is missing, or the place cannot be written to.
    """
    try:
        shape = schema_of(columns)
    except ImportError as error:
        raise InputError(option, path, "Parquet needs pyarrow; pip install 'llmpower[parquet]'") from error
    with replacing(path, option) as temporary, temporary.open("wb") as file:
        return write_groups(rows, shape, file)


def schema_of(columns: Sequence[str], **types: pa.DataType) -> pa.Schema:
    """Of columns of a store by their names; ``types`` are those of columns that are to have others."""
    import pyarrow as pa

    def type_of(name: str) -> pa.DataType:
        if name in types:
            return types[name]
        if name in FLAGS:
            return pa.bool_()
        if name in _WHOLE:
            return pa.int64()
        return pa.float64() if _REALS.search(name) else pa.string()

    return pa.schema([(name, type_of(name)) for name in columns])


def write_groups(rows: Iterable[Row], shape: pa.Schema, file: Any) -> int:
    """Write rows to an open ``file`` as groups of at most :data:`ROWS_AT_ONCE`; how many they were."""
    import pyarrow as pa
    from pyarrow import parquet

    left, written = iter(rows), 0
    with parquet.ParquetWriter(file, shape, compression="zstd") as writer:
        while some := list(islice(left, ROWS_AT_ONCE)):
            columns = [_column(values, field) for values, field in zip(zip(*some, strict=True), shape, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=shape))
            written += len(some)
    return written


def _column(values: Row, field: pa.Field) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_timestamp(field.type):
        return pa.array([value.removesuffix("Z") for value in values]).cast(pa.timestamp("us")).cast(field.type)
    if pa.types.is_boolean(field.type):
        return pa.array([bool(value) for value in values])
    return pa.array(values, field.type)
