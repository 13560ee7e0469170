"""Energy against accuracy of the case study: the thesis's points, plans per query, and blind mixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import altair as alt
import numpy as np

from llmpower.report import save_chart
from llmpower.report.style import INK, SERIES, values
from llmpower.routing.plans.baselines import best_blind_mix

THESIS = "the thesis's offline plans"
FORMS = (("paper", "published form"), ("auto", "form by held-out error"))


def draw(document: dict[str, Any], path: Path) -> None:
    """The published case without shares, under both forms, beside the figure's points."""
    points = [_at(point["accuracy_pct"], point["energy_kwh"], THESIS) for point in document["figure"]]
    plans: list[dict[str, Any]] = []
    mixes: list[dict[str, Any]] = []
    for form, label in FORMS:
        (case,) = (
            case
            for case in document["cases"]
            if (case["workload"], case["form"], case["shares"]) == ("published", form, False)
        )
        rows = sorted(case["rows"], key=lambda row: row["accuracy_pct"])
        plans += [_at(row["accuracy_pct"], row["energy_kwh"], f"per query, {label}") for row in rows]
        singles = sorted(case["singles"].values(), key=lambda single: single["accuracy_pct"])
        accuracy = np.array([single["accuracy_pct"] for single in singles])
        energy = np.array([single["energy_kwh"] for single in singles])
        mixes += [
            _at(least, best_blind_mix(energy, accuracy, least) @ energy, f"blind mixes, {label}") for least in accuracy
        ]
    kinds = [THESIS, *(f"{what}, {label}" for _, label in FORMS for what in ("per query", "blind mixes"))]
    colours = [INK, SERIES[0], SERIES[0], SERIES[1], SERIES[1]]
    dashes = [[1, 0], [1, 0], [5, 4], [1, 0], [5, 4]]
    x = alt.X("accuracy:Q", title="accuracy, mean over tokens [%]").scale(zero=False)
    y = alt.Y("energy:Q", title="energy [kWh]").scale(zero=True)
    colour = alt.Color("kind:N", title=None).scale(domain=kinds, range=colours).legend(symbolType="stroke", columns=2)
    dash = alt.StrokeDash("kind:N", title=None).scale(domain=kinds, range=dashes)
    layers = [
        alt.Chart(values([*plans, *mixes])).mark_line().encode(x=x, y=y, color=colour, strokeDash=dash),
        alt.Chart(values(plans)).mark_point(filled=True, size=20).encode(x=x, y=y, color=colour),
        alt.Chart(values(points)).mark_point(shape="cross", filled=True, size=50).encode(x=x, y=y, color=colour),
    ]
    save_chart(alt.layer(*layers).properties(width=520, height=340), path, "--out")


def _at(accuracy: float, energy: float, kind: str) -> dict[str, Any]:
    return {"accuracy": float(accuracy), "energy": float(energy), "kind": kind}
