"""What a kWh costs and emits, and joules weighted by it.

Where the price of electricity, or the carbon of the grid, differs from hour to hour, a plan can pursue euros or grams
in place of joules. A query that came while a kWh cost f is then weighted

    w = e·f / f_max      [J at the highest rate]

and w takes the place of e in the objective, in its scaling and along the frontier. Dividing by f_max changes no plan
and keeps the unit of a joule, so that everything downstream is what it is without a tariff; and where all queries came
at the same rate, w = e to the last digit. An amount is w·f_max / 3.6 MJ.

Joules that are drawn all the time, by loaded models that wait, count at the mean of the tariff.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InputError
from llmpower.modelling.linear import FloatArray
from llmpower.units import J_PER_KWH

Weigh = Literal["energy", "money", "carbon"]
WEIGHS: tuple[Weigh, ...] = ("energy", "money", "carbon")


class Unit(NamedTuple):
    """In what something is counted, the tariff's column of it, and the options that say how much of it may be."""

    name: str
    column: str
    budget: str
    per_point: str


UNITS: Mapping[Weigh, Unit] = {
    "energy": Unit("J", "", "--energy-budget", "--joules-per-point"),
    "money": Unit("EUR", "eur_per_kwh", "--cost-budget", "--cost-per-point"),
    "carbon": Unit("g", "g_co2_per_kwh", "--carbon-budget", "--carbon-per-point"),
}
AMOUNTS: Mapping[Weigh, str] = {"money": "cost_eur", "carbon": "carbon_g"}
"""What an outcome calls its amount of each."""
PER_POINT: Mapping[Weigh, str] = {"money": "cost_per_point_eur", "carbon": "carbon_per_point_g"}
"""What documents call the worth of a percentage point of mean accuracy."""
RATE_COLUMNS = tuple(unit.column for unit in UNITS.values() if unit.column)


@dataclass(frozen=True, slots=True, eq=False)
class Rate:
    """``per_kwh`` (n_rates,) of each rate that a query came at, all above 0; ``mean_per_kwh`` of the whole tariff."""

    per_kwh: FloatArray
    mean_per_kwh: float

    @property
    def highest(self) -> float:
        """f_max, a kWh."""
        return float(self.per_kwh.max())

    @property
    def part(self) -> FloatArray:
        """f/f_max of each rate (n_rates,)."""
        return self.per_kwh / self.highest

    @property
    def mean_part(self) -> float:
        """The weight of a joule that is drawn all the time."""
        return self.mean_per_kwh / self.highest

    def amount(self, weighed_j: float) -> float:
        """Euros or grams of this many weighted joules."""
        return weighed_j * self.highest / J_PER_KWH

    def joules(self, amount: float) -> float:
        """The weighted joules that come to this many euros or grams."""
        return amount * J_PER_KWH / self.highest

    def total(self, energy_j: FloatArray, waiting_j: float) -> float:
        """Euros or grams of joules by rate (n_rates, n_choices) and of joules of models that wait."""
        return float((self.per_kwh @ energy_j).sum() + self.mean_per_kwh * waiting_j) / J_PER_KWH


@dataclass(frozen=True, slots=True)
class Rates:
    """The distinct rates at which queries of a workload came, ``number`` of them; none without a tariff."""

    by_kind: Mapping[Weigh, Rate] = field(default_factory=dict)
    number: int = 0

    def weighed(self, weigh: Weigh | None) -> Weigh:
        """What is pursued: what was asked, or by default money where there are prices, else carbon where that is known.

        Raises:
            InputError: what was asked is unknown, or the tariff does not have it.
        """
        if weigh is None:
            return next((kind for kind in ("money", "carbon") if kind in self.by_kind), "energy")
        if weigh not in WEIGHS:
            raise InputError("--weigh", weigh, f"unknown; use one of {', '.join(WEIGHS)}")
        if weigh != "energy" and weigh not in self.by_kind:
            raise InputError("--weigh", weigh, f"needs a --tariff with a column {UNITS[weigh].column}")
        return weigh


NO_RATES = Rates()


class RowRates(NamedTuple):
    """Rates, and the number of its rate for each row of a workload (n_rows,)."""

    rates: Rates
    of_row: NDArray[np.int64]
