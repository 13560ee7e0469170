"""A data set's queries counted portion by portion against the same rows in one table; what is said of wrong rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.routing import Workload
from llmpower.routing.problem.counting import Cells, Counted, Counting, count_datasets


def queries(rows: int, seed: int = 0, **columns: Any) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    made = {"input_tokens": generator.integers(0, 60, rows), "output_tokens": generator.integers(1, 40, rows)}
    return pd.DataFrame(made).assign(**columns)


def write(root: Path, *tables: pd.DataFrame) -> str:
    for number, table in enumerate(tables):
        directory = root / f"host=node-{number}" / "date=2026-01-01"
        directory.mkdir(parents=True)
        table.to_parquet(directory / "1.parquet", index=False, row_group_size=max(1, len(table) // 3))
    return str(root)


def assert_same(ours: Workload, theirs: Workload) -> None:
    assert ours.classes == theirs.classes
    for name in ("input_tokens", "output_tokens", "count", "cell_class"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_cells_are_those_of_one_table(tmp_path: Path) -> None:
    # Of queries of no class a file need not say so.
    tables = [
        queries(3000, 1, query_class=["chat", None, "code"] * 1000, count=np.arange(3000) % 5 + 1),
        queries(2000, 2, count=2),
    ]
    heard: list[tuple[int, int]] = []
    ours = count_datasets([write(tmp_path, *tables)], tell=lambda *told: heard.append(told))
    assert_same(ours, Workload.from_frame(pd.concat(tables)))
    assert heard[-1] == (5000, 5000)


def test_what_several_readers_counted_is_put_together(tmp_path: Path) -> None:
    table = queries(4000, 3, query_class=["chat", None] * 2000)
    seen: list[Cells] = []

    def halves(counting: Counting, dataset: Any) -> Cells:
        portions = dataset.portions
        seen.extend(counting.scan(some) for some in (portions[:1], portions[1:]))
        return counting.merge(seen)

    ours = count_datasets([write(tmp_path, table[:1000], table[1000:])], scanner=halves)
    assert_same(ours, Workload.from_frame(table))
    assert sum(int(counted.count.sum()) for cells in seen for counted in cells.values()) == 4000


def test_more_kinds_of_queries_than_may_wait() -> None:
    counted, keys = Counted(), np.random.default_rng(1).permutation(np.arange(3 << 15))
    for part in np.array_split(np.tile(keys, 2), 7):
        counted.add(part, np.ones(len(part), np.int64))
        assert counted.n_waiting <= 1 << 17
    counted.settle()
    assert counted.keys.tolist() == list(range(3 << 15))
    assert set(counted.count.tolist()) == {2}


def test_counts_and_headers_are_those_of_a_table(tmp_path: Path) -> None:
    table = queries(900, count=np.arange(900) % 7 + 1)
    root = write(tmp_path, table.rename(columns={"input_tokens": "ContextTokens"}))
    assert_same(count_datasets([root], {"input_tokens": "ContextTokens"}), Workload.from_frame(table))


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("input_tokens", -1, "needs a whole number from 0"),
        ("output_tokens", 2.5, "needs a whole number from 0"),
        ("output_tokens", None, "needs a whole number from 0"),
        ("count", 0, "needs a whole number from 1"),
    ],
)
def test_a_row_that_is_no_query_is_named_with_its_file(tmp_path: Path, column: str, value: object, said: str) -> None:
    wrong = queries(30, 1, count=1).astype({"output_tokens": float})
    wrong.loc[7, column] = value
    with pytest.raises(InputError, match=said) as caught:
        count_datasets([write(tmp_path, queries(30, count=1), wrong)])
    assert (caught.value.field, caught.value.value) == (column, "empty" if value is None else value)
    assert "row 8 of " in caught.value.advice
    assert "host=node-1/date=2026-01-01/1.parquet" in caught.value.advice


def test_a_row_without_tokens_and_places_without_files_are_refused(tmp_path: Path) -> None:
    nothing = queries(10).assign(input_tokens=0, output_tokens=[3, *[0] * 9])
    with pytest.raises(InputError, match=r"row 2 of .* is not a query"):
        count_datasets([write(tmp_path / "nothing", nothing)])
    with pytest.raises(InputError, match=r"--workload.*no such place"):
        count_datasets([str(tmp_path / "nowhere")])
    with pytest.raises(InputError, match=r"output_tokens.*lacks this column"):
        count_datasets([write(tmp_path / "lacking", queries(10).drop(columns="output_tokens"))])


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 2**40)), max_size=8), max_size=6))
def test_portions_add_up_in_any_order(portions: list[list[tuple[int, int]]]) -> None:
    counted = Counted()
    expected: dict[int, int] = {}
    for portion in portions:
        keys, count = np.array(portion, dtype=np.int64).reshape(-1, 2).T
        counted.add(keys, count)
        for key, n in portion:
            expected[key] = expected.get(key, 0) + n
        if len(portion) % 2:
            counted.settle()
    counted.settle()
    assert dict(zip(counted.keys.tolist(), counted.count.tolist(), strict=True)) == dict(sorted(expected.items()))
