"""Energy up to a moment, with what is uncertain about it.

Two kinds of series give it: the device's own energy counter (:mod:`~llmpower.attribution.ticks.counter`) and, where
there is none, the integral of its power (:mod:`~llmpower.attribution.readings.power`). Both answer in the same terms,
so whoever takes differences need not know which it was.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Nanoseconds = NDArray[np.int64]
Values = NDArray[np.float64]


class Regime(NamedTuple):
    """What a device is doing between two cuts: nothing, a prompt (among others perhaps), or anything else.

    ``of`` says more closely what: pieces of equal regimes are expected to draw about the same power.
    """

    kind: Literal["idle", "prefill", "busy"]
    of: tuple[str, ...] = ()


IDLE = Regime("idle")

BUSY = Regime("busy")
"""Work that nobody told us more of."""

NO_TICK = -1
"""Where there are no ticks, and at an edge, which begins one and ends another."""


class Reading(Struct, frozen=True):
    """Energy of one device up to one moment, from an origin that is the same throughout an epoch.

    What is uncertain about it has three parts. ``boundary_var_j2`` is of this moment alone. ``path_var_j2`` gathers on
    the way, so a difference has the difference of it. Moments within one tick of a counter err together, since the
    tick's total is known: ``tick`` numbers it, ``before_j2`` is the prior variance of the energy from its beginning to
    the moment and ``within_j2`` that of all of it, and a part of it of prior variance A has variance A·(V − A)/V.
    Readings of different epochs have no difference.
    """

    energy_j: float
    boundary_var_j2: float
    path_var_j2: float
    epoch: int
    tick: int = NO_TICK
    before_j2: float = 0.0
    within_j2: float = 0.0

    @property
    def var_j2(self) -> float:
        """Variance of ``energy_j`` itself, the way not counted."""
        return self.boundary_var_j2 + bridge_var_j2(self.before_j2, self.within_j2)


def bridge_var_j2(part_j2: float, whole_j2: float) -> float:
    """Variance of a part of prior variance ``part_j2`` when the sum of all, of ``whole_j2``, is known."""
    return max(part_j2 * (whole_j2 - part_j2) / whole_j2, 0.0) if whole_j2 > 0 else 0.0


def borders(moments_ns: Sequence[int], epochs: Sequence[int], start_ns: int, end_ns: int) -> list[int]:
    """The first and the last moment of each epoch, of those inside the interval; moments and epochs ascend."""
    number, end = bisect_left(moments_ns, start_ns), bisect_right(moments_ns, end_ns)
    found = []
    while number < end:
        first, last = bisect_left(epochs, epochs[number]), bisect_right(epochs, epochs[number]) - 1
        found += [moments_ns[each] for each in (first, last) if number <= each < end]
        number = last + 1
    return found


class Told(NamedTuple):
    """Moments at which the energy is known without dividing anything; of epochs there is no difference."""

    moments_ns: Nanoseconds
    energies_j: Values
    epochs: NDArray[np.int64]


class Series(Protocol):
    """What a timeline asks of a record of energy."""

    @property
    def known_since_ns(self) -> int | None:
        """The earliest moment for which :meth:`readings` can answer; ``None`` while there is none."""

    @property
    def known_until_ns(self) -> int | None:
        """The latest such moment."""

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest time in which nothing ran; ``None`` while there was none."""

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Take good reads in, oldest first; shapes (n,)."""

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest moment at or before ``time_ns`` whose reading no later read can change; ``None`` if none."""

    def readings(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None = None
    ) -> list[Reading | None]:
        """Energy up to each of the ascending ``cuts_ns``; ``None`` where nothing is known.

        ``regimes[i]`` is what the device did between cuts i and i + 1, so there is one less of them. The last of them
        goes on until ``until_ns`` behind the last cut, ``None`` being that cut itself; of the time before the first cut
        and after that nothing is assumed.
        """

    def borders(self, start_ns: int, end_ns: int) -> list[int]:
        """The moments inside the interval, both ends included, at which what is known begins or ends, by epoch."""

    def told(self, start_ns: int, end_ns: int) -> Told:
        """The moments inside the interval, both ends included, at which the device itself has told its energy."""

    def break_epoch(self) -> None:
        """What comes has no connection to what was: the device was lost, or time passed unseen."""

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """How many updates of the device fell into the interval: what the figure rests on."""

    def forget(self, before_ns: int) -> None:
        """Drop what is older, keeping enough to answer from ``before_ns`` on."""
