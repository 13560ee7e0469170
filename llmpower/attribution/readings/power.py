"""Energy from power, for devices that have no counter.

Time is settled from one moment to the next, in chunks that stay small. In each the course of the power is reconstructed
(:mod:`~llmpower.attribution.readings.reconstruction`) from the readings in it and around it and from what ran then,
through the sensor that has predicted the readings best so far (:mod:`~llmpower.attribution.readings.view`). The running
integral starts over in each epoch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.readings.draws import Draws
from llmpower.attribution.readings.history import History
from llmpower.attribution.readings.parts import mixed, parts
from llmpower.attribution.readings.reconstruction import Reconstruction
from llmpower.attribution.readings.sensor import JITTERS, SENSORS
from llmpower.attribution.readings.updates import Updates
from llmpower.attribution.readings.view import View
from llmpower.attribution.series import BUSY, IDLE, Nanoseconds, Reading, Regime, Told, Values, borders

LAG_NS = 40_000_000
"""W/2 + τ, how old is what a reading covers: 35 ms on V100, 38 on A100, 43 on H100, 55 on RTX 4090."""

IDLE_S = 0.2
"""Idle time shorter than two updates tells nothing of the idle power: the sensor still shows what was before."""

STRETCH_S = 0.025
"""Power is taken to be even over so long at most."""

CHUNK_S, DENSE_S, MOST_CUTS = 2.0, 0.25, 250
"""What is settled at once: at most so long, or, where there are many cuts, this many; but that long at least."""

TELLING_S = 1.2
"""For how long after work has begun, changed or ended readings tell sensors apart."""

MISSED = 8.0
"""A reading that stayed the same once, and is so many standard deviations off, was not updated."""

SURE = 30.0
"""By how much a sensor's log-likelihood must be behind to be given up."""


class PowerSeries:
    """Power readings of one device and their running integral."""

    def __init__(self) -> None:
        self._updates = Updates()
        draws = [Draws(sensor) for sensor in SENSORS]
        self._views = [View(each, *jitter) for jitter in JITTERS for each in draws]
        self._history = History()
        self._idle_w: float | None = None
        self._settled: tuple[int, Reading] | None = None
        self._learned_ns = 0
        self._told: list[tuple[int, float, int]] = []

    @property
    def known_since_ns(self) -> int | None:
        """The earliest moment that a reading covers."""
        return self._updates.shown_ns[0] - LAG_NS if self._updates.shown_ns else None

    @property
    def known_until_ns(self) -> int | None:
        """The latest such moment."""
        return self._updates.shown_ns[-1] - LAG_NS if self._updates.shown_ns else None

    @property
    def idle_w(self) -> float | None:
        """Mean power of the latest idle time of at least :data:`IDLE_S`."""
        return self._idle_w

    def extend(self, before_ns: Nanoseconds, after_ns: Nanoseconds, value: Values) -> None:
        """Take new reads in; ``value`` in watts, shapes (n,)."""
        self._updates.extend(before_ns, after_ns, value)

    def break_epoch(self) -> None:
        """The next read has no connection to the latest one."""
        self._updates.break_epoch()

    def start_over(self) -> None:
        """Settle anew from the next cuts on: what ran before them is not known."""
        self._settled, self._history = None, History()

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest moment at or before ``time_ns`` that a reading covers, and that no later one will."""
        shown_ns = self._updates.shown_ns
        if not shown_ns:
            return None
        reach_ns = round(self._view.sensor.reach_s * 1e9)
        place = bisect_right(shown_ns, min(time_ns, shown_ns[-1] - reach_ns) + LAG_NS) - 1
        return shown_ns[place] - LAG_NS if place >= 0 else None

    def readings(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None = None
    ) -> list[Reading | None]:
        """The integral up to each cut; ``None`` where no reading covers it and before what is settled.

        What lies between what is settled and the first cut is settled as well, nothing being assumed of it.
        """
        if self._settled is not None and self._settled[0] < cuts_ns[0]:
            return self.readings((self._settled[0], *cuts_ns), (BUSY, *regimes), until_ns)[1:]
        low_ns, high_ns = max(cuts_ns[0], self._settled[0] if self._settled else 0), cuts_ns[-1]
        found: dict[int, Reading] = {}
        self._told = []
        self._history.extend(cuts_ns, regimes, until_ns or 0)
        for start_ns, end_ns, epoch in self._epochs(low_ns, high_ns) if low_ns <= high_ns else ():
            if self._settled is None or self._settled[1].epoch != epoch:
                self._settled = start_ns, Reading(0.0, 0.0, 0.0, epoch)
            # Readings in between may have been forgotten: within an epoch the integral goes on all the same.
            self._settled = start_ns, self._settled[1]
            found[start_ns] = self._settled[1]
            inside = cuts_ns[bisect_right(cuts_ns, start_ns) : bisect_left(cuts_ns, end_ns)]
            for chunk in _chunks([start_ns, *inside, end_ns]):
                found.update(self._settle(chunk))
                self._learn(chunk[0], chunk[-1])
        readings = [found.get(cut_ns) for cut_ns in cuts_ns]
        for number, regime in enumerate(regimes):
            start, end = readings[number], readings[number + 1]
            duration_s = (cuts_ns[number + 1] - cuts_ns[number]) / 1e9
            if regime == IDLE and start and end and start.epoch == end.epoch and duration_s >= IDLE_S:
                self._idle_w = (end.energy_j - start.energy_j) / duration_s
        return readings

    def borders(self, start_ns: int, end_ns: int) -> list[int]:
        """The first and the last moment that readings cover of each epoch, of those inside the interval."""
        shown_ns, epochs = self._updates.shown_ns, self._updates.epochs
        return [moment_ns - LAG_NS for moment_ns in borders(shown_ns, epochs, start_ns + LAG_NS, end_ns + LAG_NS)]

    def told(self, start_ns: int, end_ns: int) -> Told:
        """The moments in the interval that readings cover, of those between the cuts asked of last."""
        inside = [each for each in self._told if start_ns <= each[0] <= end_ns]
        moments_ns, energies_j, epochs = zip(*inside, strict=True) if inside else ((), (), ())
        return Told(np.array(moments_ns, np.int64), np.array(energies_j, float), np.array(epochs, np.int64))

    def ticks_between(self, start_ns: int, end_ns: int) -> int:
        """Changes of the reading that speak of the interval; a power that does not move shows none."""
        return self._updates.changes(start_ns + LAG_NS, end_ns + LAG_NS)

    def forget(self, before_ns: int) -> None:
        """Drop readings older than ``before_ns``, all but the latest two of them."""
        self._updates.forget(before_ns)

    @property
    def _view(self) -> View:
        return max(self._views, key=lambda view: view.log_likelihood)

    def _epochs(self, low_ns: int, high_ns: int) -> list[tuple[int, int, int]]:
        """Parts of an interval that readings cover, with their epochs; of a single moment, itself."""
        updates = self._updates
        part = updates.between(low_ns + LAG_NS, high_ns + LAG_NS)
        found: dict[int, tuple[int, int]] = {}
        for number in range(max(part.start - 1, 0), min(part.stop + 1, len(updates.shown_ns))):
            moment_ns, epoch = updates.shown_ns[number] - LAG_NS, updates.epochs[number]
            found[epoch] = found.get(epoch, (moment_ns, 0))[0], moment_ns
        clipped = [(max(start, low_ns), min(end, high_ns), epoch) for epoch, (start, end) in found.items()]
        return [each for each in clipped if each[0] < each[1] or each[0] == each[1] == low_ns == high_ns]

    def _settle(self, cuts_ns: list[int]) -> Iterator[tuple[int, Reading]]:
        """Readings of the cuts, from what is settled at the first of them on."""
        assert self._settled is not None
        settled, updates = self._settled[1], self._updates
        own = self._around(cuts_ns, settled.epoch)
        shown_ns = np.array([updates.shown_ns[number] for number in own], np.int64)
        std_s, read_w = (np.array([column[number] for number in own]) for column in (updates.std_s, updates.power_w))
        sparse_ns = _sparse(cuts_ns)
        bounds_ns = self._bounds(cuts_ns, sparse_ns, shown_ns)
        kinds, regimes = self._history.kinds(bounds_ns)
        bounds_s, shown_s, at_s = ((each - cuts_ns[0]) / 1e9 for each in (bounds_ns, shown_ns, sparse_ns))
        # A card at rest says nothing of its sensor, also when it has only just become known that it is at rest.
        work = np.array([regime not in (IDLE, BUSY) for regime in regimes])[kinds]
        since_s = shown_s[:, None] - bounds_s[1:-1][(np.diff(kinds) != 0) & (work[1:] | work[:-1])]
        telling = ((since_s > 0) & (since_s < TELLING_S)).any(axis=1) & (shown_s > 0) & (shown_s <= at_s[-1])
        asked = bounds_s, kinds, regimes, updates.most_w, shown_s, std_s, read_w, updates.period_s
        judging = telling.any() and len(cuts_ns) <= MOST_CUTS
        looked = [(view, view.look(*asked)) for view in (self._views if judging else [self._view])]
        best = max(looked, key=lambda each: each[0].log_likelihood)[1]
        surprising = np.flatnonzero(np.abs(best.surprises) > MISSED).tolist()
        missed = [own[number] for number in surprising if updates.stayed_once(own[number])]
        if missed:
            updates.drop(missed[0])
            return self._settle(cuts_ns)
        scores = np.array([view.score(seen, telling) for view, seen in looked])
        likely = np.exp(scores - scores.max())
        likely /= likely.sum()
        found = mixed(likely, [parts(seen, bounds_s, at_s, view.caution) for view, seen in looked])
        power_w = likely @ np.array([seen.power_w for _, seen in looked])
        if judging:
            self._judge(looked, telling)
        path_j2 = settled.path_var_j2 + np.concatenate(([0.0], np.cumsum(found.own_j2)))
        asked_s = (np.array(cuts_ns) - cuts_ns[0]) / 1e9
        columns = [settled.energy_j + found.energy_j, found.edge_j2, path_j2]
        energy_j, edge_j2, path_j2 = (np.interp(asked_s, at_s, column).tolist() for column in columns)
        readings = [Reading(*each, settled.epoch) for each in zip(energy_j, edge_j2, path_j2, strict=True)]
        self._tell(bounds_ns, power_w, cuts_ns[0], cuts_ns[-1], settled)
        self._settled = cuts_ns[-1], readings[-1]
        return zip(cuts_ns[1:], readings[1:], strict=True)

    def _around(self, cuts_ns: Sequence[int], epoch: int) -> list[int]:
        """The updates of an epoch that say something of what lies between cuts, by number."""
        updates = self._updates
        around_ns = round((self._reach_s + 2 * updates.period_s) * 1e9)
        part = updates.between(cuts_ns[0] - around_ns, cuts_ns[-1] + around_ns)
        return [number for number in range(part.start, part.stop) if updates.epochs[number] == epoch]

    def _bounds(self, cuts_ns: Sequence[int], sparse_ns: Nanoseconds, shown_ns: Nanoseconds) -> Nanoseconds:
        """Bounds of the stretches in which power is taken to be even, from before what readings cover to behind it."""
        low_ns = min(int(shown_ns[0]) - round(self._reach_s * 1e9), cuts_ns[0] - LAG_NS)
        high_ns = max(int(shown_ns[-1]), cuts_ns[-1] + LAG_NS)
        stretch_s = min(STRETCH_S, self._updates.period_s / 2)
        even_ns = np.linspace(low_ns, high_ns, round((high_ns - low_ns) / 1e9 / stretch_s) + 1).astype(np.int64)
        changes_ns = np.array(self._history.changes(low_ns, high_ns), np.int64)
        ascending_ns = np.sort(np.concatenate((even_ns, changes_ns, sparse_ns)))
        # np.unique would load masked arrays.
        found: Nanoseconds = ascending_ns[np.append(True, np.diff(ascending_ns) > 0)]
        return found

    @property
    def _reach_s(self) -> float:
        """How far back the readings of any sensor that it may be reach."""
        return max(view.sensor.reach_s for view in self._views)

    def _judge(self, looked: Sequence[tuple[View, Reconstruction]], telling: NDArray[np.bool_]) -> None:
        """Compare the views by readings that tell them apart; give up those that are far behind."""
        for view, seen in looked:
            view.judge(seen, telling)
        least = self._view.log_likelihood - SURE
        self._views = [view for view in self._views if view.log_likelihood >= least]

    def _tell(self, bounds_ns: NDArray[np.int64], power_w: Values, low_ns: int, high_ns: int, settled: Reading) -> None:
        """Note the energy at the moments that readings cover."""
        used_j = np.concatenate(([0.0], np.cumsum(power_w * np.diff(bounds_ns) / 1e9)))
        part = self._updates.between(low_ns + LAG_NS, high_ns + LAG_NS)
        moments_ns = [shown_ns - LAG_NS for shown_ns in self._updates.shown_ns[part]]
        start_j, *energies_j = np.interp([low_ns, *moments_ns], bounds_ns, used_j).tolist()
        for moment_ns, energy_j in zip(moments_ns, energies_j, strict=True):
            if not self._told or moment_ns > self._told[-1][0]:
                self._told.append((moment_ns, settled.energy_j + energy_j - start_j, settled.epoch))

    def _learn(self, low_ns: int, high_ns: int) -> None:
        """Let what is believed of work learn from readings that speak of what is settled and of nothing before."""
        moments_ns, updates = self._history.moments_ns, self._updates
        part = updates.between(max(self._learned_ns + 1, low_ns), min(high_ns, moments_ns[-1]))
        if part.start >= part.stop or len(moments_ns) < 2:
            return
        before = part.start and updates.epochs[part.start - 1] == updates.epochs[part.start]
        part = slice(part.start - before, part.stop)
        self._learned_ns = updates.shown_ns[part.stop - 1]
        kinds, regimes = self._history.kinds(np.array(moments_ns))
        bounds_s = (np.array(moments_ns) - low_ns) / 1e9
        shown_s = (np.array(updates.shown_ns[part]) - low_ns) / 1e9
        std_s, read_w = np.array(updates.std_s[part]), np.array(updates.power_w[part])
        for draws in dict.fromkeys(view.draws for view in self._views):
            # What ran before it was first told is not known.
            since = shown_s > bounds_s[0] + draws.sensor.reach_s
            draws.learn(bounds_s, kinds, regimes, shown_s[since], std_s[since], read_w[since], int(before and since[0]))


def _chunks(cuts_ns: list[int]) -> Iterator[list[int]]:
    """Cuts in runs, each beginning where the one before ends."""
    start = cuts_ns[0]
    while start < cuts_ns[-1]:
        first = bisect_right(cuts_ns, start)
        end = min(start + round(CHUNK_S * 1e9), cuts_ns[-1])
        if first + MOST_CUTS < len(cuts_ns):
            end = min(end, max(cuts_ns[first + MOST_CUTS], start + round(DENSE_S * 1e9)))
        yield [start, *cuts_ns[first : bisect_left(cuts_ns, end)], end]
        start = end


def _sparse(cuts_ns: list[int]) -> NDArray[np.int64]:
    """Cuts without those that follow another too closely, where they are very many; the first and the last stay."""
    if len(cuts_ns) <= 2 * MOST_CUTS:
        return np.array(cuts_ns, np.int64)
    apart_ns = (cuts_ns[-1] - cuts_ns[0]) // (2 * MOST_CUTS)
    kept = [cuts_ns[0]]
    for cut_ns in cuts_ns[1:-1]:
        if cut_ns - kept[-1] >= apart_ns:
            kept.append(cut_ns)
    return np.array([*kept, cuts_ns[-1]], np.int64)
