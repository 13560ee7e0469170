"""llmpower: joules per request for language models, measured; models of energy and runtime; routing plans.

The public names below load on first use, so that ``import llmpower`` costs nothing that its caller does not need:
none of torch, pandas, scipy and statsmodels is imported until a function that works with them is called.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.inprocess import Monitor
    from llmpower.modelling import fit, screen
    from llmpower.routing import route
    from llmpower.spans import instrument, last_span, span, uninstrument

__version__ = "0.1.0"

_PUBLIC = {
    "Monitor": "llmpower.inprocess",
    "fit": "llmpower.modelling",
    "instrument": "llmpower.spans",
    "last_span": "llmpower.spans",
    "route": "llmpower.routing",
    "screen": "llmpower.modelling",
    "span": "llmpower.spans",
    "uninstrument": "llmpower.spans",
}

__all__ = ["Monitor", "__version__", "fit", "instrument", "last_span", "route", "screen", "span", "uninstrument"]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
