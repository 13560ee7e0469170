"""Joules, euros and grams of CO₂, as the page says them."""

from __future__ import annotations

from collections.abc import Mapping

from llmpower.phrases import number, quantity
from llmpower.routing.problem.rates import Weigh

AIMS: Mapping[Weigh, str] = {"energy": "energy", "money": "cost", "carbon": "CO₂"}
"""What is weighed against accuracy."""
RATES: Mapping[Weigh, str] = {"money": "€ per kWh", "carbon": "g CO₂ per kWh"}


def said(kind: Weigh, amount: float) -> str:
    """``726 MJ``, ``42.45 €``, ``62.0 kg``."""
    match kind:
        case "energy":
            return quantity(amount, "J")
        case "money":
            return f"{number(amount)} €"
        case "carbon":
            # Nobody says megagrams.
            return quantity(amount / 1e6, "t") if amount >= 999_500 else quantity(amount, "g")
