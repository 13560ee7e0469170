"""One device's history: its reads in, its energy at any recent moment out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.readings.power import PowerSeries
from llmpower.attribution.series import Nanoseconds, Reading, Regime, Series, Told, Values
from llmpower.attribution.ticks.counter import CounterSeries
from llmpower.attribution.ticks.habits import habits_of
from llmpower.attribution.ticks.sensed import Sensed
from llmpower.types import EPOCH_STATUS, Device, Field, Method, Quality

RAPL_REFRESH_S = 0.001
"""How old a RAPL counter can be when it is read (kernel documentation: refreshed about every millisecond)."""

STALL_S = 2.0
"""A device that has shown nothing new for this long is stalled; sensors have been seen to freeze for 0.9 s."""

STALL_READS = 5.0
"""Or for so many times as long as lies between its reads, where they are slow and so few that this is longer: four of
them are put together now and then, to see one update closely (csrc/phase.h)."""

MEASURED_TICKS, INTERPOLATED_TICKS = 10, 2


class Timeline:
    """What one device has shown within the last ``hold_s`` seconds, and since it was last asked for its energy.

    Energy comes from the device's counter where it has one, else from its power: instantaneous power if it answers,
    the one-second mean if that is all there is.
    """

    def __init__(self, device: Device, hold_s: float = 600.0) -> None:
        self.device = device
        self.power_w: float | None = None
        """The latest power reading in watts; ``None`` while there is none."""
        self.method: Method = "counter" if device.has_energy_counter else "power" if device.has_power else "none"
        self._hold_ns = round(hold_s * 1e9)
        self._stall_ns = STALL_S * 1e9
        self._expected_at: int | None = None
        self._asked_ns: int | None = None
        refresh_s = None if device.kind == "gpu" else RAPL_REFRESH_S
        counts = self.method == "counter"
        self._sensed = Sensed() if counts and device.has_power else None
        self._counter = CounterSeries(refresh_s, habits_of(device), self._sensed) if counts else None
        self._series: Series = self._counter or PowerSeries()

    @property
    def known_since_ns(self) -> int | None:
        """The earliest moment whose energy is known; ``None`` while there is none."""
        return self._series.known_since_ns

    @property
    def known_until_ns(self) -> int | None:
        """The latest moment whose energy is known; ``None`` before the first."""
        return self._series.known_until_ns

    @property
    def idle_w(self) -> float | None:
        """What the device drew when last nothing ran on it; ``None`` while that has not been seen."""
        return self._series.idle_w

    def expect(self, field: Field, reads_hz: float) -> None:
        """This field is read so many times a second from its next read on."""
        if reads_hz > 0 and (field == Field.ENERGY) == (self.method == "counter"):
            stall_ns = max(STALL_S, STALL_READS / reads_hz) * 1e9
            # The next read may have been planned when fewer were made.
            self._stall_ns = max(self._stall_ns, stall_ns) if self._expected_at == self.known_until_ns else stall_ns
            self._expected_at = self.known_until_ns

    def stalled(self, now_ns: int) -> bool:
        """Whether nothing new has been learnt for longer than reads lie apart (or ever)."""
        known_ns = self.known_until_ns
        return known_ns is None or now_ns - known_ns > self._stall_ns

    def extend(
        self,
        before_ns: Nanoseconds,
        after_ns: Nanoseconds,
        value: NDArray[np.int64],
        status: NDArray[np.int32],
        field: NDArray[np.uint8],
    ) -> None:
        """Take in this device's reads, oldest first: columns of samples, each of shape (n,), ``value`` in µJ or µW."""
        good = status == 0
        asked = (field == Field.POWER_INSTANT) | (field == Field.POWER_AVERAGE)
        power = good & asked
        if power.any():
            self.power_w = float(value[power][-1]) / 1e6
        elif asked.any():
            self.power_w = None  # it fails to answer: the last value is no longer the power now
        counts = self.method == "counter"
        taken = good & (field == Field.ENERGY) if counts else power
        # Each field is marked on its own, at its next read; a mark of a field that gives us no energy breaks nothing.
        marks, of_counter = status == EPOCH_STATUS, field == Field.ENERGY
        reads = before_ns, after_ns, value / 1e6
        if self._counter:
            self._counter.expect(self._stall_ns)
        _feed(self._series, reads, taken, marks & (of_counter == counts))
        if self._sensed:
            _feed(self._sensed, reads, power, marks & ~of_counter)
        if taken.any():
            old_ns = int(after_ns[taken][-1]) - self._hold_ns
            # A daemon that stood still for longer has not settled what was read meanwhile.
            self._series.forget(old_ns if self._asked_ns is None else min(old_ns, self._asked_ns))

    def floor_ns(self, time_ns: int) -> int | None:
        """The latest moment at or before ``time_ns`` whose reading no later read can change; ``None`` if none."""
        return self._series.floor_ns(time_ns)

    def readings(
        self, cuts_ns: Sequence[int], regimes: Sequence[Regime], until_ns: int | None = None
    ) -> list[Reading | None]:
        """Energy up to each of the ascending cuts; ``regimes[i]`` is what ran between cuts i and i + 1.

        What ran last goes on until ``until_ns``, as far as is known.
        """
        self._asked_ns = cuts_ns[-1]
        return self._series.readings(cuts_ns, regimes, until_ns)

    def borders(self, start_ns: int, end_ns: int) -> list[int]:
        """The moments inside the interval at which what is known begins or ends, by epoch."""
        return self._series.borders(start_ns, end_ns)

    def told(self, start_ns: int, end_ns: int) -> Told:
        """Moments inside the interval at which the device itself has told its energy, and no rule divides it."""
        return self._series.told(start_ns, end_ns)

    def quality(self, start_ns: int, end_ns: int) -> Quality:
        """What a figure for this interval rests on; what rests on power is never called measured."""
        ticks = self._series.ticks_between(start_ns, end_ns)
        if ticks >= MEASURED_TICKS and self.method == "counter":
            return "measured"
        if self._sensed:
            ticks = max(ticks, self._sensed.ticks_between(start_ns, end_ns))
        return "interpolated" if ticks >= INTERPOLATED_TICKS else "modelled"


def _feed(
    series: Series | Sensed,
    reads: tuple[Nanoseconds, Nanoseconds, Values],
    taken: NDArray[np.bool_],
    breaks: NDArray[np.bool_],
) -> None:
    """Give a series those of the reads that it takes, and the breaks between them."""
    before_ns, after_ns, value = reads
    start = 0
    for end in (*np.flatnonzero(breaks).tolist(), len(breaks)):
        part = np.flatnonzero(taken[start:end]) + start
        series.extend(before_ns[part], after_ns[part], value[part])
        if end < len(breaks):
            series.break_epoch()
        start = end
