"""One self-contained HTML page of measurements, models and plans."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.report.page import render
    from llmpower.report.residuals import residual_plots

_PUBLIC = {"render": "page", "residual_plots": "residuals"}

__all__ = ["render", "residual_plots"]


def __getattr__(name: str) -> object:
    # matplotlib and jinja2 come along only when a page is made.
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
