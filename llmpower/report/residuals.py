"""Residuals as pictures: where a form misses, which no single figure of error tells.

A form that is right leaves a cloud about zero whatever it is plotted against. A slope, a bend or a step is something
that the form does not say; a lone point is a row to look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from llmpower.modelling import Fit, WorkloadModel
from llmpower.modelling.forms import make_form
from llmpower.modelling.groups import Group, Target, group_rows
from llmpower.modelling.regression import design_of
from llmpower.report.plots import COLOURS, svg_text


def residual_plots(
    models: Sequence[WorkloadModel],
    measurements: pd.DataFrame,
    *,
    group_by: Sequence[str] | None = None,
    boundary: str = "gpu",
) -> Iterator[tuple[str, str]]:
    """A name fit for a file, and SVG, for each target of each model that ``measurements`` have rows of.

    ``group_by`` and ``boundary`` are those of the fit.
    """
    known = {(model.model_name, model.system): model for model in models}
    for group in group_rows(measurements, group_by, boundary):
        model = known.get((group.model_name, group.system))
        if model is None:
            continue
        place = " ".join(filter(None, (group.model_name, group.system)))
        for target, fit in ((group.energy, model.energy), (group.runtime, model.runtime)):
            title = f"{place}: {target.name} by form {fit.label}{' SIMULATED' if model.simulated else ''}"
            yield re.sub(r"\W+", "-", f"residuals {place} {target.name}").strip("-"), _plot(title, fit, group, target)


def _plot(title: str, fit: Fit, group: Group, target: Target) -> str:
    """Relative residuals against input tokens, output tokens and the prediction, with the replicate noise as a band."""
    from matplotlib.figure import Figure

    form = make_form(fit.form, intercept="intercept" in fit.terms)
    predicted = (design_of(group, target, form) @ fit.coefficients)[group.cells]
    residual = 100 * (target.y / predicted - 1)
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, x, label in zip(
        panels,
        (group.cell_input_tokens[group.cells], group.cell_output_tokens[group.cells], predicted),
        ("input tokens", "output tokens", f"predicted {target.name} [{target.unit}]"),
        strict=True,
    ):
        if fit.replicate_noise is not None:
            noise = 200 * fit.replicate_noise
            axes.axhspan(-noise, noise, color="#eeeeee", linewidth=0)
        axes.axhline(0, color="#888888", linewidth=1)
        positive = x > 0
        axes.scatter(x[positive], residual[positive], s=12, alpha=0.6, color=COLOURS[0], linewidths=0)
        axes.set_xscale("log", base=10 if x is predicted else 2)
        axes.set_xlabel(label)
        axes.grid(visible=True, color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    # One wild row must not flatten the rest.
    limit = max(5.0, 1.5 * float(np.quantile(np.abs(residual[np.isfinite(residual)]), 0.98)))
    panels[0].set_ylim(-limit, limit)
    panels[0].set_ylabel("measured over predicted, less 1 [%]")
    return svg_text(figure)
