"""accuracy.csv: what is read, what is refused, and the two ways to weigh a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmpower.exceptions import InputError
from llmpower.routing.accuracy import AccuracyTable, query_accuracy, read_accuracy


def test_the_published_file(leaderboard: AccuracyTable) -> None:
    assert len(leaderboard.accuracy) == 7
    assert leaderboard.accuracy["Llama-2-70B"] == 0.6452
    assert leaderboard.shares == {"Llama-2-7B": 0.05, "Llama-2-13B": 0.2, "Llama-2-70B": 0.75}


def test_shares_are_optional(tmp_path: Path) -> None:
    path = tmp_path / "accuracy.csv"
    path.write_text("accuracy,model_name\n0,a\n1,b\n")
    assert read_accuracy(path) == AccuracyTable({"a": 0.0, "b": 1.0}, {})


def test_weightings() -> None:
    accuracy, tokens = np.array([0.5, 0.6]), np.array([10, 100])
    assert query_accuracy(accuracy, tokens, "tokens").tolist() == [[5, 6], [50, 60]]
    assert query_accuracy(accuracy, tokens, "queries").tolist() == [[0.5, 0.6]] * 2


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
    ],
)
def test_refusals(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "accuracy.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_accuracy(path)
    assert str(caught.value).startswith(complaint)
