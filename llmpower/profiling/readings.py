"""What a cell's trials have shown: a runtime each, and joules where they are known."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmpower.types import Measurement


@dataclass(frozen=True, slots=True)
class Joules:
    """The energy of one trial in joules, with the standard deviation that its measurement states."""

    energy_j: float
    std_j: float = 0.0


def as_joules(measurement: Measurement | None) -> Joules | None:
    """GPUs and CPU together, as far as measured; ``None`` where they are not."""
    if measurement is None or measurement.energy_j is None or measurement.energy_j <= 0:
        return None
    return Joules(measurement.energy_j, measurement.energy_std_j or 0.0)


@dataclass(frozen=True, slots=True)
class Readings:
    """The trials of one cell in their order; ``joules`` has ``None`` where a trial's energy is not known."""

    runtimes_s: list[float] = field(default_factory=list)
    joules: list[Joules | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.runtimes_s)

    @property
    def energies_j(self) -> list[float]:
        """The energies that are known."""
        return [each.energy_j for each in self.joules if each is not None]

    @property
    def stds_j(self) -> list[float]:
        """Their standard deviations by measurement."""
        return [each.std_j for each in self.joules if each is not None]

    @property
    def mean_runtime_s(self) -> float | None:
        """``None`` before the first trial."""
        return _mean(self.runtimes_s)

    @property
    def mean_energy_j(self) -> float | None:
        """Of the trials whose energy is known; ``None`` where there is none."""
        return _mean(self.energies_j)


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
