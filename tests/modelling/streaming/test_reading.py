"""How far pyarrow reads ahead of whoever takes the rows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from llmpower.modelling.streaming import open_datasets
from llmpower.modelling.streaming.reading import RUN_ROWS, record_batches

N_FILES, FILE_ROWS = 6, RUN_ROWS // 2
NAMES = ("model_name", "input_tokens", "output_tokens", "runtime_s")


def test_no_more_is_read_than_was_asked_for_and_a_run_ahead(tmp_path: Path) -> None:
    for number in range(N_FILES):
        columns = {"model_name": pa.repeat("m", FILE_ROWS), "runtime_s": np.ones(FILE_ROWS)}
        columns |= {name: np.full(FILE_ROWS, number) for name in ("input_tokens", "output_tokens")}
        parquet.write_table(pa.table(columns), tmp_path / f"{number}.parquet", row_group_size=1 << 18)
    dataset = open_datasets([str(tmp_path)], {})
    pool = pa.jemalloc_memory_pool() if "jemalloc" in pa.supported_memory_backends() else pa.default_memory_pool()
    before = pool.bytes_allocated()
    batches = record_batches(dataset.schema, {name: name for name in NAMES}, dataset.portions)
    read = [next(batches)]
    held = [-1, pool.bytes_allocated() - before]
    while held[-1] != held[-2]:
        time.sleep(0.3)
        held.append(pool.bytes_allocated() - before)
    row_bytes = read[0][2].nbytes / len(read[0][2])
    assert held[-1] < 2 * RUN_ROWS * row_bytes < N_FILES * FILE_ROWS * row_bytes
    read += batches
    # All rows in their order, whichever run they were in.
    assert [file for file, _, _ in read] == sorted(file for file, _, _ in read)
    for number, portion in enumerate(dataset.portions):
        own = [(first, batch) for file, first, batch in read if file == portion.name]
        ends = np.cumsum([1, *(len(batch) for _, batch in own)])
        assert [first for first, _ in own] == ends[:-1].tolist()
        assert ends[-1] == 1 + FILE_ROWS
        assert all((batch["input_tokens"].to_numpy() == number).all() for _, batch in own)
