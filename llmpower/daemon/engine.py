"""Samples and spans in, measurements and a snapshot out: the daemon without its sockets, files and clocks.

Each step takes what was sampled, settles what can be settled, hands finished measurements to the store and publishes
a new snapshot. Nothing here waits or asks for the time more than once, so a test can drive it through an hour in a
moment. What the store cannot take is kept and offered again: a full disk costs a delay, and rows only when it lasts.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from llmpower import __version__
from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.daemon.clock import WallClock
from llmpower.daemon.host import Host
from llmpower.daemon.reading import Reading
from llmpower.exceptions import StoreError
from llmpower.metrics import DeviceState, Histogram, ModelAccounts, SamplerState, Snapshot
from llmpower.sampling import Calibration, Channel, SamplerStatistics, with_periods
from llmpower.store import Appended
from llmpower.types import Device, Field, Measurement, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SETTLE_DELAY_S = 0.5
"""How long a span may take to be reported after its end: a few updates of a counter that is refreshed every 100 ms."""

HOLD_S = 600.0
"""How long a running span holds its time open, and so how far back samples are kept."""

MAX_PENDING = 16_384
"""Finished spans that may wait. Only a span that runs for minutes beside thousands of short ones fills this."""

MAX_WAITING_ROWS = 20_000
"""Measurements kept while the store cannot take them: some 20 MB."""

STORE_RETRY_S = 1.0
_FUTURE_NS = 1_000_000_000
_LOG_AGAIN_NS = 60_000_000_000
_LOGGED_STEP_S = 1.0

logger = logging.getLogger("llmpower.daemon")


class Engine:
    """The daemon's books.

    Args:
        devices: what is sampled, in the sampler's order.
        append: stores measurements and tells what has become of them, or raises StoreError and stores none.
        backend: ``nvml`` or ``simulated``.
        cpu_name: for the name of the system on which a span without GPU ran.
        now: CLOCK_MONOTONIC in nanoseconds.
        device_of: the device whose power a UUID stands for that is no device's own (a MIG instance's parent).
    """

    def __init__(
        self,
        devices: Sequence[Device],
        append: Callable[[Sequence[Measurement]], Appended],
        *,
        backend: str,
        cpu_name: str = "CPU",
        now: Callable[[], int] = time.monotonic_ns,
        device_of: Callable[[str], Device | None] = lambda _: None,
    ) -> None:
        self._devices = tuple(devices)
        self._timelines = {device.uuid: Timeline(device, HOLD_S) for device in devices}
        self._ledger = Ledger(self._timelines, HOLD_S)
        self._host = Host(devices, cpu_name, device_of)
        self._reading = Reading(devices, self.fail)
        self._clock = WallClock()
        self._append = append
        self._backend = backend
        self._now = now
        self._open: dict[str, int] = {}
        self._pending: set[str] = set()
        self._models = ModelAccounts()
        self._rejected: Counter[str] = Counter()
        self._rows: deque[Measurement] = deque()
        self._stored = self._store_errors = self._lost = 0
        self._logged_ns: dict[str, int] = {}
        self._next_store_ns = 0
        self.last_error: str | None = None
        """The latest thing that went wrong, in words."""
        self.snapshot = self._freeze(SamplerState())
        """The state after the latest step; replaced whole, so any thread may read it at any time."""

    @property
    def knowing(self) -> bool:
        """Whether every device has shown something."""
        return all(timeline.known_until_ns is not None for timeline in self._timelines.values())

    @property
    def pending(self) -> int:
        """Finished spans that are not measured yet."""
        return len(self._pending)

    @property
    def unstored(self) -> int:
        """Measurements that the store has not taken yet."""
        return len(self._rows)

    def begin(self, span_id: str, start_ns: int) -> bool:
        """A span has started; false when it is refused (its id runs already, or it starts in the future)."""
        if span_id in self._open or span_id in self._pending:
            self.reject("duplicate")
            return False
        if start_ns > self._now() + _FUTURE_NS:
            self.reject("in_the_future")
            return False
        self._open[span_id] = start_ns
        self._ledger.begin(span_id, start_ns)
        return True

    def finish(self, span: Span) -> None:
        """A span has ended; refused when its id waits already, it ends in the future, or too many wait."""
        if span.span_id in self._pending:
            self.reject("duplicate")
        elif span.end_ns > self._now():
            # It would lay claim to joules that nobody has drawn yet. A clock of another boot or time namespace does so.
            self.cancel(span.span_id)
            self.reject("in_the_future")
        elif len(self._pending) >= MAX_PENDING:
            self.cancel(span.span_id)
            self.reject("overloaded")
        else:
            self._open.pop(span.span_id, None)
            self._pending.add(span.span_id)
            self._ledger.add(self._host.resolve(span))

    def cancel(self, span_id: str) -> None:
        """A running span failed, or its program is gone."""
        self._open.pop(span_id, None)
        self._ledger.cancel(span_id)

    def reject(self, reason: str) -> None:
        """Count something that was refused."""
        self._rejected[reason] += 1

    def fail(self, error: str) -> None:
        """Note that something went wrong; what keeps going wrong is logged once a minute."""
        self.last_error = error
        now_ns = self._now()
        if now_ns >= self._logged_ns.get(error, now_ns):
            self._logged_ns[error] = now_ns + _LOG_AGAIN_NS
            logger.error("%s", error)

    def learn(self, uuid: str, calibrations: Mapping[Field, Calibration]) -> None:
        """Take what calibration has found of a device."""
        self._reading.learn(uuid, calibrations)
        self._devices = tuple(
            with_periods(device, calibrations) if device.uuid == uuid else device for device in self._devices
        )
        for device in self._devices:
            self._timelines[device.uuid].device = device

    def step(
        self,
        samples: NDArray[np.void],
        statistics: SamplerStatistics,
        utc_offset_ns: int,
        *,
        channels: Sequence[Channel] = (),
        settle_delay_s: float = SETTLE_DELAY_S,
    ) -> None:
        """Take in what was sampled, settle, store, publish.

        Args:
            samples: shape (n,), of :data:`~llmpower.sampling.SAMPLE_DTYPE`, all those since the last step.
            statistics: the sampler's own.
            utc_offset_ns: UTC less CLOCK_MONOTONIC.
            channels: how each field is read now.
            settle_delay_s: how long before now the settling stays.
        """
        now_ns = self._now()
        self._note_time(now_ns, utc_offset_ns)
        for device in self._devices:
            own = samples[samples["device"] == device.index]
            columns = (own[name] for name in ("before_ns", "after_ns", "value", "status", "field"))
            self._timelines[device.uuid].extend(*columns)
        self._expire(now_ns)
        finished = self._ledger.settle(now_ns - round(settle_delay_s * 1e9))
        for joules in finished:
            self._pending.discard(joules.span.span_id)
            measurement = self._measurement(joules)
            self._models.add(measurement)
            self._rows.append(measurement)
        for (model_name, phase, kind), energy_j in self._ledger.take_booked().items():
            self._models.book(model_name, phase, "gpu" if kind == "gpu" else "cpu", energy_j)
        self._store(now_ns)
        self._reading.look(samples, statistics, channels, now_ns)
        self.snapshot = self._freeze(_sampler_state(statistics))

    def _expire(self, now_ns: int) -> None:
        """Let go of spans that have run for longer than samples are kept."""
        for span_id, start_ns in list(self._open.items()):
            if start_ns > now_ns - HOLD_S * 1e9:
                continue
            self.cancel(span_id)
            self.reject("abandoned")

    def _note_time(self, now_ns: int, utc_offset_ns: int) -> None:
        step_s = self._clock.note(now_ns, utc_offset_ns) / 1e9
        if abs(step_s) >= _LOGGED_STEP_S:
            logger.warning("the wall clock stepped %s by %.0f s", "forward" if step_s > 0 else "back", abs(step_s))

    def _measurement(self, joules: Joules) -> Measurement:
        span = joules.span
        return Measurement(
            span=span,
            system=self._host.system(span),
            started_at=self._clock.at(span.start_ns),
            gpu_energy_j=joules.gpu_energy_j,
            gpu_energy_std_j=joules.gpu_energy_std_j,
            cpu_energy_j=joules.cpu_energy_j,
            cpu_energy_std_j=joules.cpu_energy_std_j,
            prefill_energy_j=joules.prefill_energy_j,
            decode_energy_j=joules.decode_energy_j,
            quality=joules.quality,
            method=joules.method,
            allocated=joules.allocated,
            simulated=self._host.simulated(span),
            gpu_idle_energy_j=joules.gpu_idle_energy_j,
            cpu_idle_energy_j=joules.cpu_idle_energy_j,
        )

    def _store(self, now_ns: int) -> None:
        if not self._rows or now_ns < self._next_store_ns:
            return
        try:
            appended = self._append(self._rows)
        except StoreError as error:
            self.fail(str(error))
            self._store_errors += 1
            self._next_store_ns = now_ns + round(STORE_RETRY_S * 1e9)
            while len(self._rows) > MAX_WAITING_ROWS:
                self._rows.popleft()
                self._lost += 1
        else:
            self._stored += appended.new
            self._rejected["unstorable"] += appended.unstorable
            self._rejected["duplicate"] += len(self._rows) - appended.new - appended.unstorable
            self._rows.clear()

    def _freeze(self, sampler: SamplerState) -> Snapshot:
        return Snapshot(
            version=__version__,
            backend=self._backend,
            devices=tuple(self._device_state(device) for device in self._devices),
            models=self._models.freeze(),
            sampler=sampler,
            spans_rejected={reason: count for reason, count in self._rejected.items() if count},
            spans_running=len(self._open),
            spans_pending=len(self._pending),
            spans_stored=self._stored,
            store_errors=self._store_errors,
            store_waiting=len(self._rows),
            store_lost=self._lost,
        )

    def _device_state(self, device: Device) -> DeviceState:
        totals = self._ledger.totals[device.uuid]
        return DeviceState(
            device=device,
            power_w=self._timelines[device.uuid].power_w,
            energy_j=totals.energy_j,
            inference_j=totals.inference_j,
            idle_j=totals.idle_j,
            unattributed_j=dict(totals.unattributed_j),
            fields=self._reading.fields(device),
            stalled_s=self._reading.stalled_s.get(device.uuid, 0.0),
        )


def _sampler_state(statistics: SamplerStatistics) -> SamplerState:
    return SamplerState(
        samples=statistics.samples_total,
        dropped=statistics.dropped_total,
        ticks=statistics.ticks_total,
        missed_ticks=statistics.missed_ticks_total,
        lateness_s=Histogram(statistics.lateness_bounds_s, statistics.lateness_counts, statistics.lateness_sum_s),
        read_errors={(kind, code): count for (kind, code), count in statistics.read_errors.items()},
        effective_hz=dict(statistics.effective_hz),
        read_time_s=statistics.read_time_s,
        cpu_time_s=statistics.cpu_time_s,
    )
