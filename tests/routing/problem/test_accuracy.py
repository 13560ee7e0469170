"""accuracy.csv: what is read, what is refused, and what holds for a class of queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing.problem.accuracy import AccuracyTable, accuracies, read_accuracy
from llmpower.routing.problem.choices import Choice


def test_the_published_file(leaderboard: AccuracyTable) -> None:
    assert len(leaderboard.accuracy) == 7
    assert leaderboard.accuracy["Llama-2-70B"] == 0.6452
    assert leaderboard.num_gpus["Llama-2-70B"] == 4
    assert leaderboard.shares == {"Llama-2-7B": 0.05, "Llama-2-13B": 0.2, "Llama-2-70B": 0.75}


def test_shares_are_optional(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.csv"
    path.write_text("accuracy,model_name\n0,a\n1,b\n")
    assert read_accuracy(str(path)) == read_accuracy(path) == AccuracyTable({"a": 0.0, "b": 1.0}, {})


CLASSES = """model_name,query_class,accuracy,num_gpus
a,,0.5,1
a,code,0.9,1
b,chat,0.7,4
b,code,0.6,
"""


def test_accuracies_by_class(tmp_path: Path, models: list[WorkloadModel]) -> None:
    path = tmp_path / "accuracy.csv"
    path.write_text(CLASSES)
    table = read_accuracy(path)
    assert table.accuracy == {"a": 0.5}
    assert table.by_class == {"a": {"code": 0.9}, "b": {"chat": 0.7, "code": 0.6}}
    assert table.num_gpus == {"a": 1, "b": 4}
    assert table.models == ("a", "b")
    choices = [Choice(name, replace(models[0], model_name=name)) for name in "ab"]
    assert accuracies(table, choices, ("chat", "code")).tolist() == [[0.5, 0.7], [0.9, 0.6]]
    with pytest.raises(InputError, match="--accuracy = b: has a fit but no accuracy for queries of class ''"):
        accuracies(table, choices, ("", "code"))


cells = st.text("ab.,0123456789-eE ", max_size=4) | st.sampled_from(["", "a", "0.5", "1", "nan", "inf", "1e400", '"'])


@given(
    columns=st.lists(st.sampled_from(["query_class", "share", "num_gpus", "other"]), unique=True),
    rows=st.lists(st.lists(cells, min_size=6, max_size=6), max_size=4),
)
def test_whatever_a_file_says_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, columns: list[str], rows: list[list[str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn-accuracy.csv"
    header = ["model_name", "accuracy", *columns]
    path.write_text("\n".join([",".join(header), *(",".join(row[: len(header)]) for row in rows)]) + "\n")
    try:
        table = read_accuracy(path)
    except InputError:
        return
    values = [
        *table.accuracy.values(),
        *table.shares.values(),
        *(a for of in table.by_class.values() for a in of.values()),
    ]
    assert all(0 <= value <= 1 for value in values)
    assert all(gpus >= 1 for gpus in table.num_gpus.values())
    assert table.models


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model_name,accuracy\n", "--accuracy = "),
        ("model_name,accuracy\na,0.5\na,0.6\n", "model_name = a: row 2 of "),
        ("model_name,accuracy\na,0.5\n,0.6\n", "model_name = empty: row 2 of "),
        ("model_name,accuracy\na,50.97\n", "accuracy = 50.97: row 1 of "),
        ("model_name,accuracy\na,-0.1\n", "accuracy = -0.1: row 1 of "),
        ("model_name,accuracy\na,\n", "accuracy = empty: row 1 of "),
        ("model_name,accuracy\na,good\n", "accuracy = good: row 1 of "),
        ("model_name,accuracy,share\na,0.5,1.2\n", "share = 1.2: row 1 of "),
        ("model_name\na\n", "column = accuracy: "),
        ("model_name,query_class,accuracy\na,x,0.5\na,x,0.6\n", "model_name = a: row 2 of "),
        ("model_name,accuracy,num_gpus\na,0.5,0\n", "num_gpus = 0: row 1 of "),
        ("model_name,accuracy,num_gpus\na,0.5,1.5\n", "num_gpus = 1.5: row 1 of "),
        ("model_name,query_class,accuracy,share\na,x,0.5,0.1\na,y,0.5,0.2\n", "share = 0.2: row 2 of "),
    ],
)
def test_refusals(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "accuracy.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_accuracy(path)
    assert str(caught.value).startswith(complaint)
