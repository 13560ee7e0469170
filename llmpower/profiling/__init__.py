"""The measuring campaign: which cells, in which order, how often, and what runs them.

Only :mod:`~llmpower.profiling.loading` and :mod:`~llmpower.profiling.generation` need torch and transformers; their
names load on first use, so that a campaign's options can be checked, and a server be measured, without either. Choosing
cells needs NumPy, reading a server's spans the store.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llmpower.profiling.campaign import Campaign
from llmpower.profiling.events import CellResult, Event, Plan, Skipped, Trial, WarmedUp
from llmpower.profiling.grid import Cell, make_grid, parse_lengths
from llmpower.profiling.journal import Journal, asked_before
from llmpower.profiling.orders import EveryCell, Order
from llmpower.profiling.readings import Joules, Readings
from llmpower.profiling.steadiness import Meter, Settled, idle_power_w, warm
from llmpower.profiling.stopping import StoppingRule, half_width
from llmpower.profiling.workload import CellTooLargeError, Workload

if TYPE_CHECKING:
    from llmpower.profiling.design import Design
    from llmpower.profiling.endpoint import Endpoint
    from llmpower.profiling.generation import Generation
    from llmpower.profiling.loading import (
        Source,
        check_lengths,
        find_model,
        load_model,
        quieten_transformers,
        read_config,
    )
    from llmpower.profiling.served import ClientSpans, Requests, ServerSpans, is_heard

_LAZY = {
    "ClientSpans": "served",
    "Design": "design",
    "Endpoint": "endpoint",
    "Generation": "generation",
    "Requests": "served",
    "ServerSpans": "served",
    "Source": "loading",
    "check_lengths": "loading",
    "find_model": "loading",
    "is_heard": "served",
    "load_model": "loading",
    "quieten_transformers": "loading",
    "read_config": "loading",
}

__all__ = [
    "Campaign",
    "Cell",
    "CellResult",
    "CellTooLargeError",
    "ClientSpans",
    "Design",
    "Endpoint",
    "Event",
    "EveryCell",
    "Generation",
    "Joules",
    "Journal",
    "Meter",
    "Order",
    "Plan",
    "Readings",
    "Requests",
    "ServerSpans",
    "Settled",
    "Skipped",
    "Source",
    "StoppingRule",
    "Trial",
    "WarmedUp",
    "Workload",
    "asked_before",
    "check_lengths",
    "find_model",
    "half_width",
    "idle_power_w",
    "is_heard",
    "load_model",
    "make_grid",
    "parse_lengths",
    "quieten_transformers",
    "read_config",
    "warm",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(f"llmpower.profiling.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
