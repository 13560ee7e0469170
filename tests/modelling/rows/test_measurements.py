"""Every row that cannot be true is refused by column, value and place."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmpower.exceptions import FitError, InputError
from llmpower.modelling.rows.measurements import check_measurements, load_measurements
from llmpower.modelling.screening import screen

HEADER = "model_name,input_tokens,output_tokens,runtime_s,gpu_energy_j"


def rows(**changed: Any) -> pd.DataFrame:
    """Three sound rows; ``changed`` gives a column's second value."""
    frame = pd.DataFrame(
        {
            "model_name": ["a", "a", "a"],
            "input_tokens": [8, 16, 32],
            "output_tokens": [8, 8, 8],
            "runtime_s": [1.0, 1.5, 2.0],
            "gpu_energy_j": [100.0, 150.0, 200.0],
        }
    ).astype(object)
    for column, value in changed.items():
        frame.loc[1, column] = value
    return frame


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("model_name", None, "every row needs a model's name"),
        ("model_name", "", "every row needs a model's name"),
        ("input_tokens", -8, "whole numbers"),
        ("input_tokens", 8.5, "whole numbers"),
        ("output_tokens", None, "whole numbers"),
        ("output_tokens", float("inf"), "whole numbers"),
        ("output_tokens", "many", "is not a number"),
        ("runtime_s", 0, "seconds > 0"),
        ("runtime_s", -1.0, "seconds > 0"),
        ("runtime_s", None, "seconds > 0"),
        ("runtime_s", 1e300, "seconds > 0, from 1e-30 to 1e"),
        ("gpu_energy_j", 0.0, "joules > 0, or empty"),
        ("gpu_energy_j", -12.5, "joules > 0, or empty"),
        ("gpu_energy_j", float("inf"), "joules > 0, or empty"),
        ("gpu_energy_j", 1e160, "joules > 0, or empty where it was not measured, from 1e-30 to 1e"),
        ("gpu_energy_j", 1e-160, "joules > 0, or empty"),
        ("gpu_energy_std_j", -1.0, "a standard deviation is a number of joules ≥ 0, or empty"),
        ("gpu_energy_std_j", float("inf"), "joules ≥ 0, or empty"),
        ("gpu_energy_std_j", "0.5 J", "is not a number"),
        ("gpu_idle_energy_j", -1.0, "an idle share is a number of joules ≥ 0, or empty"),
        ("gpu_idle_energy_j", "n/a?", "is not a number"),
        ("time_to_first_token_s", -0.1, "a time to the first token is a number of seconds ≥ 0, or empty"),
        ("time_to_first_token_s", "12 ms", "is not a number"),
        ("batch_size", 0, "a number ≥ 1, or empty for one alone; correct it, or leave it out by --where$"),
        ("batch_size", -8, "a number ≥ 1, or empty"),
        ("batch_size", "big", "is not a number"),
        ("concurrency", 0, "a number ≥ 1, or empty"),
        ("concurrency", float("inf"), "a number ≥ 1, or empty"),
        ("simulated", "perhaps", "neither true nor false"),
    ],
)
def test_impossible_rows_are_named(column: str, value: Any, rule: str) -> None:
    with pytest.raises(FitError, match=rule) as caught:
        check_measurements(rows(**{column: value}))
    assert caught.value.field == column
    assert caught.value.value == ("empty" if value is None else value)
    assert "row 2" in caught.value.advice


def test_every_further_offender_is_counted() -> None:
    frame = rows(runtime_s=-1)
    frame.loc[2, "runtime_s"] = -2
    with pytest.raises(FitError, match=r"runtime_s = -1: row 2 \(and 1 more\)"):
        check_measurements(frame)


def test_an_empty_energy_stays_empty() -> None:
    assert check_measurements(rows(gpu_energy_j=None))["gpu_energy_j"].isna().tolist() == [False, True, False]


def test_what_says_how_sure_or_how_many_may_be_empty_and_a_deviation_zero() -> None:
    frame = rows().assign(gpu_energy_std_j=[0, None, 0.5], batch_size=["1", None, "8"], concurrency=None)
    checked = check_measurements(frame)
    assert checked["gpu_energy_std_j"].fillna(-1).tolist() == [0, -1, 0.5]
    assert checked["batch_size"].fillna(-1).tolist() == [1, -1, 8]
    assert checked["concurrency"].isna().all()


def test_a_deviation_is_asked_for_where_its_energy_is() -> None:
    frame = rows(cpu_energy_j=30.0, cpu_energy_std_j=-1.0)
    check_measurements(frame, "gpu")
    with pytest.raises(FitError, match=r"cpu_energy_std_j = -1\.0: row 2"):
        check_measurements(frame, "gpu+cpu")


@pytest.mark.parametrize("column", ["model_name", "input_tokens", "output_tokens", "runtime_s", "gpu_energy_j"])
def test_required_columns(column: str) -> None:
    with pytest.raises(FitError, match=f"column = {column}: is missing"):
        check_measurements(rows().drop(columns=column))


def test_nothing_to_fit() -> None:
    with pytest.raises(FitError, match="nothing to fit"):
        check_measurements(rows().iloc[:0])


def test_unknown_boundary() -> None:
    with pytest.raises(InputError, match="--boundary = wall: unknown; use one of gpu, cpu"):
        check_measurements(rows(), "wall")


@pytest.mark.parametrize(
    ("written", "read"), [([True, False, True], [True, False, True]), ([1, 0, None], [True, False, False])]
)
def test_simulated_is_read_as_files_write_it(written: list[Any], read: list[bool]) -> None:
    assert check_measurements(rows().assign(simulated=written))["simulated"].tolist() == read


def test_without_word_of_it_rows_are_real() -> None:
    assert check_measurements(rows())["simulated"].tolist() == [False] * 3


def write(path: Path, *lines: str) -> str:
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return str(path)


def test_sources_are_joined_and_rows_keep_their_place(tmp_path: Path) -> None:
    first = write(tmp_path / "one.csv", "a,8,8,1.0,10")
    second = write(tmp_path / "two.csv", "a,8,8,1.0,10", "a,8,nine,1.0,10")
    frame = load_measurements([first, second])
    assert list(frame.index) == [(first, 1), (second, 1), (second, 2)]
    with pytest.raises(FitError, match=f"output_tokens = nine: row 2 of {second}"):
        check_measurements(frame)


def test_where_leaves_the_bad_row_out(tmp_path: Path) -> None:
    source = write(tmp_path / "one.csv", "a,8,8,1.0,10", "load,,,30.0,900")
    assert len(check_measurements(load_measurements([source], where="model_name != 'load'"))) == 1
    with pytest.raises(FitError, match="no row satisfies it"):
        load_measurements([source], where="model_name == 'b'")


def test_globs_find_each_file_once(tmp_path: Path) -> None:
    first = write(tmp_path / "run-1.csv", "a,8,8,1.0,10")
    write(tmp_path / "run-2.csv", "a,8,8,1.0,10")
    assert len(load_measurements([str(tmp_path / "run-*.csv"), first])) == 2
    with pytest.raises(InputError, match="no file matches"):
        load_measurements([str(tmp_path / "none-*.csv")])


def test_a_file_may_have_a_pattern_for_a_name(tmp_path: Path) -> None:
    source = write(tmp_path / "run[1].csv", "a,8,8,1.0,10")
    assert len(load_measurements([source])) == 1


def test_all_formats_read_alike(tmp_path: Path) -> None:
    source = write(tmp_path / "one.csv", "a,8,8,1.0,10", "a,16,8,1.0,")
    frame = pd.read_csv(source)
    frame.to_parquet(tmp_path / "one.parquet")
    frame.to_json(tmp_path / "one.jsonl", orient="records", lines=True)
    for name in ("one.parquet", "one.jsonl"):
        read = check_measurements(load_measurements([str(tmp_path / name)]))
        expected = check_measurements(load_measurements([source]))
        pd.testing.assert_frame_equal(read.reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False)


def test_one_source_needs_no_list(tmp_path: Path) -> None:
    source = write(tmp_path / "one.csv", "a,8,8,1.0,10")
    for given in (source, Path(source), [Path(source)]):
        assert len(load_measurements(given)) == 1


@pytest.mark.parametrize(
    ("column", "dtype"), [("input_tokens", "Int64"), ("runtime_s", "Float64"), ("model_name", "string")]
)
def test_what_pandas_calls_absent_is_empty_too(column: str, dtype: str, tmp_path: Path) -> None:
    frame = rows().convert_dtypes()
    frame.loc[1, column] = pd.NA
    assert frame[column].dtype == dtype
    frame.to_parquet(tmp_path / "nullable.parquet")
    read = load_measurements(tmp_path / "nullable.parquet")
    assert any(f"{column} empty" in str(finding) or column == "model_name" for finding in screen(read).findings)
    with pytest.raises(FitError, match=rf"^{column} = empty: row 2 of "):
        check_measurements(read)


def test_foreign_headers_are_renamed(tmp_path: Path) -> None:
    path = tmp_path / "foreign.csv"
    path.write_text("LLM,in,out,seconds,joules\na,8,8,1.0,10\n")
    columns = {
        "model_name": "LLM",
        "input_tokens": "in",
        "output_tokens": "out",
        "runtime_s": "seconds",
        "energy_j": "joules",
    }
    assert check_measurements(load_measurements([str(path)], columns=columns))["energy_j"].tolist() == [10.0]
    with pytest.raises(InputError, match="lacks this column"):
        load_measurements([str(path)])


def test_further_suffixes_are_read_by_their_reader(tmp_path: Path) -> None:
    store = tmp_path / "spans.db"
    shutil.copy(write(tmp_path / "one.csv", "a,8,8,1.0,10"), store)
    assert len(load_measurements([str(store)], readers={".db": pd.read_csv})) == 1


def test_empty_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FitError, match="holds no rows"):
        load_measurements([write(tmp_path / "empty.csv")])
    with pytest.raises(InputError, match="give at least one"):
        load_measurements([])


def test_a_span_read_twice_is_refused(tmp_path: Path) -> None:
    for name in ("one.csv", "two.csv"):
        (tmp_path / name).write_text(f"span_id,{HEADER}\nabc,a,8,8,1.0,10\n")
    with pytest.raises(FitError, match=r"span_id = abc: row 1 of .*two\.csv repeats a span"):
        load_measurements([str(tmp_path / "one.csv"), str(tmp_path / "two.csv")])


def test_looking_for_spans_read_twice_takes_less_memory_than_their_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmpower.modelling.rows.measurements._AT_ONCE", 1024)
    n = 50_000
    pd.DataFrame(
        {
            "span_id": [f"{number:032x}" for number in range(n)],
            "model_name": "a",
            "input_tokens": 8,
            "output_tokens": 8,
            "runtime_s": 1.0,
        }
    ).to_parquet(tmp_path / "rows.parquet")
    tracemalloc.start()
    frame = load_measurements(tmp_path / "rows.parquet")
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert frame.index[-1] == (str(tmp_path / "rows.parquet"), n)
    assert most_bytes < 64 * n  # of which each takes 81 as an object
