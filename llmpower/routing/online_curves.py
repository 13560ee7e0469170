"""What queries are expected to cost, ready before they come: a curve over τin a bucket, model and label.

A law of τout holds for a bucket of τin, 2.2 % wide, so what its queries are expected to cost depends on τin alone,

    c_K(τin) = E[c_K(τin, τout) | bucket] ≈ a + d·(b + d·c),    d = τin − (the bucket's lower end)

through its values at both ends and the middle. Every form without a kink is a polynomial of the second degree at most
in τin, and then the curve is exact; with one, the bucket is too narrow for it to matter. A decision takes a product and
a sum a model, where evaluating forms at both points of a law takes ten times as long.

Curves are made when an answer has come, as nobody waits for that: of its own bucket, and of one that was asked for and
is not there yet, or else of the one that was made longest ago, if that is too long ago. Until then the old one does.
Where all lengths are known beforehand, none is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llmpower.routing.lengths import STALE, WIDTHS, OutputLengthLearner, bucket
from llmpower.routing.online_costs import QueryCosts

OLD = 4 * STALE
"""Answers after which a curve is made anew though none of them was of its bucket."""

MOST_CURVES = 4096
"""Buckets and labels beyond these are computed when they are asked for."""

Key = tuple[str | None, int]


class _Curve(NamedTuple):
    """The bucket's lower end, (a, b, c) of each model, a τin of the bucket, and how many answers there had been."""

    start: float
    models: list[tuple[float, float, float]]
    input_tokens: int
    answers: int


class ExpectedCosts:
    """Costs of queries whose answers are not known, by what ``lengths`` has learnt; not thread-safe, its router is."""

    def __init__(self, costs: QueryCosts, lengths: OutputLengthLearner) -> None:
        self._costs, self._lengths = costs, lengths
        self._curves: dict[Key, _Curve] = {}  # the one that was made longest ago comes first
        self._wanted: dict[Key, int] = {}
        self._answers, self._asked = 0, False

    def of(self, input_tokens: int, query_class: str | None) -> list[float]:
        """c_K of a query; about a microsecond where there is a curve."""
        key, self._asked = (query_class, bucket(input_tokens)), True
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) + len(self._wanted) < MOST_CURVES:
                self._wanted[key] = input_tokens
            return self._costs.of(input_tokens, self._lengths.law(input_tokens, query_class), query_class)
        d = input_tokens - curve.start
        return [a + d * (b + d * c) for a, b, c in curve.models]

    def learnt(self, input_tokens: int, query_class: str | None) -> None:
        """Make what an answer to such a query calls for."""
        self._answers += 1
        number = bucket(input_tokens)
        for key in {(None, number), (query_class, number)}:
            if key in self._curves or (self._asked and key[0] == query_class and len(self._curves) < MOST_CURVES):
                self._make(key, input_tokens)
        if self._wanted:
            self._make(*self._wanted.popitem())
        elif self._curves:
            key, curve = next(iter(self._curves.items()))
            if self._answers - curve.answers >= OLD:
                self._make(key, curve.input_tokens)

    def prepare(self, queries: Iterable[tuple[int, str | None]]) -> None:
        """Make the curves of such queries, by τin and label."""
        self._asked = True
        for key, input_tokens in {(label, bucket(τin)): τin for τin, label in queries}.items():
            if len(self._curves) < MOST_CURVES:
                self._make(key, input_tokens)

    def forget(self) -> None:
        """Begin anew: all lengths have changed."""
        self._curves.clear()
        self._wanted.clear()

    def _make(self, key: Key, input_tokens: int) -> None:
        self._wanted.pop(key, None)
        query_class, number = key
        law = self._lengths.law(input_tokens, query_class)
        start, h, models = 0.0, 0.0, []
        if number < 0:  # the bucket of no input tokens
            models = [(cost, 0.0, 0.0) for cost in self._costs.of(0.0, law, query_class)]
        else:
            start, end = (2 ** (edge / WIDTHS[-1]) for edge in (number, number + 1))
            h = (end - start) / 2
            values = (self._costs.of(start + step * h, law, query_class) for step in range(3))
            for f0, f1, f2 in zip(*values, strict=True):
                c = (f2 - 2 * f1 + f0) / (2 * h * h)
                models.append((f0, (f1 - f0) / h - c * h, c))
        self._curves.pop(key, None)
        self._curves[key] = _Curve(start, models, input_tokens, self._answers)
