"""Rows of a store as Parquet: with the types of their columns, and no more of them in memory than a group."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from filling import filled
from pyarrow import parquet

from llmpower.exceptions import InputError
from llmpower.store import iter_rows, write_parquet
from llmpower.types import MEASUREMENT_COLUMNS, Measurement


def test_columns_have_their_types_also_where_nothing_was_measured(
    path: Path, tmp_path: Path, make_measurement: type[Measurement]
) -> None:
    absent = {name: None for name in Measurement.__struct_fields__ if name.endswith("_j")}
    filled(path, make_measurement(1, device_uuids=None, first_token_ns=None, uid=None, **absent))
    columns = (*MEASUREMENT_COLUMNS, "uid")
    out = tmp_path / "m.parquet"
    assert write_parquet(columns, iter_rows(path, columns=columns), out) == 1
    types = {field.name: field.type for field in parquet.read_schema(out)}
    assert tuple(types) == columns
    assert {types[name] for name in columns if name.endswith(("_j", "_s"))} == {pa.float64()}
    assert {types[name] for name in ("input_tokens", "output_tokens", "batch_size", "uid")} == {pa.int64()}
    assert {types[name] for name in ("allocated", "simulated")} == {pa.bool_()}
    assert {types[name] for name in ("started_at", "device_uuids", "span_id")} == {pa.string()}


def test_rows_are_forgotten_when_their_group_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmpower.store.parquet.ROWS_AT_ONCE", 4096)
    n = 8 * 4096
    out = tmp_path / "m.parquet"
    tracemalloc.start()
    assert write_parquet(["runtime_s"], ((float(number),) for number in range(n)), out) == n
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert parquet.read_table(out)["runtime_s"].to_pylist() == list(range(n))
    bytes_of_row = 80  # a tuple, its float and where it is listed
    assert most_bytes < n * bytes_of_row / 2


def test_no_rows_are_a_table_with_its_columns(tmp_path: Path) -> None:
    assert write_parquet(["span_id", "runtime_s"], [], tmp_path / "m.parquet") == 0
    assert parquet.read_table(tmp_path / "m.parquet").column_names == ["span_id", "runtime_s"]


def test_without_pyarrow_it_is_said_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'llmpower\[parquet\]'"):
        write_parquet(["span_id"], [("a",)], tmp_path / "m.parquet")
    assert not list(tmp_path.iterdir())
