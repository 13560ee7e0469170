"""One picture of a plan: where it lies on the frontier of energy and accuracy, and what others would pay there.

The dashed line is all that a dispatcher can reach that does not look at the query: mixes of single models. What lies
between it and the frontier, straight down at the plan's accuracy, is the saving.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.exceptions import InputError
from llmpower.report.drawing import check_drawing, check_suffix, save_chart
from llmpower.report.style import INK, SERIES, values
from llmpower.routing import Outcome, RoutingPlan
from llmpower.routing.plans.baselines import best_blind_mix
from llmpower.routing.problem.rates import AMOUNTS

if TYPE_CHECKING:
    import pandas as pd

LABELS = {
    "round_robin": "round robin",
    "random": "random",
    "best_blind_mix": "best blind mix",
    "same_shares_blind": "same shares, blind",
    "hybrid_threshold": "token threshold",
}
TITLES = {
    "energy": "energy of the queries [J]",
    "money": "cost of the queries [EUR]",
    "carbon": "carbon of the queries [g CO₂]",
}
SHAPES = ("triangle-down", "triangle-up", "diamond", "square", "cross")
WIDTH, HEIGHT = 520, 340
STAR = "M0,-1L.23,-.33L.94,-.33L.36,.07L.57,.74L0,.35L-.57,.74L-.36,.07L-.94,-.33L-.23,-.33Z"


def check_plot(path: Path, option: str = "--plot") -> None:
    """Refuse what cannot become a picture before anything is computed for it.

    Raises:
        InputError: the name ends in neither ``.png`` nor ``.svg``.
        LlmpowerError: the extra ``report`` is not installed.
    """
    check_suffix(path, option)
    check_drawing()


def save_plan_plot(plan: RoutingPlan, points: pd.DataFrame, path: Path, option: str = "--plot") -> None:
    """Draw ``plan`` on the frontier ``points`` (``energy_j`` and the plan's accuracy, one row per point) into ``path``.

    Raises:
        InputError: ``path`` cannot be written, or the plan has no accuracy to be drawn against.
    """
    check_plot(path, option)
    if plan.accuracy_query_mean is None:
        raise InputError(option, path, "a frontier is of energy and accuracy; give --accuracy")
    save_chart(plan_chart(plan, points), path, option)


def plan_chart(plan: RoutingPlan, points: pd.DataFrame) -> Any:
    """The chart: frontier, blind mixes, single models, other dispatchers, and the plan with its interval."""
    import altair as alt

    by_tokens = plan.accuracy_weighting == "tokens"
    column = "accuracy_token_weighted" if by_tokens else "accuracy_query_mean"
    points = points.sort_values(column)
    of_points = points[AMOUNTS.get(plan.weighs, "energy_j")]
    front = [_at(x, y, "frontier") for x, y in zip(points[column], of_points, strict=True)]
    singles = [
        _at(_accuracy(plan, single), _pursued(plan, single), "one model for all") | {"name": name + _late(single)}
        for name, single in ((name, plan.baselines[f"single:{name}"]) for name in plan.model_names)
    ]
    others = [
        _at(_accuracy(plan, outcome), _pursued(plan, outcome), LABELS[name] + _late(outcome))
        for name, outcome in plan.baselines.items()
        if name in LABELS
    ]
    ours = _at(_accuracy(plan, plan), _pursued(plan, plan), f"plan, ζ = {plan.zeta:.3g}")
    mixes = _mixes(plan)
    kinds = ["frontier", "blind mixes", "one model for all", *(str(at["kind"]) for at in (*others, ours))]
    colours = [SERIES[0], SERIES[1], SERIES[1], *(_colour(str(other["kind"])) for other in others), INK]
    shapes = ["circle", "stroke", "circle", *SHAPES[: len(others)], STAR]
    dashes = [[1, 0], [5, 4], *([[1, 0]] * (len(kinds) - 2))]

    x = alt.X("x:Q", title=f"accuracy, mean over {'tokens' if by_tokens else 'queries'}")
    x = x.axis(format=".1%", tickCount=6).scale(zero=False, nice=False, padding=24)
    y = alt.Y("y:Q", title=TITLES[plan.weighs]).axis(format="~s").scale(zero=True)
    colour = alt.Color("kind:N", title=None).scale(domain=kinds, range=colours)
    shape = alt.Shape("kind:N", title=None).scale(domain=kinds, range=shapes)
    dash = alt.StrokeDash("kind:N", title=None).scale(domain=kinds, range=dashes)

    layers = [
        alt.Chart(values([*front, *mixes])).mark_line(strokeWidth=1.6).encode(x=x, y=y, color=colour, strokeDash=dash),
        alt.Chart(values([*front, *singles, *others]))
        .mark_point(filled=True, size=48, opacity=1)
        .encode(x=x, y=y, color=colour, shape=shape),
        alt.Chart(values(singles)).mark_text(dx=7, dy=-9, align="left", fontSize=10).encode(x=x, y=y, text="name:N"),
    ]
    if plan.energy is not None and plan.weighs == "energy":
        bar = ours | {"low": plan.energy.low_j, "high": plan.energy.high_j}
        layers.append(alt.Chart(values([bar])).mark_rule(color=INK).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"))
    star = alt.Chart(values([ours])).mark_point(filled=True, size=130, opacity=1)
    layers.append(star.encode(x=x, y=y, color=colour, shape=shape))
    saved = f"{100 * plan.saved_share:.0f} % less than the best blind mix at equal accuracy"
    title = f"SIMULATED: {saved}" if plan.simulated else saved
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)


def _mixes(plan: RoutingPlan) -> list[dict[str, float | str]]:
    """The cheapest mixes of single models at each accuracy."""
    singles = [plan.baselines[f"single:{name}"] for name in plan.model_names]
    accuracy = np.array([_accuracy(plan, single) for single in singles])
    energy_j = np.array([_pursued(plan, single) for single in singles])
    # Less accuracy than the cheapest model's saves nothing. From there on the least is a line from corner to corner.
    corners = np.unique(accuracy[accuracy >= accuracy[energy_j == energy_j.min()].max()])
    return [_at(least, best_blind_mix(energy_j, accuracy, least) @ energy_j, "blind mixes") for least in corners]


def _at(accuracy: float, energy_j: float, kind: str) -> dict[str, float | str]:
    return {"x": float(accuracy), "y": float(energy_j), "kind": kind}


def _pursued(plan: RoutingPlan, outcome: Outcome) -> float:
    """Of the queries alone: J, EUR or g."""
    rate = plan.workload.rates.by_kind.get(plan.weighs)
    return outcome.energy_j if rate is None else rate.amount(outcome.weighed_j)


def _colour(kind: str) -> str:
    return SERIES[2] if kind.startswith(LABELS["hybrid_threshold"]) else SERIES[3]


def _late(outcome: Outcome) -> str:
    """Said of what breaks a limit on latency, and so is no alternative."""
    return " (late)" if outcome.late_queries else ""


def _accuracy(plan: RoutingPlan, outcome: Outcome) -> float:
    """The mean that the plan pursues."""
    mean = outcome.accuracy_token_weighted if plan.accuracy_weighting == "tokens" else outcome.accuracy_query_mean
    assert mean is not None
    return mean
