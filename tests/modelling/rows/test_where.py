"""``--where`` compares columns, and can do nothing else."""

from __future__ import annotations

import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling.rows.where import select_rows

FRAME = pd.DataFrame(
    {
        "model_name": ["a", "b", "c", "a"],
        "input_tokens": [8, 16, 32, 64],
        "gpu_energy_j": [1.0, None, 3.0, 4.0],
        "allocated": [True, False, False, True],
    }
)


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("model_name == 'a'", [0, 3]),
        ("model_name in ['b', 'c']", [1, 2]),
        ("model_name not in ['b', 'c'] and input_tokens > 8", [3]),
        ("8 < input_tokens <= 32", [1, 2]),
        ("input_tokens * 2 + 1 > 33 or model_name == 'a'", [0, 2, 3]),
        ("not allocated", [1, 2]),
        ("(input_tokens == 8) | (input_tokens == 64)", [0, 3]),
        ("gpu_energy_j > 2", [2, 3]),
        (" input_tokens % 16 == 0 ", [1, 2, 3]),
    ],
)
def test_conditions(expression: str, chosen: list[int]) -> None:
    assert list(select_rows(FRAME, expression).index) == chosen


def test_words_are_in_order_as_categories_too() -> None:
    """As a data set's are, whose dates are names of directories."""
    words = pd.Series(["2026-01-31", "2025-12-31", None, "2026-02-01"])
    for column in (words, words.astype("category")):
        frame = FRAME.assign(date=column)
        assert list(select_rows(frame, "date >= '2026-01-01' and model_name != 'b'").index) == [0, 3]
        assert list(select_rows(frame, "date == '2025-12-31'").index) == [1]
    size = pd.Categorical(["small", "large", "small", "large"], ["small", "large"], ordered=True)
    assert list(select_rows(FRAME.assign(size=size), "size > 'small'").index) == [1, 3]


def test_an_unknown_comparison_is_not_true() -> None:
    nullable = FRAME.convert_dtypes()
    assert list(select_rows(nullable, "gpu_energy_j > 2").index) == [2, 3]
    assert list(select_rows(nullable, "gpu_energy_j <= 2").index) == [0]


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("__import__('os').system('true')", "Call is not allowed"),
        ("input_tokens.__class__ == 1", "Attribute is not allowed"),
        ("model_name.str.contains('a')", "Call is not allowed"),
        ("input_tokens[0] == 8", "Subscript is not allowed"),
        ("@FRAME == 1", "does not parse"),
        ("input_tokens @ input_tokens == 1", "MatMult is not allowed"),
        ("10 ** 10 ** 10 > input_tokens", "Pow is not allowed"),
        ("[x for x in input_tokens]", "is not allowed"),
        ("(input_tokens := 8) == 8", "NamedExpr is not allowed"),
        ("f'{input_tokens}' == '8'", "JoinedStr is not allowed"),
        ("input_tokens = 8", "does not parse"),
        ("input_tokens ==", "does not parse"),
        ("", "does not parse"),
        ("\0", "does not parse"),
        ("not " * 100_000 + "allocated", "does not parse"),
        ("`input tokens` == 8", "does not parse"),
        ("tokens == 8", "tokens is not a column here; there are: model_name, input_tokens"),
        ("model_name > 3", "cannot be evaluated"),
        ("input_tokens + 1", "is not true or false"),
        ("1 == 1", "is not true or false"),
    ],
)
def test_refusals(expression: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        select_rows(FRAME, expression)
    assert caught.value.field == "--where"
    assert caught.value.value == expression
