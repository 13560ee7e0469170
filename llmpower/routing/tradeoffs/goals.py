"""ζ chosen by what somebody wants: joules to keep to, an accuracy to reach, what a point of it is worth, or neither.

Nobody knows which ζ they want. They have a budget of joules, or an accuracy that they promised, or a price; and if they
have none of these they want the knee, where accuracy stops being cheap. Each goal becomes a ζ and a plan that is
optimal at it.

A budget lies, as a rule, between two neighbouring plans of the front. Both are optimal at one ζ, and so is everything
that is exchanged between them query by query: the answer keeps the budget, and falls short of the bound, which
fractions of queries would reach, by less than one exchange.

Where money or carbon is pursued in place of energy, the front is one of euros or grams; a budget and the worth of a
point are then in these, and say by themselves what is pursued.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.routing.costing.costs import Costs
from llmpower.routing.problem.accuracy import AccuracyTable
from llmpower.routing.problem.gpu_seconds import ROUNDING
from llmpower.routing.problem.rates import AMOUNTS, UNITS, Rates, Weigh
from llmpower.routing.problem.workload import IntArray
from llmpower.routing.solving.solver import Solution, proven
from llmpower.routing.tradeoffs.tradeoff import Point, Tradeoff, walk
from llmpower.tables import number_of


@dataclass(frozen=True, slots=True)
class Knee:
    """The ζ whose exchange rate is that of the whole front, from the plan of least energy to that of most accuracy.

    That is ζ = ½ with both aims scaled to what can be achieved, whatever one long query does to the scaling.
    """


@dataclass(frozen=True, slots=True)
class EnergyBudget:
    """The most accurate plan that takes at most this many joules, those of loaded models that wait among them."""

    energy_j: float


@dataclass(frozen=True, slots=True)
class AmountBudget:
    """As :class:`EnergyBudget` in euros or grams: the most accurate plan that costs, or emits, at most this much."""

    kind: Weigh
    amount: float


@dataclass(frozen=True, slots=True)
class AmountPerPoint:
    """As :class:`JoulesPerPoint` in euros or grams."""

    kind: Weigh
    amount: float


@dataclass(frozen=True, slots=True)
class AccuracyFloor:
    """The plan of least energy (money, carbon) whose mean accuracy, the one pursued, is at least this, in 0..1."""

    accuracy: float


@dataclass(frozen=True, slots=True)
class JoulesPerPoint:
    """The plan for which a percentage point of mean accuracy is worth this many joules."""

    joules: float


Goal = Knee | EnergyBudget | AmountBudget | AccuracyFloor | JoulesPerPoint | AmountPerPoint
KNEE = Knee()
PRICED = Knee | JoulesPerPoint | AmountPerPoint
"""Goals that say an exchange rate, and so a ζ, and nothing that a sum is held to."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What no plan can beat, even with fractions of queries: the most accuracy that a budget allows, or the
    least joules of queries that a floor needs, euros or grams where those are pursued; or the least objective, where
    GPU-seconds are limited; ``fractional_gap`` is how far fractions that were found are from that, as the plan's
    ``optimality_gap`` is of whole queries.
    """

    accuracy: float | None = None
    energy_j: float | None = None
    objective: float | None = None
    cost_eur: float | None = None
    carbon_g: float | None = None
    fractional_gap: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The ζ of a goal; the plan, where ζ alone does not say it; and the bound of a budget or a floor."""

    zeta: float
    solution: Solution | None = None
    bound: Bound | None = None


def check_goal(zeta: float | Goal, accuracy: Mapping[str, float] | AccuracyTable | None) -> float | Goal:
    """The goal, with a number of any kind as a float.

    Raises:
        InputError: it is no ζ or goal, or not ζ = 1 where there are no accuracies to weigh against energy.
    """
    if isinstance(zeta, AmountBudget | AmountPerPoint) and zeta.kind not in tuple(AMOUNTS):
        raise InputError("kind", zeta.kind, f"is not an amount that a tariff has; give one of {', '.join(AMOUNTS)}")
    match zeta:
        case Knee():
            pass
        case EnergyBudget(joules):
            zeta = EnergyBudget(_above_0(UNITS["energy"].budget, joules, "joules"))
        case AmountBudget(kind, amount):
            zeta = AmountBudget(kind, _above_0(UNITS[kind].budget, amount, UNITS[kind].name))
        case JoulesPerPoint(joules):
            zeta = JoulesPerPoint(_from_0(UNITS["energy"].per_point, joules, "joules"))
        case AmountPerPoint(kind, amount):
            zeta = AmountPerPoint(kind, _from_0(UNITS[kind].per_point, amount, UNITS[kind].name))
        case AccuracyFloor(floor):
            if not 0 <= (number := number_of(floor)) <= 1:
                raise InputError("--accuracy-floor", floor, "is a fraction from 0 to 1; write 0.51 for 51 %")
            zeta = AccuracyFloor(number)
        case _:
            if not 0 <= (number := number_of(zeta)) <= 1:
                raise InputError("--zeta", zeta, "is from 0 (accuracy alone) to 1 (energy alone)")
            zeta = number
    if accuracy is None and zeta != 1:
        weighs = f"ζ = {zeta} weighs accuracy" if isinstance(zeta, float | int) else "a trade-off needs accuracies"
        raise InputError("--accuracy", "none given", f"{weighs}; give a file, or --zeta 1")
    return zeta


def _above_0(option: str, value: object, unit: str) -> float:
    if not 0 < (number := number_of(value)) < float("inf"):
        raise InputError(option, value, f"is a number of {unit} above 0")
    return number


def _from_0(option: str, value: object, unit: str) -> float:
    if not 0 <= (number := number_of(value)) < float("inf"):
        raise InputError(option, value, f"is a number of {unit} from 0 up")
    return number


def pursued(goal: float | Goal, weigh: Weigh | None, rates: Rates) -> Weigh | None:
    """What a goal says is pursued, else ``weigh``, which must not say another thing.

    Raises:
        InputError: the goal and ``weigh`` differ, or there is no rate of what the goal counts.
    """
    kind: Weigh = "energy"
    match goal:
        case EnergyBudget(amount):
            option = UNITS[kind].budget
        case JoulesPerPoint(amount):
            option = UNITS[kind].per_point
        case AmountBudget(kind, amount):
            option = UNITS[kind].budget
        case AmountPerPoint(kind, amount):
            option = UNITS[kind].per_point
        case _:
            return weigh
    if kind != "energy" and kind not in rates.by_kind:
        raise InputError(option, amount, f"needs a --tariff with a column {UNITS[kind].column}")
    if weigh not in (None, kind):
        raise InputError("--weigh", weigh, f"{option} says that {kind} is pursued; leave one out")
    return kind


def choose(costs: Costs, limits: tuple[IntArray, IntArray], goal: float | Goal) -> Chosen:
    """The ζ that meets the goal.

    Raises:
        InfeasibleError: no plan keeps the budget or reaches the floor; the error says what could be.
    """
    if isinstance(goal, float | int):
        return Chosen(float(goal))
    if costs.second_rows is not None and not isinstance(goal, PRICED):
        advice = "a budget or a floor would be one more sum to keep to; give --zeta or --joules-per-point instead"
        raise InputError("--gpu-seconds", "with a budget or a floor", advice)
    if costs.unloadable and not isinstance(goal, PRICED):
        raise InputError("--allow-unload", "with a budget or a floor", "they hold for loaded models; leave one out")
    tradeoff = Tradeoff(costs, limits)
    if isinstance(goal, AmountBudget | AmountPerPoint):
        assert costs.rate is not None
        joules = costs.rate.joules(goal.amount)
        goal = EnergyBudget(joules) if isinstance(goal, AmountBudget) else JoulesPerPoint(joules)
    match goal:
        case JoulesPerPoint(joules):
            return Chosen(tradeoff.zeta(joules))
        case Knee():
            return Chosen(tradeoff.knee(*tradeoff.ends()))
        case EnergyBudget(joules):
            return _budget(tradeoff, joules)
        case AccuracyFloor(floor):
            return _floor(tradeoff, floor)


def _budget(tradeoff: Tradeoff, budget_j: float) -> Chosen:
    costs = tradeoff.costs
    idle_j = 0.0 if costs.charges_j is None else float(costs.charges_j.sum())
    most_j = budget_j - idle_j
    lower, upper = tradeoff.ends()
    if lower.energy_j > most_j:
        lower = tradeoff.at(1.0)
    if lower.energy_j > most_j * (1 + ROUNDING):
        given, least, all_ = (costs.amount(j) for j in (budget_j, lower.energy_j + idle_j, upper.energy_j + idle_j))
        unit = UNITS[costs.weighs]
        least = _six_digits(least, ROUND_CEILING)
        advice = f"plans under these limits take from {least:.6g} to {all_:.6g} {unit.name}; raise the budget"
        raise InfeasibleError(unit.budget, f"{given:.6g} {unit.name}", advice)
    most_j = max(most_j, lower.energy_j)
    if upper.energy_j <= most_j:
        return Chosen(upper.zeta, bound=Bound(accuracy=upper.accuracy))
    lower, upper, zeta = tradeoff.neighbours(lambda point: point.energy_j <= most_j, lower, upper)
    part = (most_j - lower.energy_j) / (upper.energy_j - lower.energy_j)
    assigned = walk(lower.assigned, upper.assigned, costs.weighed(costs.energy_j), most_j - lower.energy_j)
    bound = Bound(accuracy=lower.accuracy + part * (upper.accuracy - lower.accuracy))
    return Chosen(zeta, _between(tradeoff, lower, upper, zeta, assigned), bound)


def _floor(tradeoff: Tradeoff, least: float) -> Chosen:
    lower, upper = tradeoff.ends()
    best = tradeoff.at(0.0)
    if best.accuracy < least * (1 - ROUNDING):
        most = _six_digits(best.accuracy, ROUND_FLOOR)
        advice = (
            f"plans under these limits reach a mean accuracy from {lower.accuracy:.6g} to {most:.6g}"
            f" ({tradeoff.costs.weighting}-weighted); lower the floor"
        )
        raise InfeasibleError("--accuracy-floor", least, advice)
    least = min(least, best.accuracy)
    if lower.accuracy >= least:
        return Chosen(lower.zeta, bound=_least(tradeoff.costs, lower.energy_j))
    if upper.accuracy < least:
        upper = best
    lower, upper, zeta = tradeoff.neighbours(lambda point: point.accuracy >= least, lower, upper)
    part = (least - lower.accuracy) / (upper.accuracy - lower.accuracy)
    weight = tradeoff.costs.query_accuracy()
    room = (upper.accuracy - least) * tradeoff.weight
    assigned = walk(upper.assigned, lower.assigned, -weight, room)
    bound = _least(tradeoff.costs, lower.energy_j + part * (upper.energy_j - lower.energy_j))
    return Chosen(zeta, _between(tradeoff, lower, upper, zeta, assigned), bound)


def _six_digits(value: float, rounding: str) -> float:
    """Rounded so that it may be given as it stands."""
    return float(Context(prec=6, rounding=rounding).create_decimal(value))


def _least(costs: Costs, weighed_j: float) -> Bound:
    amount = costs.amount(weighed_j)
    match costs.weighs:
        case "money":
            return Bound(cost_eur=amount)
        case "carbon":
            return Bound(carbon_g=amount)
        case "energy":
            return Bound(energy_j=amount)


def _between(tradeoff: Tradeoff, lower: Point, upper: Point, zeta: float, assigned: IntArray) -> Solution:
    """The assignment with prices and proof: optimal at ζ as the two are that it lies between."""
    prices = tradeoff.at(zeta, lower, upper).prices
    return proven(tradeoff.costs.per_query(zeta), assigned, prices, *tradeoff.limits)
