"""From what the user writes to whole numbers of queries, and every request that cannot be met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.routing.problem.shares import Share, parse_shares, query_limits

ABC = ("a", "b", "c")


def limits(shares: dict[str, Share], n_queries: int) -> list[tuple[int, int]]:
    low, high = query_limits(shares, ABC, n_queries)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def test_what_is_written() -> None:
    assert parse_shares(["a=0.2", "b=0.1:0.5", "org/llama=x:7b=1"]) == {"a": 0.2, "b": (0.1, 0.5), "org/llama=x:7b": 1}


@pytest.mark.parametrize("text", ["a", "a=", "=0.5", "a=x", "a=0.1:0.2:0.3", "a=0.1:"])
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(InputError, match=r"write MODEL=F or MODEL=LOW:HIGH"):
        parse_shares([text])


def test_a_model_has_one_share() -> None:
    with pytest.raises(InputError, match="a has a share already"):
        parse_shares(["a=0.5", "a=0.6"])


@pytest.mark.parametrize(
    ("shares", "n_queries", "expected"),
    [
        ({}, 7, [(0, 7)] * 3),
        ({"a": 0.05, "b": 0.2, "c": 0.75}, 19366, [(968, 968), (3873, 3873), (14525, 14525)]),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, 100, [(34, 34), (33, 33), (33, 33)]),
        ({"a": 0.29}, 100, [(29, 29), (0, 100), (0, 100)]),  # 0.29 * 100 < 29 in floating point
        ({"a": 0.5}, 3, [(2, 2), (0, 3), (0, 3)]),
        ({"a": (0.5, 0.5)}, 2, [(1, 1), (0, 2), (0, 2)]),
        ({"a": (0.15, 0.85)}, 10, [(2, 8), (0, 10), (0, 10)]),
        ({"a": (0.3, 0.7), "b": 0.3}, 10, [(3, 7), (3, 3), (0, 10)]),
        ({"a": 0, "b": 1}, 5, [(0, 0), (5, 5), (0, 5)]),
    ],
)
def test_whole_numbers(shares: dict[str, Share], n_queries: int, expected: list[tuple[int, int]]) -> None:
    assert limits(shares, n_queries) == expected


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any), st.integers(1, 10**6))
def test_exact_shares_are_nearer_than_one_query(weights: list[int], n_queries: int) -> None:
    shares: dict[str, Share] = {name: weight / sum(weights) for name, weight in zip(ABC, weights, strict=True)}
    low, high = query_limits(shares, ABC, n_queries)
    assert low.tolist() == high.tolist()
    assert low.sum() == n_queries
    for queries, weight in zip(low.tolist(), weights, strict=True):
        assert abs(queries - weight / sum(weights) * n_queries) < 1 + 1e-6


@pytest.mark.parametrize(
    ("shares", "n_queries", "complaint"),
    [
        ({"a": 0.05, "b": 0.2, "c": 0.7}, 100, "--share = a sum of 0.95: every model has a share"),
        ({"a": 0.5, "b": 0.6}, 100, "--share = a sum of 1.1: shares cannot sum to more than 1"),
        ({"a": (0.5, 0.9), "b": 0.6}, 100, "--share = a sum of at least 1.1: "),
        ({"a": (0.1, 0.2), "b": (0.1, 0.2), "c": 0.3}, 100, "--share = a sum of at most 0.7: "),
        ({"a": (0.4, 0.45)}, 2, "--share = a=0.4:0.45: no whole number of 2 queries"),
        ({"a": (0.3, 0.35), "b": (0.3, 0.35), "c": (0.3, 0.35)}, 19, "--share = 18 to 18 queries: whole numbers"),
    ],
)
def test_what_cannot_be_met(shares: dict[str, Share], n_queries: int, complaint: str) -> None:
    with pytest.raises(InfeasibleError) as caught:
        limits(shares, n_queries)
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    "share", [-0.1, 1.1, float("nan"), (0.5, 0.4), (0.5, float("inf")), None, "half", (), (0.1, 0.2, 0.3)]
)
def test_what_is_no_share(share: Share) -> None:
    with pytest.raises(InputError, match="shares are fractions from 0 to 1"):
        limits({"a": share}, 10)


def test_an_unknown_model_is_named_beside_the_known() -> None:
    with pytest.raises(InputError, match="--share = d: is not among the models that queries are routed to: a, b, c"):
        limits({"d": 0.1}, 10)
