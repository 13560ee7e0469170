"""When a cell has been measured often enough: the paper's rule.

A cell stops when the two-sided 95 % confidence interval of its mean runtime is narrow enough, or after a number of
trials (arXiv 2407.04014, section 4: 0.5 s and 25)::

    h = t(0.975, n − 1) · s / √n        s: standard deviation of the n runtimes
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


def half_width_s(runtimes_s: Sequence[float]) -> float | None:
    """``h`` of the mean runtime in seconds; ``None`` below two trials, which have no spread."""
    n = len(runtimes_s)
    if n < 2:
        return None
    return _student_t(n - 1) * statistics.stdev(runtimes_s) / math.sqrt(n)


@dataclass(frozen=True, slots=True)
class StoppingRule:
    """Stop at ``h ≤ ci_half_width_s``, not before ``min_trials`` and in any case at ``max_trials``.

    Two equal runtimes by chance would have no width at all, hence a minimum of three; ``max_trials`` wins over it.
    """

    ci_half_width_s: float = 0.5
    max_trials: int = 25
    min_trials: int = 3

    def is_narrow(self, runtimes_s: Sequence[float]) -> bool:
        """Whether the interval is narrow enough."""
        width_s = half_width_s(runtimes_s)
        return width_s is not None and width_s <= self.ci_half_width_s

    def is_enough(self, runtimes_s: Sequence[float]) -> bool:
        """Whether the cell stops."""
        n = len(runtimes_s)
        return n >= self.max_trials or (n >= self.min_trials and self.is_narrow(runtimes_s))

    def expected_trials(self, runtimes_s: Sequence[float]) -> int:
        """How many trials the cell will have had when it stops, as far as its first ones tell.

        The least n whose ``h`` is narrow enough if the spread stays as it is; ``min_trials`` before there is one.
        """
        done = len(runtimes_s)
        if self.is_enough(runtimes_s):
            return done
        lowest = min(max(self.min_trials, done + 1), self.max_trials)
        if done < 2:
            return lowest
        spread_s = statistics.stdev(runtimes_s)
        for n in range(lowest, self.max_trials):
            if _student_t(n - 1) * spread_s / math.sqrt(n) <= self.ci_half_width_s:
                return n
        return self.max_trials


def _student_t(degrees: int) -> float:
    """The quantile t(0.975, ``degrees``)."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))
