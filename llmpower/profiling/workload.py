"""What a campaign asks of whatever it measures: a model in this process, a server, or a test's own."""

from __future__ import annotations

from typing import Protocol

from llmpower.exceptions import LlmpowerError
from llmpower.profiling.grid import Cell
from llmpower.profiling.readings import Joules
from llmpower.types import Span


class CellTooLargeError(LlmpowerError):
    """A cell does not fit into the device's memory."""


class Workload(Protocol):
    """Whatever can be run cell by cell."""

    patience_s: float
    """How long a trial's joules are waited for, at most."""

    def warm_up(self, cell: Cell) -> None:
        """Run something of the cell's shape once, unmeasured."""

    def probe(self, cell: Cell) -> float:
        """Run the cell once, unmeasured; seconds that it took."""

    def measure(self, cell: Cell) -> Span:
        """Run one trial; raises CellTooLargeError when the device cannot hold it."""

    def joules(self, span: Span, wait_s: float) -> Joules | None:
        """What a trial's span cost, waiting at most so long; ``None`` where that is not known by then."""

    def joules_of(self, span_id: str) -> Joules | None:
        """The same of a trial of an earlier run, without waiting."""
