"""What a query is expected to cost on every model of a policy: one at a time in plain floats, samples in arrays.

With φ a form's terms and W_K = ζ/e_max·α_K,

    c_K = ρ·W_K·E[φ(τin, τout)] − (1−ζ)/a_max·A_K·E[τin + τout]     (without the last factor where queries count alike)

ρ is what a joule counts when the query comes: 1 but where rates differ by hour
(:mod:`llmpower.routing.policies.tariff`). φ belongs to the form and not to the model, so it is computed once for all
models of a form, at each of the two points of the law of τout; a form that only adds terms to another's serves the
models of both. Prices are not in here: they change.

A decision has microseconds, so a query's costs are products of tuples of floats whose length is known: Python adds up
``a*p + b*q`` three times as fast as any loop over it. C would be faster still, and worse: cffi lets go of the
interpreter for every call, and a thread that computes takes 5 ms to give it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from operator import mul
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from llmpower.modelling.forms import FloatArray, Form
from llmpower.routing.policies.lengths import Law
from llmpower.routing.policies.policy import PolicyModel, RoutingPolicy

Row = tuple[float, ...]
"""W_K in the order of φ, and what a token is worth on K."""


class _Group(NamedTuple):
    """The models whose fits have one form: their numbers, W_K of each, and how products of this many terms are summed.

    ``rows`` are by class of query, with ``None`` for every other.
    """

    form: Form
    models: tuple[int, ...]
    weights: tuple[Row, ...]
    rows: Mapping[str | None, tuple[Row, ...]]
    dot: Callable[[tuple[Row, ...], Sequence[float], float, float], list[float]]


def cheapest(costs: Sequence[float], prices: Sequence[float], models: Sequence[int]) -> int:
    """Of ``models``, by number, the one of least cost + price, the first of equals."""
    chosen, least = models[0], inf
    for number in models:
        charged = costs[number] + prices[number]
        if charged < least:
            chosen, least = number, charged
    return chosen


class QueryCosts:
    """The costs of a policy's models, in their order."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self._n_models = len(policy.models)
        self._by_tokens = policy.accuracy_weighting == "tokens"
        worth = (1 - policy.zeta) / (policy.scaling.accuracy_max or 1.0)
        classes = {None, *(name for model in policy.models for name in model.accuracy_by_class)}
        self._worths = {name: _worths(policy.models, worth, name) for name in classes}
        self._groups = _groups(policy, self._worths)
        # As a rule one form serves all models, and then there is nothing to put together.
        self._only = self._groups[0] if len(self._groups) == 1 else None

    def of(self, input_tokens: float, law: Law, query_class: str | None = None, part: float = 1.0) -> list[float]:
        """c_K of one query at ρ = ``part``; a few microseconds."""
        φs, counted = self._features(float(input_tokens), law), self.counted(input_tokens + law.mean)
        return self._summed(φs, counted, query_class, part)

    def energy(self, input_tokens: float, law: Law) -> list[float]:
        """Its first summand alone, at ρ = 1."""
        return self._summed(self._features(float(input_tokens), law), 0.0, None, 1.0)

    def known(
        self, input_tokens: float, output_tokens: float, query_class: str | None = None, part: float = 1.0
    ) -> list[float]:
        """The same where the length of the answer is known."""
        counted = input_tokens + output_tokens if self._by_tokens else 1.0
        if (only := self._only) is not None:
            form, _, _, rows, dot = only
            return dot(rows.get(query_class) or rows[None], form.features(input_tokens, output_tokens), counted, part)
        φs = [form.features(input_tokens, output_tokens) for form, *_ in self._groups]
        return self._summed(φs, counted, query_class, part)

    def worths(self, query_class: str | None) -> Sequence[float]:
        """(1−ζ)/a_max·A_K of each model: what a token of such a query is worth, or the query."""
        return self._worths.get(query_class) or self._worths[None]

    def counted(self, tokens: float) -> float:
        """What a query of this many tokens counts in an accuracy."""
        return tokens if self._by_tokens else 1.0

    def _features(self, τin: float, law: Law) -> list[Sequence[float]]:
        """E[φ] of each group's form."""
        _, x1, w1, x2, w2 = law
        if not w2:
            return [form.features(τin, x1) for form, *_ in self._groups]
        return [
            [w1 * a + w2 * b for a, b in zip(form.features(τin, x1), form.features(τin, x2), strict=True)]
            for form, *_ in self._groups
        ]

    def _summed(
        self, φs: Iterable[Sequence[float]], counted: float, query_class: str | None, part: float
    ) -> list[float]:
        """From φ of each group's form."""
        costs: list[float] = []
        for φ, (_, models, _, rows, dot) in zip(φs, self._groups, strict=True):
            found = dot(rows.get(query_class) or rows[None], φ, counted, part)
            if len(models) == self._n_models:
                return found
            costs = costs or [0.0] * self._n_models
            for number, cost in zip(models, found, strict=True):
                costs[number] = cost
        return costs

    def sample(
        self,
        input_tokens: Sequence[int],
        laws: Sequence[Law],
        classes: Sequence[str | None],
        parts: ArrayLike = 1.0,
    ) -> FloatArray:
        """The same of many queries, shape (n_queries, n_models); ``parts`` is one or (n_queries,)."""
        τin, points = np.asarray(input_tokens, np.float64), np.array(laws, np.float64).reshape(-1, 5)
        mean, x1, w1, x2, w2 = points.T
        costs = np.zeros((len(τin), self._n_models))
        for form, models, weights, *_ in self._groups:
            φ = w1[:, np.newaxis] * form.design(τin, x1) + w2[:, np.newaxis] * form.design(τin, x2)
            costs[:, models] = φ @ np.array(weights).T
        worths = np.array([self._worths.get(name, self._worths[None]) for name in classes])
        tokens = τin + mean if self._by_tokens else np.ones_like(τin)
        ρ = np.broadcast_to(np.asarray(parts, np.float64), len(τin))
        return np.asarray(ρ[:, np.newaxis] * costs - worths * tokens[:, np.newaxis])


def _groups(policy: RoutingPolicy, worths: Mapping[str | None, Sequence[float]]) -> tuple[_Group, ...]:
    fits = [model.energy for model in policy.models]
    forms = {(fit.form, fit.terms): fit.make_form() for fit in fits}
    # A form by the terms that it adds: those that add most come first, and serve whatever they add to.
    hosts: list[Form] = []
    for form in sorted(forms.values(), key=lambda form: -len(form.terms)):
        if not any(_extends(host, form) for host in hosts):
            hosts.append(form)
    groups = []
    for host in hosts:
        mine = [number for number, fit in enumerate(fits) if _host(hosts, forms[fit.form, fit.terms]) is host]
        weights = tuple(_row(policy, number, host) for number in mine)
        rows = {
            name: tuple((*row, worth[number]) for number, row in zip(mine, weights, strict=True))
            for name, worth in worths.items()
        }
        groups.append(_Group(host, tuple(mine), weights, rows, DOTS.get(len(host.terms), _dot)))
    return tuple(groups)


def _extends(form: Form, other: Form) -> bool:
    """Whether ``form`` has all terms of ``other``, and adds its own to them."""
    return isinstance(form, type(other)) and set(other.terms) <= set(form.terms)


def _host(hosts: Sequence[Form], form: Form) -> Form:
    return next(host for host in hosts if _extends(host, form))


def _row(policy: RoutingPolicy, number: int, form: Form) -> Row:
    """W_K by the terms of ``form``, which has all that the model's own has."""
    fit = policy.models[number].energy
    weights = dict(zip(fit.terms, (policy.zeta / policy.scaling.energy_max_j * fit.coefficients).tolist(), strict=True))
    return tuple(weights.get(term, 0.0) for term in form.terms)


def _dot3(rows: tuple[Row, ...], φ: Sequence[float], n: float, ρ: float) -> list[float]:
    p, q, r = φ
    return [ρ * (a * p + b * q + c * r) - w * n for a, b, c, w in rows]


def _dot4(rows: tuple[Row, ...], φ: Sequence[float], n: float, ρ: float) -> list[float]:
    p, q, r, s = φ
    return [ρ * (a * p + b * q + c * r + d * s) - w * n for a, b, c, d, w in rows]


def _dot5(rows: tuple[Row, ...], φ: Sequence[float], n: float, ρ: float) -> list[float]:
    p, q, r, s, t = φ
    return [ρ * (a * p + b * q + c * r + d * s + e * t) - w * n for a, b, c, d, e, w in rows]


def _dot6(rows: tuple[Row, ...], φ: Sequence[float], n: float, ρ: float) -> list[float]:
    p, q, r, s, t, u = φ
    return [ρ * (a * p + b * q + c * r + d * s + e * t + f * u) - w * n for a, b, c, d, e, f, w in rows]


def _dot(rows: tuple[Row, ...], φ: Sequence[float], n: float, ρ: float) -> list[float]:
    return [ρ * sum(map(mul, row, φ)) - row[-1] * n for row in rows]


DOTS = {3: _dot3, 4: _dot4, 5: _dot5, 6: _dot6}
"""By number of terms: ρ·W_K·φ less what n tokens are worth, or one query."""


def _worths(models: Sequence[PolicyModel], worth: float, query_class: str | None) -> list[float]:
    """(1−ζ)/a_max·A_K of each model for a class of queries."""
    return [worth * model.accuracy_by_class.get(query_class or "", model.accuracy or 0.0) for model in models]
