"""What a query is expected to cost on every model of a policy: one at a time in plain floats, samples in arrays.

With φ a form's terms and W_K = ζ/e_max·α_K,

    c_K = W_K·E[φ(τin, τout)] − (1−ζ)/a_max·A_K·E[τin + τout]     (without the last factor where queries count alike)

φ belongs to the form and not to the model, so it is computed once for all models of a form, at each of the two points
of the law of τout. Prices are not in here: they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

import numpy as np

from llmpower.modelling.forms import FloatArray, Form
from llmpower.routing.lengths import Law
from llmpower.routing.policy import PolicyModel, RoutingPolicy


class _Group(NamedTuple):
    """The models whose fits have one form: their numbers, and W_K of each."""

    form: Form
    models: tuple[tuple[int, tuple[float, ...]], ...]


class QueryCosts:
    """The costs of a policy's models, in their order."""

    def __init__(self, policy: RoutingPolicy) -> None:
        self._n_models = len(policy.models)
        self._groups = _groups(policy)
        self._by_tokens = policy.accuracy_weighting == "tokens"
        worth = (1 - policy.zeta) / (policy.scaling.accuracy_max or 1.0)
        self._worths = _worths(policy.models, worth)
        classes = {name for model in policy.models for name in model.accuracy_by_class}
        self._worths_of = {name: _worths(policy.models, worth, name) for name in classes}

    def of(self, input_tokens: int, law: Law, query_class: str | None = None) -> list[float]:
        """c_K of one query; a few microseconds."""
        τin = float(input_tokens)
        mean, x1, w1, x2, w2 = law
        tokens = τin + mean if self._by_tokens else 1.0
        worths = self._worths_of.get(query_class, self._worths) if query_class else self._worths
        costs = [-tokens * worth for worth in worths]
        for form, models in self._groups:
            φ = form.features(τin, x1)
            if w2:
                φ = [w1 * first + w2 * second for first, second in zip(φ, form.features(τin, x2), strict=True)]
            for number, weights in models:
                costs[number] += sum(map(mul, weights, φ))
        return costs

    def sample(self, input_tokens: Sequence[int], laws: Sequence[Law], classes: Sequence[str | None]) -> FloatArray:
        """The same of many queries, shape (n_queries, n_models)."""
        τin, points = np.asarray(input_tokens, np.float64), np.array(laws, np.float64).reshape(-1, 5)
        mean, x1, w1, x2, w2 = points.T
        costs = np.zeros((len(τin), self._n_models))
        for form, models in self._groups:
            φ = w1[:, np.newaxis] * form.design(τin, x1) + w2[:, np.newaxis] * form.design(τin, x2)
            for number, weights in models:
                costs[:, number] = φ @ np.array(weights)
        worths = np.array([self._worths_of.get(name or "", self._worths) for name in classes])
        tokens = τin + mean if self._by_tokens else np.ones_like(τin)
        return np.asarray(costs - worths * tokens[:, np.newaxis])


def _groups(policy: RoutingPolicy) -> tuple[_Group, ...]:
    forms: dict[tuple[str, tuple[str, ...]], tuple[Form, list[tuple[int, tuple[float, ...]]]]] = {}
    for number, fit in enumerate(model.energy for model in policy.models):
        _, models = forms.setdefault((fit.form, fit.terms), (fit.make_form(), []))
        weights = policy.zeta / policy.scaling.energy_max_j * fit.coefficients
        models.append((number, tuple(weights.tolist())))
    return tuple(_Group(form, tuple(models)) for form, models in forms.values())


def _worths(models: Sequence[PolicyModel], worth: float, query_class: str = "") -> list[float]:
    """(1−ζ)/a_max·A_K of each model for a class of queries."""
    return [worth * model.accuracy_by_class.get(query_class, model.accuracy or 0.0) for model in models]
