"""What the page's slider shows of each plan: the words for all of them beforehand, so that the script only puts them.

Euros and grams follow from a tariff, or from factors that the reader may change: these the script computes, by the
formulas of :mod:`llmpower.report.costs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpower.phrases import duration, percent, quantity
from llmpower.report.amounts import AIMS, said
from llmpower.report.costs import Factors
from llmpower.report.plan_figures import accuracy_words, zeta_words
from llmpower.report.plans import ByHour, Figures, Plans, Step
from llmpower.report.style import SERIES
from llmpower.routing.problem.rates import AMOUNTS, Weigh
from llmpower.units import J_PER_KWH

MILLION = 1e6


KINDS: Mapping[str, Weigh] = {"cost": "money", "carbon": "carbon"}
"""Of lines whose key begins so."""


@dataclass(frozen=True, slots=True)
class Readout:
    """One line beside the slider: its ``key`` for the script, its name, and the text for the plan shown first.

    ``flat`` is of the plan that looks at no hours, and ``other`` of the plan of most accuracy, which is what all others
    give up accuracy against.
    """

    key: str
    name: str
    text: str
    flat: str
    other: str


def readouts(plans: Plans, factors: Factors) -> list[Readout]:
    """The lines of which something is known."""
    shown, most = plans.steps[plans.chosen], plans.steps[0]
    keys = [("energy", "Energy"), ("energy_interval", "Energy, 95 % interval"), ("each", "Energy a query")]
    keys += [("runtime", "Runtime, one query after the other")]
    keys += [("accuracy_tokens", "Accuracy, mean over tokens"), ("accuracy_queries", "Accuracy, mean over queries")]
    keys += [("point", "A point of accuracy is worth")]
    keys += [("cost", "Electricity"), ("cost_interval", "Electricity, 95 % interval")]
    keys += [("carbon", "CO₂"), ("carbon_interval", "CO₂, 95 % interval")]
    keys += [("cost_million", "Electricity of a million such queries"), ("carbon_million", "CO₂ of a million")]
    lines = [
        Readout(key, name, *("" if of is None else _text(plans, of, key, factors) for of in (shown, shown.flat, most)))
        for key, name in keys
    ]
    return [line for line in lines if line.text]


def document(plans: Plans) -> dict[str, Any]:
    """What the script needs, as JSON types."""
    fixed = Factors()
    keys = [line.key for line in readouts(plans, fixed) if _kind(line.key) in (None, *plans.tariff)]
    by_hour = plans.by_hour
    return {
        "joules_per_kwh": J_PER_KWH,
        "queries": plans.n_queries,
        "chosen": plans.chosen,
        "colours": len(SERIES),
        "models": list(plans.model_names),
        "most_j": plans.steps[0].energy_j,
        **({} if by_hour is None else {"hour_most_j": by_hour.most_j}),
        "steps": [
            {
                "zeta": zeta_words(step.zeta),
                "energy_j": step.energy_j,
                "saved": saved(plans, step),
                "say": spoken(plans, step),
                "texts": {key: _text(plans, step, key, fixed) for key in keys},
                "shares": [round(step.shares[name], 6) for name in plans.model_names],
                **({} if step.flat is None else {"flat": _flat(plans, step.flat, keys)}),
                **({} if plans.mapped is None else _mapped(plans, place)),
                **({} if by_hour is None else _hours(by_hour, place)),
            }
            for place, step in enumerate(plans.steps)
        ],
    }


def saved(plans: Plans, step: Step) -> str:
    """What is pursued, against the plan of most accuracy and the one that looks at no hours."""
    most, amount = plans.steps[0], plans.amount(step)
    less, lost = 1 - amount / plans.amount(most), plans.accuracy(most) - plans.accuracy(step)
    aim, points = AIMS[plans.weighs], f"{100 * lost:.2f} points of accuracy"
    text = f"{percent(less)} less {aim} than the most accurate plan, for {points}"
    if step.flat is None:
        return text
    # Of equal plans one may be the costlier by a sum's rounding.
    by_hours = max(0.0, 1 - amount / plans.amount(step.flat))
    return f"{text}; {percent(by_hours)} less than at the same accuracy ignoring the hours"


def spoken(plans: Plans, step: Step) -> str:
    """A plan in one breath, for a screen reader."""
    accuracy = f"accuracy {percent(plans.accuracy(step))} ({accuracy_words(plans)})"
    return f"ζ = {zeta_words(step.zeta)}: {said(plans.weighs, plans.amount(step))}, {accuracy}"


def share_rows(plans: Plans) -> list[tuple[str, int, float]]:
    """Model, its colour's number, and its share in the plan shown first."""
    shown = plans.steps[plans.chosen]
    return [(name, place % len(SERIES), shown.shares[name]) for place, name in enumerate(plans.model_names)]


def _flat(plans: Plans, flat: Figures, keys: Sequence[str]) -> dict[str, Any]:
    fixed = Factors()
    return {"energy_j": flat.energy_j, "texts": {key: _text(plans, flat, key, fixed) for key in keys}}


def _mapped(plans: Plans, place: int) -> dict[str, Sequence[float]]:
    assert plans.mapped is not None
    shares = [round(share, 3) for share in plans.mapped.share[place].tolist()]
    return {"map": [int(model) for model in plans.mapped.model[place].tolist()], "parts": shares}


def _hours(by_hour: ByHour, place: int) -> dict[str, Sequence[float]]:
    """Joules of each hour and model, in the order of the bars; and of each hour alone."""
    found = {"hours": by_hour.energy_j[place].ravel()}
    if by_hour.flat_j is not None:
        found["flat_hours"] = by_hour.flat_j[place]
    return {name: [float(f"{energy_j:.5g}") for energy_j in of_hours] for name, of_hours in found.items()}


def _kind(key: str) -> Weigh | None:
    """Of what a line tells the amount, where that is euros or grams."""
    return KINDS.get(key.split("_", maxsplit=1)[0])


def _point(plans: Plans, step: Step) -> str:
    """At the ends of the front nothing, or everything, is paid for accuracy."""
    if step.amount_per_point is None:
        return ""
    return "–" if zeta_words(step.zeta) in ("0", "1") else said(plans.weighs, step.amount_per_point)


def _interval(step: Step, kind: Weigh) -> str:
    return "" if kind not in step.intervals else " to ".join(said(kind, end) for end in step.intervals[kind])


def _amount(of: Figures, kind: Weigh, factors: Factors) -> float:
    """Euros or grams: by the tariff, where it has them."""
    by_tariff: float | None = getattr(of, AMOUNTS[kind])
    if by_tariff is not None:
        return by_tariff
    return factors.cost(of.energy_j) if kind == "money" else factors.carbon_g(of.energy_j)


def _text(plans: Plans, of: Figures, key: str, factors: Factors) -> str:
    """A line's text; empty where it is not known."""
    kind = _kind(key)
    match key:
        case "energy":
            return quantity(of.energy_j, "J")
        case "runtime":
            return duration(of.runtime_s)
        case "accuracy_tokens":
            return "" if of.accuracy_token_weighted is None else percent(of.accuracy_token_weighted)
        case "accuracy_queries":
            return "" if of.accuracy_query_mean is None else percent(of.accuracy_query_mean)
        case "point":
            return _point(plans, of) if isinstance(of, Step) else ""
        case "energy_interval" | "cost_interval" | "carbon_interval":
            return _interval(of, kind or "energy") if isinstance(of, Step) else ""
        case _ if kind is not None and not key.endswith("million"):
            return said(kind, _amount(of, kind, factors))
        case _ if plans.n_queries is None:
            return ""
        case "each":
            return quantity(of.energy_j / plans.n_queries, "J")
        case _:
            assert kind is not None
            return said(kind, _amount(of, kind, factors) / plans.n_queries * MILLION)
