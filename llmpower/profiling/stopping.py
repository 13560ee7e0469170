"""When a cell has been measured often enough: by the precision of its energy, by the paper's rule, or by both.

The paper stops a cell when the two-sided 95 % confidence interval of its mean runtime is narrow enough, or after a
number of trials (arXiv 2407.04014, section 4: 0.5 s and 25)::

    h = t(0.975, n − 1) · s / √n        s: standard deviation of the n runtimes

Half a second is nothing for a query of a minute and everything for one of 0.3 s. What a fit on relative error wants is
the same percentage everywhere, and of joules::

    h_E / mean E ≤ precision,   h_E = t(0.975, n − 1) · max(s_E, u_E) / √n

u_E is the root mean square of the standard deviations that the measurements state. Replicates may agree by chance; no
cell is believed to be known better than the meter knows its trials.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llmpower.profiling.readings import Readings

CONFIDENCE = 0.95


def half_width(values: Sequence[float], stds: Sequence[float] = ()) -> float | None:
    """``h`` of the mean, in the values' unit; ``None`` below two trials, which have no spread.

    ``stds`` are the values' own standard deviations, where they are known.
    """
    n = len(values)
    if n < 2:
        return None
    return _student_t(n - 1) * _spread(values, stds) / math.sqrt(n)


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Stop when every interval asked for is narrow, not before ``min_trials`` and in any case at ``max_trials``.

    Two equal trials by chance would have no width at all, hence a minimum of three; ``max_trials`` wins over it.

    Args:
        ci_half_width_s: of the mean runtime, in seconds; ``None`` does not ask for it.
        energy_precision: half-width of the mean energy, relative to it (0.05 is 5 %); ``None`` does not ask for it.
        max_trials: of a cell.
        min_trials: of a cell.
    """

    ci_half_width_s: float | None = 0.5
    energy_precision: float | None = None
    max_trials: int = 25
    min_trials: int = 3

    @property
    def needs_energy(self) -> bool:
        """Whether it cannot decide by runtimes alone."""
        return self.energy_precision is not None

    def is_narrow(self, readings: Readings) -> bool:
        """Whether every interval asked for is narrow enough."""
        return all(width is not None and width <= limit for width, limit in self._widths(readings))

    def is_enough(self, readings: Readings) -> bool:
        """Whether the cell stops."""
        n = len(readings)
        return n >= self.max_trials or (n >= self.min_trials and self.is_narrow(readings))

    def expected_trials(self, readings: Readings) -> int:
        """How many trials the cell will have had when it stops, as far as its first ones tell.

        The least n whose ``h`` is narrow enough if the spread stays as it is; ``min_trials`` before there is one.
        """
        done = len(readings)
        if self.is_enough(readings):
            return done
        lowest = min(max(self.min_trials, done + 1), self.max_trials)
        return max(lowest, *(self._least_n(width, limit, readings) for width, limit in self._widths(readings)))

    def _widths(self, readings: Readings) -> list[tuple[float | None, float]]:
        """Each half-width beside its limit."""
        asked: list[tuple[float | None, float]] = []
        if self.ci_half_width_s is not None:
            asked.append((half_width(readings.runtimes_s), self.ci_half_width_s))
        if self.energy_precision is not None:
            width_j, mean_j = half_width(readings.energies_j, readings.stds_j), readings.mean_energy_j
            asked.append((None if width_j is None or not mean_j else width_j / mean_j, self.energy_precision))
        return asked

    def _least_n(self, width: float | None, limit: float, readings: Readings) -> int:
        done = len(readings)
        if width is None or width <= limit or done < 2:
            return min(self.min_trials, self.max_trials)
        spread = width * math.sqrt(done) / _student_t(done - 1)
        for n in range(done + 1, self.max_trials):
            if _student_t(n - 1) * spread / math.sqrt(n) <= limit:
                return n
        return self.max_trials


def _spread(values: Sequence[float], stds: Sequence[float]) -> float:
    stated = math.sqrt(statistics.fmean(std**2 for std in stds)) if stds else 0.0
    return max(statistics.stdev(values), stated)


def _student_t(degrees: int) -> float:
    """The quantile t(0.975, ``degrees``)."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))
