"""Rows to cells and back, and every row that is not a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.routing import Trace, Workload, read_workload
from llmpower.routing.problem.row_kernels import ROWS_AT_ONCE
from llmpower.routing.problem.workload import TOKENS_END

tokens = st.integers(0, 5)


@given(st.lists(st.tuples(tokens, tokens.map(lambda τ: τ + 1), st.integers(1, 4)), min_size=1, max_size=30))
def test_cells_keep_every_query(rows: list[tuple[int, int, int]]) -> None:
    τin, τout, count = np.array(rows).T
    workload = Workload.from_tokens(τin, τout, count)
    cells = list(zip(workload.input_tokens.tolist(), workload.output_tokens.tolist(), strict=True))
    assert cells == sorted(set(cells))
    assert workload.n_cells == len(cells)
    assert workload.n_queries == count.sum()
    assert workload.input_tokens[workload.row_cells].tolist() == τin.tolist()
    assert workload.output_tokens[workload.row_cells].tolist() == τout.tolist()
    for cell, (a, b) in enumerate(cells):
        assert workload.count[cell] == sum(n for i, o, n in rows if (i, o) == (a, b))


def test_token_counts_may_be_as_large_as_they_are_allowed_to_be() -> None:
    """Their product with the number of classes then fits into no integer."""
    many = TOKENS_END - 1
    τin, τout = [many, 5, many, 5, 5], [3, many, 3, many, 3]
    classes = ["chat", "code", "chat", "mail", "code"]
    workload = Workload.from_tokens(τin, τout, [1, 7, 1, 2, 1], classes)
    cells = zip(workload.input_tokens, workload.output_tokens, workload.cell_class, workload.count, strict=True)
    assert [(int(a), int(b), workload.classes[c], int(n)) for a, b, c, n in cells] == [
        (5, 3, "code", 1),
        (5, many, "code", 7),
        (5, many, "mail", 2),
        (many, 3, "chat", 2),
    ]
    assert workload.row_cells.tolist() == [3, 1, 3, 2, 0]


def test_a_row_is_one_query_unless_it_says_otherwise() -> None:
    workload = Workload.from_tokens([9, 8, 9], [4, 4, 4])
    assert workload.count.tolist() == [1, 2]
    assert workload.tokens.tolist() == [12, 13]
    assert workload.row_cells.tolist() == [1, 0, 1]


def test_arrays_cannot_be_written_to() -> None:
    workload = Workload.from_tokens([1], [1])
    with pytest.raises(ValueError, match="read-only"):
        workload.count[0] = 7


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_foreign_headers_and_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace{suffix}"
    frame = pd.DataFrame({"TIMESTAMP": ["a", "b"], "ContextTokens": [374, 396], "GeneratedTokens": [44, 109]})
    match suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case _:
            frame.to_json(path, orient="records", lines=True)
    workload = read_workload(path, {"input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"})
    assert workload.input_tokens.tolist() == [374, 396]
    assert workload.count.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("input_tokens,output_tokens\n", "workload = 0 rows: "),
        ("input_tokens,output_tokens\n1,2\n,2\n", "input_tokens = empty: row 2 needs a whole number from 0"),
        ("input_tokens,output_tokens\n1,nan\n", "output_tokens = empty: row 1 needs"),
        ("input_tokens,output_tokens\n1,2\n1,-3\n", "output_tokens = -3: row 2 needs"),
        ("input_tokens,output_tokens\n1.5,2\n", "input_tokens = 1.5: row 1 needs"),
        ("input_tokens,output_tokens\n1,2\n1,many\n", "output_tokens = many: row 2 needs"),
        ("input_tokens,output_tokens\n1,1e300\n", "output_tokens = 1e+300: row 1 needs"),
        ("input_tokens,output_tokens\n1,inf\n", "output_tokens = inf: row 1 needs"),
        ("input_tokens,output_tokens\n1,2\n0,0\n", "output_tokens = 0: row 2 has no input tokens either"),
        ("input_tokens,output_tokens,count\n1,2,1\n1,2,0\n", "count = 0: row 2 needs a whole number from 1"),
        ("input_tokens,output_tokens,count\n1,2,\n", "count = empty: row 1 needs"),
        ("input_tokens,output_tokens,count\n1,2,5e15\n1,2,5e15\n", "count = 1e+16 in all: "),
        ("input_tokens,output_tokens,count\n2000,2000,5e15\n", "count = 2e+19 tokens in all: "),
        ("ContextTokens,output_tokens\n1,2\n", "column = input_tokens: "),
    ],
)
def test_refusals_name_column_row_and_value(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "queries.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_workload(path)
    assert str(caught.value).startswith(complaint)


def test_nullable_columns_are_read_and_refused() -> None:
    frame = pd.DataFrame({"input_tokens": pd.array([1, None], "Int64"), "output_tokens": [1, 2]})
    with pytest.raises(InputError, match="input_tokens = empty: row 2 needs"):
        Workload.from_frame(frame)
    assert Workload.from_frame(frame.head(1)).n_queries == 1


@pytest.mark.parametrize("kind", ["m8[ns]", "M8[ns]", complex])
def test_what_only_passes_for_a_count_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match=r"input_tokens = .*: row 1 needs a whole number"):
        Workload.from_tokens(np.array([8, 9]).astype(kind), [1, 2])


def test_what_is_no_table_of_queries_is_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame({"input_tokens": [1], "output_tokens": [2]})
    for table, complaint in (
        ("queries.csv", "workload = str: is not a pandas table"),
        (frame.to_dict("list"), "workload = dict: is not a pandas table"),
        (frame[["input_tokens"]], r"column = output_tokens: is missing from the workload \(columns: input_tokens\)"),
        (pd.concat([frame, frame], axis=1), "column = input_tokens: appears twice in the workload"),
    ):
        with pytest.raises(InputError, match=complaint):
            Workload.from_frame(table)  # type: ignore[arg-type]  # the point of the test
        with pytest.raises(InputError, match=complaint):
            Trace.from_frame(table)  # type: ignore[arg-type]
    path = tmp_path / "Anfragen für Ü.csv"
    frame.to_csv(path, index=False)
    assert read_workload(str(path)).n_queries == 1


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match=r"workload = input_tokens \(2,\), output_tokens \(1,\)"):
        Workload.from_tokens([1, 2], [1])


def test_many_rows_are_collapsed_by_several_threads_as_by_one() -> None:
    rng = np.random.default_rng(1)
    n_rows = 10 * ROWS_AT_ONCE + 7
    tokens_in, tokens_out, count = (rng.integers(1, end, n_rows) for end in (300, 200, 4))
    workload = Workload.from_tokens(tokens_in, tokens_out, count)
    cells, row_cells = np.unique(tokens_in * 1000 + tokens_out, return_inverse=True)
    assert (workload.input_tokens * 1000 + workload.output_tokens).tolist() == cells.tolist()
    assert (workload.row_cells == row_cells).all()
    assert workload.count.tolist() == np.bincount(row_cells, count).tolist()
