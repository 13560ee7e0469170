"""A plan's prices, for queries that nobody knew when it was made.

An optimal plan sends each query to the least of its cost and the price of the model,

    argmin_K  ζ·e_K(τin, τout)/e_max − (1−ζ)·a_K(τin, τout)/a_max + λ_K

and a policy is all that the argmin needs: coefficients, accuracies, scaling, ζ and prices λ. A price is positive where
a share holds queries off a model and negative where it draws them in. Where the plan pursues money or carbon, e is
weighted by f/f_max, the current rate as a fraction of the highest (:mod:`~llmpower.routing.policies.tariff`). As
policy.json it goes to a gateway in any language.

Who decides does not know τout yet. Forms without a kink are polynomials in it, of the third degree at most, so their
expectation needs the moments E[τout], E[τout²], E[τout³] of queries like this one: ``output_lengths`` has them by class
and input length, learnt from the workload that the plan was made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.exceptions import InputError
from llmpower.modelling import Fit
from llmpower.modelling.fitted.prediction import at_least
from llmpower.modelling.forms import FloatArray, Form, make_form
from llmpower.routing.costing.outcome import Scaling
from llmpower.routing.plans.plan import RoutingPlan, check_plan
from llmpower.routing.policies.lengths import Moments
from llmpower.routing.policies.tariff import PolicyTariff
from llmpower.routing.problem.accuracy import Weighting
from llmpower.routing.problem.rates import UNITS, Weigh
from llmpower.routing.problem.tariff import Tariff, check_tariff

if TYPE_CHECKING:
    from llmpower.routing.problem.workload import Workload


@dataclass(frozen=True, eq=False)
class PolicyFit:
    """A fit without its statistics: ``coefficients`` (n_terms,) of ``form``, and where they were fitted."""

    form: str
    terms: tuple[str, ...]
    coefficients: FloatArray
    input_range: tuple[int, int]
    output_range: tuple[int, int]

    @classmethod
    def of(cls, fit: Fit) -> PolicyFit:
        """What a decision needs of ``fit``."""
        return cls(fit.form, fit.terms, fit.coefficients, fit.input_range, fit.output_range)

    def make_form(self) -> Form:
        """The form that the coefficients belong to."""
        return make_form(self.form, intercept="intercept" in self.terms)

    def predict(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
        """Expected joules or seconds, of the shape of the token counts; unchecked outside the fitted range."""
        return np.asarray(self.make_form().design(input_tokens, output_tokens) @ self.coefficients)


@dataclass(frozen=True, eq=False)
class PolicyModel:
    """One choice: ``name`` is unique, ``model_name`` and ``system`` say what it is.

    ``price`` λ is in the unit of the objective. ``share`` is the fraction of the queries that the plan sends here,
    ``share_range`` the lowest and highest that it may be. ``accuracy`` is from 0 to 1, of classes of queries in
    ``accuracy_by_class`` another; ``None`` where the policy weighs energy alone.
    """

    name: str
    model_name: str
    system: str
    price: float
    share: float
    share_range: tuple[float, float]
    energy: PolicyFit
    runtime: PolicyFit
    accuracy: float | None = None
    accuracy_by_class: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputLengths:
    """Moments of τout over ``queries`` of one class whose input has ``input_from`` tokens or more.

    An entry ends where the next one of its class begins. ``mean``, ``mean_square`` and ``mean_cube`` are in tokens and
    their powers. Class ``None`` is every query, of whatever class.
    """

    query_class: str | None
    input_from: int
    queries: int
    mean: float
    mean_square: float
    mean_cube: float


@dataclass(frozen=True, eq=False)
class RoutingPolicy:
    """What decides a query; ``models`` are in the order in which ties go to the first.

    No query goes to a model on which it is expected to take longer than ``max_runtime_s``, if that is given and another
    is quicker. ``tariff`` has the rates of money or carbon, where that is pursued.
    """

    zeta: float
    accuracy_weighting: Weighting
    scaling: Scaling
    simulated: bool
    boundary: str | None
    models: tuple[PolicyModel, ...]
    output_lengths: tuple[OutputLengths, ...] = ()
    max_runtime_s: float | None = None
    tariff: PolicyTariff | None = None

    @property
    def weighs(self) -> Weigh:
        """What is pursued."""
        return "energy" if self.tariff is None else self.tariff.weighs

    def costs(
        self,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        query_class: str | None = None,
        part: float | FloatArray = 1.0,
    ) -> FloatArray:
        """ζ·ê − (1−ζ)·â + λ of queries of one class on each model; shape of the token counts, then (n_models,).

        ``part`` is what a joule counts at the queries' times, as ``tariff`` has it. ∞ where a query would take longer
        than ``max_runtime_s``, unless every other model takes longer still.

        Raises:
            InputError: a token count is not a number ≥ 0.
        """
        input_tokens = at_least("input_tokens", input_tokens, 0)
        output_tokens = at_least("output_tokens", output_tokens, 0)
        ζ, scaling = self.zeta, self.scaling
        tokens = input_tokens + output_tokens
        weight = tokens if self.accuracy_weighting == "tokens" else np.ones_like(tokens)
        costs = []
        for model in self.models:
            e = model.energy.predict(input_tokens, output_tokens) * part
            cost = ζ * e / scaling.energy_max_j + model.price
            if model.accuracy is not None:
                a = model.accuracy_by_class.get(query_class or "", model.accuracy) * weight
                cost = cost - (1 - ζ) * a / (scaling.accuracy_max or 1.0)
            costs.append(cost)
        stacked = np.stack(costs, axis=-1)
        if self.max_runtime_s is None:
            return stacked
        seconds = np.stack([model.runtime.predict(input_tokens, output_tokens) for model in self.models], axis=-1)
        return np.where(allowed(seconds, self.max_runtime_s), stacked, np.inf)

    def choose(
        self,
        input_tokens: ArrayLike,
        output_tokens: ArrayLike,
        query_class: str | None = None,
        part: float | FloatArray = 1.0,
    ) -> NDArray[np.intp]:
        """The model of least cost for each query, as its number in ``models``."""
        return np.asarray(self.costs(input_tokens, output_tokens, query_class, part).argmin(axis=-1))


def check_policy(policy: object) -> None:
    """Refuse what is no policy.

    Raises:
        InputError: it is something else, such as the plan that one is made from.
    """
    if not isinstance(policy, RoutingPolicy):
        advice = "is not a policy; give make_policy(plan), or load_policy of a file"
        raise InputError("policy", policy if isinstance(policy, str) else type(policy).__name__, advice)


def make_policy(plan: RoutingPlan, tariff: Tariff | None = None) -> RoutingPolicy:
    """What the plan leaves to those who decide one query at a time; ``tariff`` is the one that it was made with.

    Raises:
        InputError: ``plan`` or ``tariff`` is something else; the plan pursues money or carbon, and no tariff says what
            they cost at other times; or GPU-seconds were limited, of which a policy knows nothing.
    """
    check_plan(plan)
    if plan.second_limits is not None:
        advice = "a policy knows no limits on sums of seconds; make the plan without them, or give its models shares"
        raise InputError("--gpu-seconds", ", ".join(plan.second_limits), advice)
    models = []
    for choice in plan.choices:
        if choice.name in plan.unloaded:
            continue
        load = plan.models[choice.name]
        models.append(
            PolicyModel(
                name=choice.name,
                model_name=choice.model.model_name,
                system=choice.model.system,
                price=plan.prices[choice.name],
                share=plan.shares[choice.name],
                share_range=plan.share_ranges[choice.name],
                energy=PolicyFit.of(choice.model.energy),
                runtime=PolicyFit.of(choice.model.runtime),
                accuracy=load.accuracy,
                accuracy_by_class=load.accuracy_by_class,
            )
        )
    return RoutingPolicy(
        zeta=plan.zeta,
        accuracy_weighting=plan.accuracy_weighting,
        scaling=plan.scaling,
        simulated=plan.simulated,
        boundary=plan.boundary,
        models=tuple(models),
        output_lengths=output_lengths(plan.workload),
        max_runtime_s=plan.max_runtime_s,
        tariff=_tariff(plan, tariff),
    )


def _tariff(plan: RoutingPlan, tariff: Tariff | None) -> PolicyTariff | None:
    if plan.weighs == "energy":
        return None
    if tariff is None:
        raise InputError("tariff", "none", f"the plan pursues {plan.weighs}; give the tariff that it was made with")
    check_tariff(tariff)
    column = UNITS[plan.weighs].column
    pursued = replace(tariff, per_kwh={column: tariff.per_kwh[column]})
    return PolicyTariff(plan.weighs, pursued, plan.workload.rates.by_kind[plan.weighs].highest)


def allowed(runtime_s: FloatArray, most_s: float) -> NDArray[np.bool_]:
    """Where a query (…, n_models) may go: to models that take at most that long, or to the quickest."""
    return np.asarray(runtime_s <= np.maximum(most_s, runtime_s.min(axis=-1, keepdims=True)))


def output_lengths(workload: Workload) -> tuple[OutputLengths, ...]:
    """Moments of τout by the power of two at or below τin, over all queries and over those of each class."""
    everything = np.full(workload.n_cells, True)
    entries = _lengths(workload, None, everything)
    for number, name in enumerate(workload.classes):
        if name:
            entries += _lengths(workload, name, workload.cell_class == number)
    return tuple(entries)


def _lengths(workload: Workload, query_class: str | None, cells: NDArray[np.bool_]) -> list[OutputLengths]:
    τin, τout, count = workload.input_tokens[cells], workload.output_tokens[cells], workload.count[cells]
    # frexp's exponent is the number of binary digits: 0 for 0, 1 for 1, 2 for 2 and 3, 3 for 4 to 7.
    digits = np.frexp(τin)[1]
    queries = np.bincount(digits, count)
    sums = [np.bincount(digits, count * τout.astype(np.float64) ** power) for power in (1, 2, 3)]
    return [
        OutputLengths(
            query_class,
            2 ** (int(bucket) - 1) if bucket else 0,
            int(queries[bucket]),
            *(float(powers[bucket] / queries[bucket]) for powers in sums),
        )
        for bucket in np.flatnonzero(queries)
    ]


def middle_of_the_fits(policy: RoutingPolicy) -> Moments:
    """Of answers of which nothing is known: as long as the middle, by ratio, of what all models were measured at."""
    shortest = max(max(model.energy.output_range[0] for model in policy.models), 1)
    longest = max(min(model.energy.output_range[1] for model in policy.models), shortest)
    middle = sqrt(shortest * longest)
    return Moments(0, middle, middle**2, middle**3)
