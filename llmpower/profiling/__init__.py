"""The measuring campaign: which cells, in which order, how often, and what runs them.

Only :mod:`~llmpower.profiling.loading` and :mod:`~llmpower.profiling.generation` need torch and transformers; their
names load on first use, so that a campaign's options can be checked without either.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llmpower.profiling.campaign import (
    Campaign,
    CellResult,
    CellTooLargeError,
    Event,
    Skipped,
    Trial,
    WarmedUp,
    Workload,
)
from llmpower.profiling.grid import Cell, make_grid, parse_lengths
from llmpower.profiling.journal import Journal
from llmpower.profiling.stopping import StoppingRule, half_width_s

if TYPE_CHECKING:
    from llmpower.profiling.generation import Generation
    from llmpower.profiling.loading import (
        Source,
        check_lengths,
        find_model,
        load_model,
        quieten_transformers,
        read_config,
    )

_HEAVY = {
    "Generation": "generation",
    "Source": "loading",
    "check_lengths": "loading",
    "find_model": "loading",
    "load_model": "loading",
    "quieten_transformers": "loading",
    "read_config": "loading",
}

__all__ = [
    "Campaign",
    "Cell",
    "CellResult",
    "CellTooLargeError",
    "Event",
    "Generation",
    "Journal",
    "Skipped",
    "Source",
    "StoppingRule",
    "Trial",
    "WarmedUp",
    "Workload",
    "check_lengths",
    "find_model",
    "half_width_s",
    "load_model",
    "make_grid",
    "parse_lengths",
    "quieten_transformers",
    "read_config",
]


def __getattr__(name: str) -> object:
    if name in _HEAVY:
        return getattr(import_module(f"llmpower.profiling.{_HEAVY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
