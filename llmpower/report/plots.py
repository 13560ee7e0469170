"""The report's plots, as SVG text to be set into the page.

Drawn without pyplot: no global state, no display. Text stays text, so it can be searched, copied and read aloud.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.modelling import WorkloadModel

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""


def measured_against_predicted(models: Sequence[WorkloadModel], measurements: pd.DataFrame) -> str:
    """Energy of every measurement against its model's prediction, both in joules, on logarithmic axes."""
    figure, axes = new_figure("predicted energy [J]", "measured energy [J]")
    low, high = np.inf, 0.0
    for model, colour in zip(models, _colours(models), strict=True):
        rows = _rows_of(model, measurements)
        predicted_j = model.energy.predict(rows["input_tokens"].to_numpy(), rows["output_tokens"].to_numpy())
        measured_j = rows["gpu_energy_j"].to_numpy(dtype=float)
        axes.scatter(predicted_j, measured_j, s=14, alpha=0.6, color=colour, label=model.model_name, linewidths=0)
        known = np.concatenate([predicted_j, measured_j])
        known = known[np.isfinite(known) & (known > 0)]
        if len(known):
            low, high = min(low, known.min()), max(high, known.max())
    if high > 0:
        axes.plot([low, high], [low, high], color="#888888", linewidth=1, label="exact")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend(frameon=False)
    return svg_text(figure)


def energy_per_token(models: Sequence[WorkloadModel], measurements: pd.DataFrame) -> str:
    """Joules per output token against output tokens: measurements as dots, models at the median input as lines."""
    figure, axes = new_figure("output tokens", "energy per output token [J]")
    for model, colour in zip(models, _colours(models), strict=True):
        rows = _rows_of(model, measurements)
        tokens_out = rows["output_tokens"].to_numpy(dtype=float)
        axes.scatter(tokens_out, rows["gpu_energy_j"] / tokens_out, s=14, alpha=0.5, color=colour, linewidths=0)
        median_in = float(rows["input_tokens"].median()) if len(rows) else float(np.mean(model.energy.input_range))
        line = np.geomspace(max(model.energy.output_range[0], 1), max(model.energy.output_range[1], 2), 100)
        predicted_j = model.energy.predict(np.full_like(line, median_in), line)
        axes.plot(line, predicted_j / line, color=colour, label=f"{model.model_name}, {median_in:.0f} input tokens")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return svg_text(figure)


def frontier(points: pd.DataFrame) -> str:
    """Energy in joules against accuracy of the plans along ζ."""
    from matplotlib.ticker import EngFormatter

    figure, axes = new_figure("token-weighted accuracy", "energy of the workload")
    axes.yaxis.set_major_formatter(EngFormatter(unit="J"))
    points = points.sort_values("zeta")
    axes.plot(points["accuracy_token_weighted"], points["energy_j"], color=COLOURS[0], marker="o", markersize=4)
    ends = points.iloc[[0, -1]]
    for zeta, accuracy, energy_j in zip(ends["zeta"], ends["accuracy_token_weighted"], ends["energy_j"], strict=True):
        axes.annotate(f"ζ = {zeta:g}", (accuracy, energy_j), textcoords="offset points", xytext=(6, 6))
    return svg_text(figure)


def _rows_of(model: WorkloadModel, measurements: pd.DataFrame) -> pd.DataFrame:
    """The measurements that a model was fitted to, as far as their columns tell."""
    rows = measurements[measurements["model_name"] == model.model_name]
    if "system" in rows and model.system:
        rows = rows[rows["system"] == model.system]
    return rows[rows["gpu_energy_j"].notna() & (rows["output_tokens"] > 0)]


def _colours(models: Sequence[WorkloadModel]) -> list[str]:
    return [COLOURS[number % len(COLOURS)] for number in range(len(models))]


def new_figure(x_label: str, y_label: str) -> tuple[Any, Axes]:
    """An empty figure in the style of all of ours, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def svg_text(figure: Any) -> str:
    """The figure as an ``<svg>`` element."""
    import matplotlib as mpl

    text = io.StringIO()
    # A fixed salt and no date: the same figures give the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmpower"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]
