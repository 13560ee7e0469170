"""Lengths of queries as programs say them, checked before a router learns from them: one NaN would stay for good.

NumPy's numbers and whole floats count too, as tables with gaps have no others. What is a Python number already, as
nearly all are, costs some hundredths of a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterable

from llmpower.exceptions import InputError
from llmpower.routing.problem.workload import TOKENS_END
from llmpower.tables import number_of

Query = tuple[int, float | None, str | None, float | None]
"""τin, τout where it was known before the answer came, the application's label, and when it came, where that is known.
"""


def count(field: str, value: float) -> int:
    """A whole number of tokens.

    Raises:
        InputError: it is none.
    """
    if type(value) is int and 0 <= value < TOKENS_END:
        return value
    number = length(field, value)
    if number != int(number):
        raise InputError(field, value, "tokens are counted in whole numbers; give one")
    return int(number)


def length(field: str, value: float) -> float:
    """A length in tokens that may be an estimate.

    Raises:
        InputError: it is none.
    """
    if type(value) in (int, float) and 0 <= value < TOKENS_END:
        return value
    number = number_of(value)
    if not 0 <= number < TOKENS_END:
        raise InputError(field, value, f"a query has from 0 to {TOKENS_END - 1} tokens; leave out what is not known")
    return number


def check_label(query_class: str) -> None:
    """Refuse an application's label that a saved state could not hold.

    Raises:
        InputError: it is not text.
    """
    if not isinstance(query_class, str):
        raise InputError("query_class", query_class, "is an application's label; give a text")


def queries_of(
    input_tokens: Iterable[int],
    output_tokens: Iterable[int],
    classes: str | Iterable[str | None] | None,
    times_s: Iterable[float | None] | None,
) -> list[tuple[int, int, str | None, float | None]]:
    """τin, τout, label and time of each query; one label may be that of all.

    Raises:
        InputError: a length is none, a label no text, or there is not one of each for each query.
    """
    lengths_in = [count("input_tokens", tokens) for tokens in input_tokens]
    lengths_out = [count("output_tokens", tokens) for tokens in output_tokens]
    n = len(lengths_in)
    labels = [classes] * n if classes is None or isinstance(classes, str) else list(classes)
    times = [None] * n if times_s is None else list(times_s)
    for field, found in (("output_tokens", lengths_out), ("classes", labels), ("times_s", times)):
        if len(found) != n:
            raise InputError(
                field, f"{len(found)} values", f"there are {n} input_tokens; give one of each for each query"
            )
    for label in labels:
        if label is not None:
            check_label(label)
    return list(zip(lengths_in, lengths_out, labels, times, strict=True))
