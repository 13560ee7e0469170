from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.files import replacing, write_text
from llmpower.tables import (
    FORMATS,
    STREAMED,
    parse_columns,
    read_records,
    read_table,
    shown_cell,
    write_rows,
    write_table,
)

FRAME = pd.DataFrame({"model_name": ["None", "b"], "input_tokens": [1, 2], "gpu_energy_j": [1.5, None]})


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_is_read_again(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{suffix}"
    write_table(FRAME, path)
    pd.testing.assert_frame_equal(read_table(path), FRAME, check_dtype=False)


@pytest.mark.parametrize("suffix", STREAMED)
def test_rows_are_written_as_a_frame_of_them_would_be(suffix: str, tmp_path: Path) -> None:
    rows = [("None", 1, 1.5, True), ('b, "c"\nd', 2, None, False), ("é/", 3, 1 / 3, True)]
    header = ("model_name", "input_tokens", "gpu_energy_j", "allocated")
    streamed, framed = tmp_path / f"rows{suffix}", tmp_path / f"frame{suffix}"
    assert write_rows(header, iter(rows), streamed) == 3
    write_table(pd.DataFrame(rows, columns=list(header)), framed)
    if suffix == ".csv":
        assert streamed.read_bytes() == framed.read_bytes()
    pd.testing.assert_frame_equal(read_table(streamed), read_table(framed))
    assert write_rows(header, [], tmp_path / f"none{suffix}") == 0


def test_foreign_headers_are_renamed(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("ContextTokens,x\n3,4\n")
    frame = read_table(path, columns={"input_tokens": "ContextTokens"}, required=["input_tokens"])
    assert frame["input_tokens"].tolist() == [3]


def test_names_that_look_like_numbers_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("model,query_class,input_tokens\n007,true,3\n1e3,false,4\n,,5\n")
    frame = read_table(path, columns={"model_name": "model"})
    assert frame["model_name"].tolist()[:2] == ["007", "1e3"]
    assert frame["query_class"].tolist()[:2] == ["true", "false"]
    assert frame["model_name"].isna().tolist() == [False, False, True]
    assert frame["input_tokens"].tolist() == [3, 4, 5]
    path.write_text("model_name\n007\n")
    assert read_table(path)["model_name"].tolist() == [record["model_name"] for record in read_records(path)]


@pytest.mark.parametrize(
    ("name", "content", "columns", "said"),
    [
        ("absent.csv", None, {}, "no such file"),
        ("t.xlsx", "a\n1\n", {}, "'.xlsx' are not read"),
        ("t.csv", "", {}, "cannot be read as csv"),
        ("t.parquet", "not parquet", {}, "cannot be read as parquet"),
        ("t.jsonl", '{"input_tokens": 1}\n2\n', {}, r"cannot be read as jsonl \(a line is not a JSON object\)"),
        ("t.jsonl", "[1, 2]\n3\n", {}, "a line is not a JSON object"),
        ("t.csv", "a\n1\n", {"input_tokens": "b"}, "no such header; it has: a"),
        ("t.csv", "input_tokens,a\n1,2\n", {"input_tokens": "a"}, "has a column input_tokens already"),
        ("t.csv", "a\n1\n", {}, "lacks this column"),
        ("t.jsonl", "", {}, r"lacks this column \(it has: none\)"),
        ("t.csv", "input_tokens,input_tokens\n1,2\n", {}, "has this column twice"),
        ("t.csv", "\ninput_tokens,n,n\n1,2,3\n", {}, "column = n: .* has this column twice"),
        ("t.csv", "\ufeffinput_tokens,n,input_tokens\n1,2,3\n", {}, "column = input_tokens: .* has this column twice"),
        ("t.csv", "input_tokens;output_tokens\n1;2\n", {}, "separated by semicolons; save it with commas"),
        ("t.csv", "input_tokens\toutput_tokens\n1\t2\n", {}, "separated by tabs; save it with commas"),
        ("t.csv", "output_tokens, input_tokens\n1, 2\n", {}, r"it has: output_tokens, ' input_tokens'\)"),
    ],
)
def test_tables_that_cannot_be_used(
    name: str, content: str | None, columns: dict[str, str], said: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_table(path, columns=columns, required=["input_tokens"])


def test_names_of_no_column_and_names_as_pandas_makes_them_may_stay(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("n,n.1,,\n1,2,,\n")
    assert read_table(path)[["n", "n.1"]].to_numpy().tolist() == [[1, 2]]


@pytest.mark.parametrize("pairs", [["x=a", "x=b"], ["x=a", "y=a"]], ids=" ".join)
def test_column_options_of_which_one_would_not_count(pairs: list[str]) -> None:
    with pytest.raises(InputError, match=f"--column = {pairs[1]}: an earlier one has the same name or header"):
        parse_columns(pairs)


@pytest.mark.parametrize("pair", ["x", "=x", "x=", ""])
def test_column_options_that_name_nothing(pair: str) -> None:
    with pytest.raises(InputError, match="NAME=HEADER"):
        parse_columns([pair])


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_an_output_may_be_read_by_whom_any_new_file_may(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "out.csv") as temporary:
            # From the beginning: to set it later one would have to know the umask, which only who sets it is told.
            assert temporary.stat().st_mode & 0o777 == 0o666 & ~umask
            temporary.write_text("new")
        assert (tmp_path / "out.csv").stat().st_mode & 0o777 == 0o666 & ~umask
    finally:
        os.umask(before)


def test_a_file_takes_the_place_of_files_alone(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for name in ("pipe", "link", "."):
        with pytest.raises(InputError, match="is a directory, a device or a pipe"):
            write_text(tmp_path / name, "text")
    assert pipe.is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--out = "):
        write_text(tmp_path / "absent" / "x.txt", "text")
    with pytest.raises(InputError, match="cannot tell the format"):
        write_table(FRAME, tmp_path / "out.xlsx")


def test_a_cell_is_shown_as_it_is_or_as_empty() -> None:
    assert [shown_cell(cell) for cell in (None, float("nan"), pd.NA, pd.NaT)] == ["empty"] * 4
    assert [shown_cell(cell) for cell in (0, "", [None], {"a": 1})] == [0, "", [None], {"a": 1}]


def test_records_of_a_small_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeffname,value,note\na,0.5,\n\nb,nan\n", encoding="utf-8")
    assert read_records(path, required=("name",)) == [
        {"name": "a", "value": "0.5", "note": None},
        {"name": "b", "value": None, "note": None},
    ]
    (tmp_path / "a.jsonl").write_text('{"name": "a", "value": 0.5}\n{"name": "b", "value": null}\n')
    assert read_records(tmp_path / "a.jsonl") == [{"name": "a", "value": 0.5}, {"name": "b", "value": None}]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "cannot be read as csv (No columns to parse from file)"),
        (b"name,value\na,1,2\n", "cannot be read as csv (row 1 has more cells than the header)"),
        (b'name\n"a\n', "cannot be read as csv (unexpected end of data)"),
        (b"name\n\xff\n", "cannot be read as csv ("),
        (b"value\n1\n", "lacks this column (it has: value)"),
        (b"name,name\na,b\n", "has this column twice"),
        ("name\né\n".encode("latin-1"), "; save it as UTF-8"),
    ],
    ids=["empty", "ragged", "quote", "bytes", "missing", "twice", "latin"],
)
def test_records_that_cannot_be_read(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_records(path, required=("name",))
    assert complaint in str(caught.value)
