"""One picture of a plan: where it lies on the frontier of energy and accuracy, and what others would pay there.

The dashed line is all that a dispatcher can reach that does not look at the query: mixes of single models. What lies
between it and the frontier, straight down at the plan's accuracy, is the saving.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.exceptions import InputError, LlmpowerError
from llmpower.files import replacing
from llmpower.routing import Outcome, RoutingPlan
from llmpower.routing.baselines import best_blind_mix

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg")
LABELS = {
    "round_robin": "round robin",
    "random": "random",
    "best_blind_mix": "best blind mix",
    "same_shares_blind": "same shares, blind",
    "hybrid_threshold": "token threshold",
}
MARKERS = ("v", "^", "D", "s", "X")


def check_plot(path: Path, option: str = "--plot") -> None:
    """Refuse what cannot become a picture before anything is computed for it.

    Raises:
        InputError: the name ends in neither ``.png`` nor ``.svg``.
        LlmpowerError: the extra ``report`` is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(option, path, f"cannot tell the format from the name; end it in {' or '.join(SUFFIXES)}")
    try:
        import matplotlib  # noqa: F401  # the question is whether it is there
    except ImportError as error:
        raise LlmpowerError("plots need matplotlib; pip install 'llmpower[report]'") from error


def save_plan_plot(plan: RoutingPlan, points: pd.DataFrame, path: Path, option: str = "--plot") -> None:
    """Draw ``plan`` on the frontier ``points`` (``energy_j`` and the plan's accuracy, a row a point) into ``path``.

    Raises:
        InputError: ``path`` cannot be written, or the plan has no accuracy to be drawn against.
    """
    import matplotlib as mpl

    check_plot(path, option)
    if plan.accuracy_query_mean is None:
        raise InputError(option, path, "a frontier is of energy and accuracy; give --accuracy")
    figure = plan_figure(plan, points)
    # A fixed salt and no date: the same figures give the same file.
    with replacing(path, option) as temporary, mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llmpower"}):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, dpi=150)


def plan_figure(plan: RoutingPlan, points: pd.DataFrame) -> Any:
    """The matplotlib figure."""
    from matplotlib.ticker import EngFormatter, PercentFormatter

    from llmpower.report.plots import COLOURS, new_figure

    by_tokens = plan.accuracy_weighting == "tokens"
    figure, axes = new_figure(f"accuracy, mean over {'tokens' if by_tokens else 'queries'}", "energy of the queries")
    axes.yaxis.set_major_formatter(EngFormatter(unit="J"))
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=1))
    column = "accuracy_token_weighted" if by_tokens else "accuracy_query_mean"
    points = points.sort_values(column)
    axes.plot(points[column], points["energy_j"], color=COLOURS[0], marker=".", label="frontier")
    _draw_singles(axes, plan, COLOURS[1])
    others = {name: outcome for name, outcome in plan.baselines.items() if name in LABELS}
    for marker, (name, outcome) in zip(MARKERS, others.items(), strict=False):
        colour = COLOURS[2] if name == "hybrid_threshold" else COLOURS[3]
        at = (_accuracy(plan, outcome), outcome.energy_j)
        axes.plot(*at, marker=marker, color=colour, linestyle="none", label=LABELS[name] + _late(outcome))
    label = f"plan, ζ = {plan.zeta:.3g}"
    error = None if plan.energy is None else [[plan.energy_j - plan.energy.low_j], [plan.energy.high_j - plan.energy_j]]
    axes.errorbar(
        _accuracy(plan, plan),
        plan.energy_j,
        yerr=error,
        fmt="*",
        markersize=11,
        color="#000000",
        capsize=3,
        label=label,
    )
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize="small")
    saved = f"{100 * plan.saving.fraction:.0f} % less than the best blind mix at equal accuracy"
    axes.set_title(f"SIMULATED: {saved}" if plan.simulated else saved, fontsize="medium")
    return figure


def _draw_singles(axes: Axes, plan: RoutingPlan, colour: str) -> None:
    """Each model alone, and the cheapest mixes of them at each accuracy."""
    singles = [plan.baselines[f"single:{name}"] for name in plan.model_names]
    accuracy = np.array([_accuracy(plan, single) for single in singles])
    energy_j = np.array([single.energy_j for single in singles])
    axes.plot(accuracy, energy_j, marker="o", color=colour, linestyle="none", label="one model for all")
    for name, single, x, y in zip(plan.model_names, singles, accuracy, energy_j, strict=True):
        axes.annotate(name + _late(single), (x, y), textcoords="offset points", xytext=(5, 5), fontsize="x-small")
    # Less accuracy than the cheapest model's saves nothing. From there on the least is a line from corner to corner.
    x = np.unique(accuracy[accuracy >= accuracy[energy_j == energy_j.min()].max()])
    y = [best_blind_mix(energy_j, accuracy, least) @ energy_j for least in x]
    axes.plot(x, y, color=colour, linestyle="--", label="blind mixes")


def _late(outcome: Outcome) -> str:
    """Said of what breaks a limit on latency, and so is no alternative."""
    return " (late)" if outcome.late_queries else ""


def _accuracy(plan: RoutingPlan, outcome: Outcome) -> float:
    """The mean that the plan pursues."""
    mean = outcome.accuracy_token_weighted if plan.accuracy_weighting == "tokens" else outcome.accuracy_query_mean
    assert mean is not None
    return mean
