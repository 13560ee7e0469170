"""The page: tables of fits, what the data are, and the plots, in one file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower import __version__
from llmpower.exceptions import LlmpowerError
from llmpower.modelling import Fit, WorkloadModel

if TYPE_CHECKING:
    import pandas as pd

TEMPLATE = Path(__file__).with_name("page.html")


def render(
    models: Sequence[WorkloadModel],
    measurements: pd.DataFrame | None = None,
    frontier: pd.DataFrame | None = None,
    *,
    title: str = "Energy per request",
) -> str:
    """The page's HTML.

    Args:
        models: what ``models.json`` holds.
        measurements: the rows they were fitted to, with ``model_name``, ``input_tokens``, ``output_tokens`` and
            ``gpu_energy_j``; without them there are no plots of data.
        frontier: rows with ``zeta``, ``energy_j`` and ``accuracy_token_weighted``, as ``route --frontier`` writes.
        title: heading of the page.

    Raises:
        LlmpowerError: the extra ``report`` is not installed.
    """
    try:
        from jinja2 import Environment

        from llmpower.report import plots
    except ImportError as error:
        raise LlmpowerError("the report needs matplotlib and jinja2; pip install 'llmpower[report]'") from error

    figures = []
    if measurements is not None and "gpu_energy_j" in measurements:
        figures = [
            ("Measured against predicted energy", plots.measured_against_predicted(models, measurements)),
            ("Energy per output token", plots.energy_per_token(models, measurements)),
        ]
    if frontier is not None and len(frontier):
        figures.append(("Energy against accuracy, by ζ", plots.frontier(frontier)))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        version=__version__,
        simulated=any(model.simulated for model in models),
        models=models,
        fits=[_fit_row(model, target, unit, fit) for model in models for target, unit, fit in _targets(model)],
        figures=figures,
        data=None if measurements is None else _data_rows(measurements),
        frontier=None if frontier is None else frontier.sort_values("zeta").to_dict("records"),
    )


def _targets(model: WorkloadModel) -> tuple[tuple[str, str, Fit], ...]:
    return (("energy", "J", model.energy), ("runtime", "s", model.runtime))


def _fit_row(model: WorkloadModel, target: str, unit: str, fit: Fit) -> dict[str, Any]:
    held = fit.heldout
    terms = zip(fit.terms, fit.coefficients, fit.std_errors, strict=True)
    return {
        "model_name": model.model_name,
        "system": model.system,
        "simulated": model.simulated,
        "target": f"{target} [{unit}]",
        "boundary": model.boundary if target == "energy" else None,
        "form": fit.form,
        "coefficients": [
            f"{term} = {value:.4g}" + ("" if math.isnan(error) else f" ± {error:.2g}") for term, value, error in terms
        ],
        "n_obs": fit.n_obs,
        "r_squared": _number(fit.r_squared, ".4f"),
        "f_statistic": _number(fit.f_statistic, ".4g"),
        "mape": _percent(held.mape),
        "worst": _percent(held.worst_ape),
        "negative": _number(held.negative_predictions, "d"),
        "ranges": f"{fit.input_range[0]}–{fit.input_range[1]} in, {fit.output_range[0]}–{fit.output_range[1]} out",
    }


def _data_rows(measurements: pd.DataFrame) -> list[dict[str, Any]]:
    """What the measurements rest on: rows by model and quality, and how unsure they are in the median."""
    rows = []
    keys = [key for key in ("model_name", "quality", "method") if key in measurements]
    for values, group in measurements.groupby(keys, dropna=False):
        row: dict[str, Any] = dict(zip(keys, values, strict=True))
        relative = None
        if "gpu_energy_std_j" in group:
            relative = (group["gpu_energy_std_j"] / group["gpu_energy_j"]).median()
        row |= {"count": len(group), "median_j": _number(group["gpu_energy_j"].median(), ".4g")}
        rows.append(row | {"relative_std": _percent(relative)})
    return rows


def _number(value: float | None, spec: str) -> str:
    return "–" if value is None or not math.isfinite(value) else format(value, spec)


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None or not math.isfinite(fraction) else f"{100 * fraction:.1f} %"
