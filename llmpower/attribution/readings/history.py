"""What ran on a device lately."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.series import BUSY, Regime

PAST_S = 3.0
"""For how long it is remembered."""

MOST_CHANGES = 200
"""Changes that are reported at once."""


class History:
    """What ran, since when: ``regimes[i]`` from ``moments_ns[i]`` on."""

    def __init__(self) -> None:
        self.moments_ns: list[int] = []
        self.regimes: list[Regime] = []

    def extend(self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int) -> None:
        """What ran between cuts; what ran last goes on until ``until_ns``, and nothing is known of what came then."""
        del self.moments_ns[bisect_left(self.moments_ns, cuts_ns[0]) :]
        del self.regimes[len(self.moments_ns) :]
        for moment_ns, regime in zip((*cuts_ns[:-1], max(until_ns, cuts_ns[-1])), (*regimes, BUSY), strict=True):
            if not self.regimes or regime != self.regimes[-1]:
                self.moments_ns.append(moment_ns)
                self.regimes.append(regime)
        old = bisect_right(self.moments_ns, cuts_ns[0] - round(PAST_S * 1e9)) - 1
        if old > 0:
            del self.moments_ns[:old], self.regimes[:old]

    def changes(self, low_ns: int, high_ns: int) -> list[int]:
        """Moments at which it changed, but not all if they are very many."""
        found = self.moments_ns[bisect_right(self.moments_ns, low_ns) : bisect_left(self.moments_ns, high_ns)]
        return found[:: len(found) // MOST_CHANGES + 1]

    def kinds(self, bounds_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[Regime]]:
        """What ran in the middle of each stretch between bounds, by number in a list."""
        where = np.searchsorted(self.moments_ns, (bounds_ns[1:] + bounds_ns[:-1]) // 2, side="right") - 1
        numbers: dict[Regime, int] = {}
        running = [self.regimes[each] if each >= 0 else BUSY for each in where.tolist()]
        return np.array([numbers.setdefault(each, len(numbers)) for each in running], np.int64), list(numbers)
