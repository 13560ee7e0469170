"""``--where``: choose rows by an expression over columns, and by nothing else.

pandas evaluates the expression, and pandas alone would let it reach Python variables, attributes and functions. A
filter copied from somewhere must not be able to do more than compare, so its syntax tree is checked first.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import InputError
from llmpower.places import first_line

if TYPE_CHECKING:
    import pandas as pd

ALLOWED = (
    *(ast.Expression, ast.Load, ast.Name, ast.Constant, ast.List, ast.Tuple),
    *(ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.UAdd, ast.USub, ast.Invert),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitAnd, ast.BitOr),
)
EXAMPLE = "\"batch_size == 1 and provenance == 'measured'\""


def select_rows(frame: pd.DataFrame, expression: str, option: str = "--where") -> pd.DataFrame:
    """The rows of ``frame`` for which ``expression`` holds.

    Raises:
        InputError: the expression does not parse, uses more than comparisons, arithmetic, ``and``/``or``/``not``,
            ``in``, columns and constants, names no column, or is not true or false per row.
    """
    import pandas as pd

    names = names_in(expression, option)
    for name in names:
        if name not in frame.columns:
            found = ", ".join(map(str, frame.columns))
            raise InputError(option, expression, f"{name} is not a column here; there are: {found}")
    try:
        chosen: object = frame.assign(**_values(frame[names])).eval(expression.strip(), engine="python")
    except Exception as error:  # pandas raises whatever the operands' types raise
        raise InputError(option, expression, f"cannot be evaluated ({first_line(error)}); try {EXAMPLE}") from error
    if not isinstance(chosen, pd.Series) or not pd.api.types.is_bool_dtype(chosen.dtype):
        raise InputError(option, expression, f"is not true or false for each row; write a condition such as {EXAMPLE}")
    # A condition on an empty cell is unknown under nullable types; as in SQL, unknown is not true.
    return frame[chosen.fillna(False).to_numpy(dtype=bool)]


def _values(frame: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    """The columns that are categories, as what they stand for: a data set's words are, and have no order else."""
    return {
        str(name): column.astype(column.cat.categories.dtype)
        for name, column in frame.items()
        if column.dtype == "category" and not column.cat.ordered
    }


def names_in(expression: str, option: str = "--where") -> list[str]:
    """The columns that an expression uses.

    Raises:
        InputError: it does not parse, or uses more than :func:`select_rows` allows.
    """
    if not isinstance(expression, str):
        raise InputError(option, type(expression).__name__, f"is not a condition in words; write one such as {EXAMPLE}")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        advice = f"does not parse; write a condition on columns such as {EXAMPLE}"
        raise InputError(option, expression, advice) from error
    for node in ast.walk(tree):
        if not isinstance(node, ALLOWED):
            advice = f"{type(node).__name__} is not allowed; compare columns with constants, such as {EXAMPLE}"
            raise InputError(option, expression, advice)
    return list(dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))
