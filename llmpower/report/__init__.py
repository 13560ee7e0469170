"""One self-contained HTML page of measurements, models and plans."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.report.page import render

__all__ = ["render"]


def __getattr__(name: str) -> object:
    # matplotlib and jinja2 come along only when a page is made.
    if name in __all__:
        return getattr(import_module("llmpower.report.page"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
