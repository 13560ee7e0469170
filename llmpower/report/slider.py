"""What the page's slider shows of each plan: the words for all of them beforehand, so that the script only puts them.

Euros and grams follow from factors that the reader may change, so these the script computes, by the formulas of
:mod:`llmpower.report.costs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmpower.phrases import duration, number, percent, quantity
from llmpower.report.costs import Factors
from llmpower.report.plan_figures import accuracy_words, zeta_words
from llmpower.report.plans import Plans, Step
from llmpower.report.style import SERIES
from llmpower.units import J_PER_KWH

MILLION = 1e6


@dataclass(frozen=True, slots=True)
class Readout:
    """One line beside the slider: its ``key`` for the script, its name, and the text for the plan shown first."""

    key: str
    name: str
    text: str
    other: str


def readouts(plans: Plans, factors: Factors) -> list[Readout]:
    """The lines; ``other`` is the plan of most accuracy, which is what all others give up accuracy against."""
    shown, most = plans.steps[plans.chosen], plans.steps[0]
    keys = [("energy", "Energy"), ("each", "Energy a query"), ("runtime", "Runtime, one query after the other")]
    keys += [("accuracy_tokens", "Accuracy, mean over tokens"), ("accuracy_queries", "Accuracy, mean over queries")]
    keys += [("point", "A point of accuracy is worth"), ("cost", "Electricity"), ("carbon", "CO₂")]
    keys += [("cost_million", "Electricity of a million such queries"), ("carbon_million", "CO₂ of a million")]
    texts = [[_text(plans, step, key, factors) for step in (shown, most)] for key, _ in keys]
    return [Readout(key, name, *text) for (key, name), text in zip(keys, texts, strict=True) if text[0]]


def document(plans: Plans) -> dict[str, Any]:
    """What the script needs, as JSON types."""
    fixed = Factors()
    keys = [r.key for r in readouts(plans, fixed) if not r.key.startswith(("cost", "carbon"))]
    return {
        "joules_per_kwh": J_PER_KWH,
        "queries": plans.n_queries,
        "chosen": plans.chosen,
        "colours": len(SERIES),
        "models": list(plans.model_names),
        "most_j": plans.steps[0].energy_j,
        "steps": [
            {
                "zeta": zeta_words(step.zeta),
                "energy_j": step.energy_j,
                "saved": saved(plans, step),
                "say": spoken(plans, step),
                "texts": {key: _text(plans, step, key, fixed) for key in keys},
                "shares": [round(step.shares[name], 6) for name in plans.model_names],
                **({} if plans.mapped is None else _mapped(plans, place)),
            }
            for place, step in enumerate(plans.steps)
        ],
    }


def saved(plans: Plans, step: Step) -> str:
    """Energy against the plan of most accuracy."""
    most = plans.steps[0]
    less, lost = 1 - step.energy_j / most.energy_j, plans.accuracy(most) - plans.accuracy(step)
    return f"{percent(less)} less energy than the most accurate plan, for {100 * lost:.2f} points of accuracy"


def spoken(plans: Plans, step: Step) -> str:
    """A plan in one breath, for a screen reader."""
    accuracy = f"accuracy {percent(plans.accuracy(step))} ({accuracy_words(plans)})"
    return f"ζ = {zeta_words(step.zeta)}: {quantity(step.energy_j, 'J')}, {accuracy}"


def share_rows(plans: Plans) -> list[tuple[str, int, float]]:
    """Model, its colour's number, and its share in the plan shown first."""
    shown = plans.steps[plans.chosen]
    return [(name, place % len(SERIES), shown.shares[name]) for place, name in enumerate(plans.model_names)]


def _mapped(plans: Plans, place: int) -> dict[str, Sequence[float]]:
    assert plans.mapped is not None
    shares = [round(share, 3) for share in plans.mapped.share[place].tolist()]
    return {"map": [int(model) for model in plans.mapped.model[place].tolist()], "parts": shares}


def _point(step: Step) -> str:
    """At the ends of the front nothing, or everything, is paid for accuracy."""
    if step.joules_per_point is None:
        return ""
    return "–" if zeta_words(step.zeta) in ("0", "1") else quantity(step.joules_per_point, "J")


def mass(grams: float) -> str:
    """``412 g``, ``3.40 kg``, ``5.34 t``: nobody says megagrams."""
    return quantity(grams / 1e6, "t") if grams >= 999_500 else quantity(grams, "g")


def _text(plans: Plans, step: Step, key: str, factors: Factors) -> str:
    """A line's text; empty where it is not known."""
    each_j = None if plans.n_queries is None else step.energy_j / plans.n_queries
    match key:
        case "energy":
            return quantity(step.energy_j, "J")
        case "runtime":
            return duration(step.runtime_s)
        case "accuracy_tokens":
            return "" if step.accuracy_token_weighted is None else percent(step.accuracy_token_weighted)
        case "accuracy_queries":
            return "" if step.accuracy_query_mean is None else percent(step.accuracy_query_mean)
        case "point":
            return _point(step)
        case "cost":
            return f"{number(factors.cost(step.energy_j))} €"
        case "carbon":
            return mass(factors.carbon_g(step.energy_j))
        case _ if each_j is None:
            return ""
        case "each":
            return quantity(each_j, "J")
        case "cost_million":
            return f"{number(factors.cost(each_j * MILLION))} €"
        case _:
            return mass(factors.carbon_g(each_j * MILLION))
