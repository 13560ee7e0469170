"""Euros and grams of CO₂ in what ``llmpower route`` and ``simulate`` print, where a tariff says them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING

from llmpower.cli.layout import energy_unit, in_percent
from llmpower.routing import Outcome, RoutingPlan
from llmpower.routing.rates import AMOUNTS, UNITS, Weigh

if TYPE_CHECKING:
    from llmpower.routing.simulation import Strategy

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
        """What the plan saves, with its unit and as a part of what it is held against."""
        against = self.of(plan.baselines[plan.saving.against])
        amount = f"{(against - self.of(plan)) / self.divisor:,.{self.decimals}f} {self.unit}"
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
    """So many joules as the objective counts them, in the unit of what is pursued."""
    if (rate := plan.workload.rates.by_kind.get(plan.weighs)) is not None:
        return f"{rate.amount(weighed_j):.4g} {UNITS[plan.weighs].name}"
    divisor, unit = energy_unit([weighed_j])
    return f"{weighed_j / divisor:.4g} {unit}"


def rates_line(plan: RoutingPlan) -> str:
    """What is pursued, and between which rates queries came."""
    ranges = " and ".join(
        f"{rate.per_kwh.min():.4g} to {rate.dearest:.4g} {UNITS[kind].name}{' CO₂' if kind == 'carbon' else ''}"
        for kind, rate in plan.workload.rates.by_kind.items()
    )
    return f"pursued is {plan.weighs}; queries came while a kWh was {ranges}"
