"""How long an answer will be, before it is: the law of τout given τin and the application that asks.

What a query costs is smooth in τout, so a decision needs no more of its law than a few moments. They are kept for
buckets of τin of three widths, 2, 8 and 32 to the octave, over all queries and for each application label; each cell
leans on the next wider one with the weight of :data:`PRIOR` answers, so a bucket that has seen little says what its
neighbours say. Answers are forgotten with a half-life, and the law follows what applications do.

The law is represented by Gauss's two-point rule: lengths x₁, x₂ and weights w₁, w₂ with the same first three moments,

    E[f(τout)] = w₁·f(x₁) + w₂·f(x₂)     exactly for every polynomial f up to τout³

(Golub and Welsch, "Calculation of Gauss quadrature rules", 1969, for two points in closed form), which all forms
without a kink are. With mean μ, standard deviation σ and skewness γ,

    x₁,₂ = μ + σ·(γ/2 ∓ √(1 + γ²/4)),    w₁ = ½ + γ/4 / √(1 + γ²/4),    w₂ = 1 − w₁

and both points lie within the lengths that were seen. Plain floats throughout: a decision has microseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from math import log2, sqrt
from typing import NamedTuple, Protocol

# Buckets to the octave, widest first. On the Azure conversations 1 to the octave explains 48 % of the variance of τout
# in time order, 2 60 %, 8 73 %, and all three together 74 %.
WIDTHS = (2, 8, 32)
PRIOR = 5.0
"""Answers that the next wider cell counts as."""

HALF_LIFE = 200.0
"""Answers of a cell after which an earlier one counts half. One of 50 to 300 does as well on those conversations."""

STALE = 256
"""A law is rebuilt when an answer of its own narrowest cell comes, or this many of any."""

MOST_LABELS = 1000
"""Labels beyond these count as none: what clients send must not fill the memory."""


class Law(NamedTuple):
    """Two lengths [tokens] and their weights, which sum to 1; ``mean`` is Σ w·x."""

    mean: float
    x1: float
    w1: float
    x2: float
    w2: float


class Moments(NamedTuple):
    """What is known beforehand: ``queries`` answers of mean τout, τout² and τout³ as given."""

    queries: float
    mean: float
    mean_square: float
    mean_cube: float


class LengthEntry(Protocol):
    """A row of the moments that a policy carries: :class:`llmpower.routing.policies.policy.OutputLengths`."""

    @property
    def query_class(self) -> str | None: ...  # noqa: D102 (the policy documents it)
    @property
    def input_from(self) -> int: ...  # noqa: D102
    @property
    def queries(self) -> int: ...  # noqa: D102
    @property
    def mean(self) -> float: ...  # noqa: D102
    @property
    def mean_square(self) -> float: ...  # noqa: D102
    @property
    def mean_cube(self) -> float: ...  # noqa: D102


def exactly(output_tokens: float) -> Law:
    """The law of an answer whose length is known."""
    return Law(output_tokens, output_tokens, 1.0, output_tokens, 0.0)


def two_points(mean: float, mean_square: float, mean_cube: float) -> Law:
    """Gauss's rule of two points with these moments of a positive length; one point where nothing varies."""
    μ, variance = mean, mean_square - mean * mean
    if variance <= 1e-9 * mean_square:
        return exactly(μ)
    σ = sqrt(variance)
    half_γ = (mean_cube - 3 * μ * mean_square + 2 * μ * μ * μ) / (2 * variance * σ)
    root = sqrt(1 + half_γ * half_γ)
    # Of positive lengths x₁ > 0 but for rounding.
    x1, x2, w1 = max(μ + σ * (half_γ - root), 0.0), μ + σ * (half_γ + root), 0.5 + half_γ / (2 * root)
    return Law(μ, x1, w1, x2, 1 - w1)


class OutputLengthLearner:
    """Laws of τout that follow the answers; not thread-safe, its router is.

    ``known`` are moments to begin with, by class and input length (those of a policy), ``otherwise`` those of a query
    of which nothing is known at all.
    """

    def __init__(self, known: Iterable[LengthEntry], otherwise: Moments) -> None:
        self._otherwise = otherwise
        self._known: dict[str | None, tuple[list[int], list[Moments]]] = {}
        for entry in sorted(known, key=lambda entry: entry.input_from):
            starts, moments = self._known.setdefault(entry.query_class, ([], []))
            starts.append(entry.input_from)
            moments.append(Moments(entry.queries, entry.mean, entry.mean_square, entry.mean_cube))
        # [n, Σ τout, Σ τout², Σ τout³], faded, by (label, buckets to the octave, bucket); of no label are all.
        self._cells: dict[tuple[str | None, int, int], list[float]] = {}
        self._laws: dict[tuple[str | None, int], tuple[Law, int]] = {}
        self._labels: set[str | None] = {None}
        self._answers = 0

    def law(self, input_tokens: int, query_class: str | None = None) -> Law:
        """The law of τout for a query; in a microsecond, unless its bucket has changed."""
        key = (self._told_apart(query_class), bucket(input_tokens))
        found = self._laws.get(key)
        if found is not None and self._answers - found[1] < STALE:
            return found[0]
        law = self._make_law(input_tokens, query_class)
        self._laws[key] = (law, self._answers)
        return law

    def observe(self, input_tokens: int, output_tokens: int, query_class: str | None = None) -> None:
        """Learn from an answer."""
        self._answers += 1
        if query_class not in self._labels and len(self._labels) < MOST_LABELS:
            self._labels.add(query_class)
        fading = 0.5 ** (1 / HALF_LIFE)
        τ = float(output_tokens)
        for key in self._keys(input_tokens, query_class):
            cell = self._cells.get(key)
            if cell is None:
                self._cells[key] = [1.0, τ, τ * τ, τ * τ * τ]
                continue
            n, first, second, third = cell
            cell[:] = n * fading + 1, first * fading + τ, second * fading + τ * τ, third * fading + τ * τ * τ
        for label in {None, self._told_apart(query_class)}:
            self._laws.pop((label, bucket(input_tokens)), None)
        self.law(input_tokens, query_class)  # made here, where nobody waits for it

    def state(self) -> list[tuple[str | None, int, int, float, float, float, float]]:
        """The cells, for :meth:`restore`."""
        return [(*key, *cell) for key, cell in self._cells.items()]  # type: ignore[misc]  # a cell has four numbers

    def restore(self, state: Iterable[tuple[str | None, int, int, float, float, float, float]]) -> None:
        """Go on from where another learner was."""
        self._laws.clear()
        self._cells = {(label, width, bucket): list(cell) for label, width, bucket, *cell in state}
        self._labels = {None, *(label for label, _, _ in self._cells)}

    def _told_apart(self, query_class: str | None) -> str | None:
        """The label, or none where it is one of those that count as none."""
        return query_class if query_class in self._labels or query_class in self._known else None

    def _make_law(self, input_tokens: int, query_class: str | None) -> Law:
        _, first, second, third = self._beforehand(input_tokens, query_class)
        for key in self._keys(input_tokens, query_class):
            cell = self._cells.get(key)
            if cell is not None:
                n = cell[0] + PRIOR
                first = (cell[1] + PRIOR * first) / n
                second = (cell[2] + PRIOR * second) / n
                third = (cell[3] + PRIOR * third) / n
        return two_points(first, second, third)

    def _beforehand(self, input_tokens: int, query_class: str | None) -> Moments:
        known = self._known.get(query_class) or self._known.get(None)
        if known is None:
            return self._otherwise
        starts, moments = known
        return moments[max(bisect_right(starts, input_tokens) - 1, 0)]

    def _keys(self, input_tokens: int, query_class: str | None) -> list[tuple[str | None, int, int]]:
        """A query's cells, widest first and those of its label last."""
        narrowest = bucket(input_tokens)
        # Moments that were known beforehand tell inputs apart; the mean of all answers would tell less.
        keys: list[tuple[str | None, int, int]] = [] if self._known else [(None, 0, 0)]
        keys += [(None, width, narrowest * width // WIDTHS[-1]) for width in WIDTHS]
        if query_class is not None and query_class in self._labels:
            keys.append((query_class, 0, 0))
            keys += [(query_class, width, narrowest * width // WIDTHS[-1]) for width in WIDTHS]
        return keys


def bucket(input_tokens: int) -> int:
    """The narrowest bucket of τin; queries without input tokens have one of their own."""
    return int(WIDTHS[-1] * log2(input_tokens)) if input_tokens > 0 else -1
