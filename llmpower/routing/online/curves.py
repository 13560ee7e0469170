"""What queries are expected to cost, ready before they come: a curve over τin a bucket, model and label.

A law of τout holds for a bucket of τin, 2.2 % wide, so the joules that its queries are expected to take depend on τin
alone,

    W_K·E[φ(τin, τout) | bucket] ≈ a + d·(b + d·c),    d = τin − (the bucket's lower end)

through its values at both ends and the middle; what a joule counts by the hour, and what the expected tokens are worth,
are taken in when a query comes. Every form without a kink is a polynomial of the second degree at most
in τin, and then the curve is exact; with one, the bucket is too narrow for it to matter. A decision takes a product and
one sum per model, where evaluating forms at both points of a law takes ten times as long.

Curves are made when an answer has come, as nobody waits for that: of its own bucket, and of one that was asked for and
is not there yet, or else of the one that was made longest ago, if that is too long ago. Until then the old one does.
Queries of the past prepare those of all buckets between the shortest of them and the longest. Where all lengths are
known beforehand, none is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, inf
from typing import NamedTuple

from llmpower.routing.online.costs import QueryCosts, cheapest
from llmpower.routing.policies.lengths import STALE, WIDTHS, OutputLengthLearner, bucket

OLD = 4 * STALE
"""Answers after which a curve is rebuilt though none of them was of its bucket."""

MOST_CURVES = 4096
"""Buckets and labels beyond these are computed when they are asked for."""

Key = tuple[str | None, int]


class _Curve(NamedTuple):
    """The bucket's lower end, (a, b, c, w) of each model, with w what a token is worth there, or a query, the mean of
    τout, a τin of the bucket, and how many answers there had been.
    """

    start: float
    models: list[tuple[float, float, float, float]]
    mean: float
    input_tokens: int
    answers: int


class ExpectedCosts:
    """Costs of queries whose answers are not known, by what ``lengths`` has learnt; not thread-safe, its router is."""

    def __init__(self, costs: QueryCosts, lengths: OutputLengthLearner) -> None:
        self._costs, self._lengths = costs, lengths
        self._curves: dict[Key, _Curve] = {}  # the one that was made longest ago comes first
        self._wanted: dict[Key, int] = {}
        self._answers, self._asked = 0, False

    def of(self, input_tokens: int, query_class: str | None, part: float = 1.0) -> list[float]:
        """c_K of a query, at ρ = ``part``."""
        key, self._asked = (query_class, bucket(input_tokens)), True
        curve = self._curves.get(key)
        if curve is None:
            if len(self._curves) + len(self._wanted) < MOST_CURVES:
                self._wanted[key] = input_tokens
            return self._costs.of(input_tokens, self._lengths.law(input_tokens, query_class), query_class, part)
        d, n = input_tokens - curve.start, self._costs.counted(input_tokens + curve.mean)
        return [part * (a + d * (b + d * c)) - w * n for a, b, c, w in curve.models]

    def cheapest(
        self,
        input_tokens: int,
        query_class: str | None,
        prices: Sequence[float],
        models: Sequence[int],
        part: float = 1.0,
    ) -> int:
        """:func:`~llmpower.routing.online.costs.cheapest` of :meth:`of`; in one go where there is a curve."""
        curve = self._curves.get((query_class, bucket(input_tokens)))
        if curve is None:
            return cheapest(self.of(input_tokens, query_class, part), prices, models)
        start, of_models, mean, _, _ = curve
        d, n, chosen, least = input_tokens - start, self._costs.counted(input_tokens + mean), models[0], inf
        for number in models:
            a, b, c, w = of_models[number]
            charged = part * (a + d * (b + d * c)) - w * n + prices[number]
            if charged < least:
                chosen, least = number, charged
        return chosen

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
        """Make the curves of such queries, by τin and label, and then those of the buckets between them."""
        self._asked = True
        asked = {(label, bucket(τin)): τin for τin, label in queries}
        for key, input_tokens in asked.items():
            if len(self._curves) < MOST_CURVES:
                self._make(key, input_tokens)
        ends: dict[str | None, tuple[int, int]] = {}
        for label, number in asked:
            low, high = ends.get(label, (number, number))
            ends[label] = min(low, number), max(high, number)
        for label, (low, high) in ends.items():
            for number in range(max(low, 0), high):
                lowest = ceil(_edge(number))
                # Low buckets are narrower than a token, and most are of none.
                if bucket(lowest) == number and (label, number) not in asked and len(self._curves) < MOST_CURVES // 2:
                    self._make((label, number), lowest)

    def forget(self) -> None:
        """Start over: all lengths have changed."""
        self._curves.clear()
        self._wanted.clear()

    def _make(self, key: Key, input_tokens: int) -> None:
        self._wanted.pop(key, None)
        query_class, number = key
        law = self._lengths.law(input_tokens, query_class)
        start, models = 0.0, []
        worths = self._costs.worths(query_class)
        if number < 0:  # the bucket of no input tokens
            models = [(e, 0.0, 0.0, w) for e, w in zip(self._costs.energy(0.0, law), worths, strict=True)]
        else:
            start, end = _edge(number), _edge(number + 1)
            h = (end - start) / 2
            values = (self._costs.energy(start + step * h, law) for step in range(3))
            for f0, f1, f2, w in zip(*values, worths, strict=True):
                c = (f2 - 2 * f1 + f0) / (2 * h * h)
                models.append((f0, (f1 - f0) / h - c * h, c, w))
        self._curves.pop(key, None)
        self._curves[key] = _Curve(start, models, law.mean, input_tokens, self._answers)


def _edge(number: int) -> float:
    """Where a bucket begins [tokens]."""
    return float(2 ** (number / WIDTHS[-1]))
