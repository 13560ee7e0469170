"""Energy against accuracy of the case study: the thesis's points, plans per query, and blind mixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from llmpower.report.plots import COLOURS, new_figure
from llmpower.routing.baselines import best_blind_mix


def draw(document: dict[str, Any], path: Path) -> None:
    """The published case without shares, under both forms, beside the figure's points."""
    figure, axes = new_figure("accuracy, mean over tokens [%]", "energy [kWh]")
    points = document["figure"]
    axes.plot(
        [point["accuracy_pct"] for point in points],
        [point["energy_kwh"] for point in points],
        "x",
        color="#000000",
        label="the thesis's offline plans",
    )
    for colour, form, label in zip(
        COLOURS, ("paper", "auto"), ("published form", "form by held-out error"), strict=False
    ):
        (case,) = (
            case
            for case in document["cases"]
            if (case["workload"], case["form"], case["shares"]) == ("published", form, False)
        )
        rows = sorted(case["rows"], key=lambda row: row["accuracy_pct"])
        at = ([row["accuracy_pct"] for row in rows], [row["energy_kwh"] for row in rows])
        axes.plot(*at, marker=".", color=colour, label=f"per query, {label}")
        singles = sorted(case["singles"].values(), key=lambda single: single["accuracy_pct"])
        accuracy = np.array([single["accuracy_pct"] for single in singles])
        energy = np.array([single["energy_kwh"] for single in singles])
        mixes = [best_blind_mix(energy, accuracy, least) @ energy for least in accuracy]
        axes.plot(accuracy, mixes, "--", color=colour, label=f"blind mixes, {label}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmpower"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
