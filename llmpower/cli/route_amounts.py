"""Euros and grams of CO₂ in what ``llmpower route`` and ``simulate`` print, where a tariff says them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING

from llmpower.cli.layout import energy_unit, in_percent
from llmpower.routing import Outcome, RoutingPlan
from llmpower.routing.problem.rates import AMOUNTS, UNITS, Weigh

if TYPE_CHECKING:
    from llmpower.routing.replaying.arena import Strategy
    from llmpower.routing.replaying.simulation import Simulation

DIGITS = 4


@dataclass(frozen=True, slots=True)
class AmountColumn:
    """The amounts of one kind, in one unit and with as many decimals as show four digits of the largest."""

    kind: Weigh
    unit: str
    divisor: float
    decimals: int

    @property
    def header(self) -> str:
        """Name and unit."""
        return f"{'COST' if self.kind == 'money' else 'CO₂'} [{self.unit}]"

    def of(self, outcome: Outcome | Strategy) -> float:
        """EUR or g."""
        return float(getattr(outcome, AMOUNTS[self.kind]))

    def figure(self, outcome: Outcome | Strategy) -> str:
        """In this column's unit."""
        return f"{self.of(outcome) / self.divisor:,.{self.decimals}f}"

    def saved(self, plan: RoutingPlan) -> str:
        """What the plan saves, with its unit and as a fraction of what it is compared with."""
        against = self.of(plan.baselines[plan.saving.against])
        amount = f"{(against - self.of(plan)) / self.divisor:z,.{self.decimals}f} {self.unit}"
        return f"{amount}{' CO₂' if self.kind == 'carbon' else ''} ({saved(self.of(plan), against)} %)"


def amount_columns(kinds: Iterable[Weigh], outcomes: Iterable[Outcome | Strategy]) -> list[AmountColumn]:
    """One for each kind."""
    outcomes, columns = list(outcomes), []
    for kind in kinds:
        largest = max(getattr(outcome, AMOUNTS[kind]) for outcome in outcomes)
        unit, divisor = UNITS[kind].name, 1.0
        if kind == "carbon" and largest >= 1e3:
            unit, divisor = ("t", 1e6) if largest >= 1e6 else ("kg", 1e3)
        columns.append(AmountColumn(kind, unit, divisor, max(2, DIGITS - 1 - floor(log10(largest / divisor)))))
    return columns


def saved(plan: float, other: float) -> str:
    """What a plan saves of another's amount, in per cent."""
    return in_percent(1 - plan / other)


def pursued(plan: RoutingPlan, weighed_j: float) -> str:
    """This many joules as the objective counts them, in the unit of what is pursued."""
    rate = plan.workload.rates.by_kind.get(plan.weighs)
    return amount_words(plan.weighs, weighed_j if rate is None else rate.amount(weighed_j))


def worth_words(of: RoutingPlan | Simulation) -> str:
    """What a point of accuracy is worth, to stand behind ζ; nothing where it is not known."""
    worth = of.joules_per_point if of.weighs == "energy" else of.amount_per_point
    return "" if worth is None else f", where a point of accuracy is worth {amount_words(of.weighs, worth)}"


def amount_words(kind: Weigh, amount: float) -> str:
    """Joules with their prefix, euros or grams."""
    if kind != "energy":
        return f"{amount:.4g} {UNITS[kind].name}"
    divisor, unit = energy_unit([amount])
    return f"{amount / divisor:.4g} {unit}"


def rates_line(plan: RoutingPlan) -> str:
    """What is pursued, and between which rates queries came."""
    ranges = " and ".join(
        f"{rate.per_kwh.min():.4g} to {rate.highest:.4g} {UNITS[kind].name}{' CO₂' if kind == 'carbon' else ''}"
        for kind, rate in plan.workload.rates.by_kind.items()
    )
    return f"pursued is {plan.weighs}; queries came while a kWh was {ranges}"
