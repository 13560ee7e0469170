"""Which trial comes next, and when there have been enough: what a campaign leaves to whoever orders it."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmpower.profiling.grid import Cell, next_cell
from llmpower.profiling.readings import Readings
from llmpower.profiling.stopping import StoppingRule


class Order(Protocol):
    """Decides from the readings alone, so that a campaign that was broken off goes on as if it had not been."""

    @property
    def needs_energy(self) -> bool:
        """Whether runtimes are not enough to decide by."""

    def wanted(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> list[Cell]:
        """The cells that want a trial now; none when the campaign is done. ``left_out`` cannot be measured."""

    def choose(self, wanted: Sequence[Cell], readings: Mapping[Cell, Readings]) -> Cell:
        """Whose turn it is among those that want one."""

    def expected(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> dict[Cell, float]:
        """About how many trials are still to come, by cell."""

    def most(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> dict[Cell, float]:
        """How many trials are still to come at most, by cell."""


@dataclass(frozen=True)
class EveryCell:
    """Rounds over all cells in random order, each until ``rule`` has enough of it."""

    cells: Sequence[Cell]
    rule: StoppingRule
    seed: int = 0

    @property
    def needs_energy(self) -> bool:
        """As the rule does."""
        return self.rule.needs_energy

    def wanted(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> list[Cell]:
        """The cells that the rule has not enough of."""
        return [cell for cell in self.cells if cell not in left_out and not self.rule.is_enough(readings[cell])]

    def choose(self, wanted: Sequence[Cell], readings: Mapping[Cell, Readings]) -> Cell:
        """The first of the current round that has not had its turn."""
        return next_cell(wanted, {cell: len(readings[cell]) for cell in wanted}, self.seed)

    def expected(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> dict[Cell, float]:
        """What the rule expects of each."""
        return {
            cell: self.rule.expected_trials(readings[cell]) - len(readings[cell])
            for cell in self.wanted(readings, left_out)
        }

    def most(self, readings: Mapping[Cell, Readings], left_out: Container[Cell] = ()) -> dict[Cell, float]:
        """What the rule allows each."""
        return {cell: self.rule.max_trials - len(readings[cell]) for cell in self.wanted(readings, left_out)}
