"""One self-contained HTML page of measurements, models and plans, and its pictures as files."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.report.costs import Factors
    from llmpower.report.drawing import check_drawing, make_directory, save_chart, save_figures
    from llmpower.report.frontier import read_steps
    from llmpower.report.hours import Hours
    from llmpower.report.page import make_figures, render
    from llmpower.report.plans import Plans, plan_steps
    from llmpower.report.residuals import residual_charts

_PUBLIC = {
    "Factors": "costs",
    "Hours": "hours",
    "Plans": "plans",
    "check_drawing": "drawing",
    "make_directory": "drawing",
    "make_figures": "page",
    "plan_steps": "plans",
    "read_steps": "frontier",
    "render": "page",
    "residual_charts": "residuals",
    "save_chart": "drawing",
    "save_figures": "drawing",
}

__all__ = [
    "Factors",
    "Hours",
    "Plans",
    "check_drawing",
    "make_directory",
    "make_figures",
    "plan_steps",
    "read_steps",
    "render",
    "residual_charts",
    "save_chart",
    "save_figures",
]


def __getattr__(name: str) -> object:
    # Altair and Jinja come along only when a page is made.
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
