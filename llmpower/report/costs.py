"""What a joule costs and emits: the factors, and the joules of a plan in euros and grams.

    cost = energy / 3.6 MJ · PUE · price,      CO₂ = energy / 3.6 MJ · PUE · carbon intensity

The defaults are those of ``prometheus/llmpower-factors.yml`` and of the dashboard, so that a page and a board say the
same: 0.25 a kWh, 400 g CO₂ equivalents a kWh and a PUE of 1.3. They are placeholders in the right order of magnitude
for a European business and the world's mean grid, and the page says so and lets its reader type others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmpower.exceptions import InputError
from llmpower.units import J_PER_KWH

PRICE, CARBON_G, PUE = 0.25, 400.0, 1.3


@dataclass(frozen=True, slots=True)
class Factors:
    """Euros and grams of CO₂ equivalents per kWh, and what the building draws for each watt of a server."""

    price_per_kwh: float = PRICE
    carbon_g_per_kwh: float = CARBON_G
    pue: float = PUE

    def check(self) -> None:
        """Refuse what is no factor.

        Raises:
            InputError: a price or intensity below 0, a PUE below 1, or no number.
        """
        for option, value, least in (
            ("--price-per-kwh", self.price_per_kwh, 0),
            ("--co2-per-kwh", self.carbon_g_per_kwh, 0),
            ("--pue", self.pue, 1),
        ):
            if not (value >= least and math.isfinite(value)):
                raise InputError(option, value, f"is a number from {least} up")

    def cost(self, energy_j: float) -> float:
        """Euros of this many joules of the servers' devices."""
        return energy_j / J_PER_KWH * self.pue * self.price_per_kwh

    def carbon_g(self, energy_j: float) -> float:
        """Grams of CO₂ equivalents of this many joules."""
        return energy_j / J_PER_KWH * self.pue * self.carbon_g_per_kwh
