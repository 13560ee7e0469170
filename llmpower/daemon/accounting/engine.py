"""Samples and spans in, measurements and a snapshot out: the daemon without its sockets, files and clocks.

Each step takes what was sampled, settles what can be settled, hands finished measurements to the store and publishes
a new snapshot. Nothing here waits, and what time it is it is told, so a test can drive it through an hour in a moment.
The store answers when it can (:mod:`~llmpower.daemon.storing.outbox`): a disk that is slow or full stops nothing here.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmpower import __version__
from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.daemon.accounting.admission import Admission
from llmpower.daemon.accounting.host import Host
from llmpower.daemon.accounting.reading import Reading
from llmpower.daemon.clock import WallClock
from llmpower.daemon.config import HOLD_S
from llmpower.daemon.logs import about
from llmpower.daemon.storing.outbox import MAX_WAITING_ROWS, Append, Outbox
from llmpower.metrics import (
    DeviceState,
    DriftState,
    Histogram,
    ModelAccounts,
    OtlpState,
    SamplerState,
    Snapshot,
    StoreState,
)
from llmpower.sampling import Calibration, Channel, SamplerStatistics, describe_status, with_periods
from llmpower.types import Device, Field, Measurement, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SETTLE_DELAY_S = 0.5
"""How long a span may take to be reported after its end: a few updates of a counter that is refreshed every 100 ms."""

SETTLING_S = 1.0
"""When settling has taken so long, the rest waits for the next step: the service manager waits for a sign of life."""

OWN_ROWS = 5000
"""So many spans of a user may wait, measured or not, however many others' do."""

_LOG_AGAIN_NS = 60_000_000_000
_PAST, _PAST_STEP_NS = 7, 600_000_000_000  # states kept, that far apart: the oldest is an hour old, and a step at most

logger = logging.getLogger("llmpower.daemon")


class Engine:
    """The daemon's books.

    Args:
        devices: what is sampled, in the sampler's order.
        append: begins to store measurements, see :class:`~llmpower.daemon.storing.outbox.Outbox`.
        backend: ``nvml`` or ``simulated``.
        cpu_name: for the name of the system on which a span without GPU ran.
        now: CLOCK_MONOTONIC in nanoseconds.
        device_of: the device whose power a UUID stands for that is not a device's own (a MIG instance's parent).
        store_state: what the store says of itself.
        hold_s: how long a running span holds its time open, and so how far back samples are kept.
        unopened: GPUs that could not be opened, and are not among the devices: the statuses of why, by number.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        append: Append,
        *,
        backend: str,
        cpu_name: str = "CPU",
        now: Callable[[], int] = time.monotonic_ns,
        device_of: Callable[[str], Device | None] = lambda _: None,
        store_state: Callable[[], StoreState] = StoreState,
        hold_s: float = HOLD_S,
        unopened: Mapping[int, int] = MappingProxyType({}),
    ) -> None:
        self._devices = tuple(devices)
        self._packages = tuple(device.uuid for device in devices if device.kind == "cpu_package")
        self._timelines = {device.uuid: Timeline(device, hold_s) for device in devices}
        self._ledger = Ledger(self._timelines, hold_s)
        self._host = Host(devices, cpu_name, device_of, complete=not unopened)
        self._reading = Reading(devices, self.fail)
        self.clock = WallClock()
        """What the wall clock showed when."""
        self._store_state = store_state
        self._store = store_state()
        self._backend = backend
        self._unopened = {number: describe_status(status) for number, status in unopened.items()}
        self._now = now
        self._admission = Admission(self._ledger, self._host, self.reject, hold_s)
        self._models = ModelAccounts()
        self._requests: Counter[str] = Counter()
        self._output_tokens: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._late = 0
        self._settle_delay_s = SETTLE_DELAY_S
        self._logged_ns: dict[tuple[str | None, str], int] = {}
        self.outbox = Outbox(append, self.fail)
        """Measurements on their way to the store; tells which spans are committed."""
        self.on_measured: Callable[[Measurement], None] = lambda _: None
        """Called with each span that is measured, before the store has it."""
        self.compare: Callable[[Measurement], None] = lambda _: None
        """Called with each too, to compare it with a model."""
        self.drift_state: Callable[[], DriftState] = DriftState
        """Asked at each step for what came of that."""
        self.spool_waiting_bytes = 0
        """What waits in the spool, for the next snapshot."""
        self.otlp_state: Callable[[], OtlpState] = OtlpState
        """Asked at each step for what came by OpenTelemetry."""
        self.last_error = self._store.last_fault
        """The latest thing that went wrong, in words."""
        self.last_error_ns = None if self.last_error is None else now()
        """When that was."""
        self.snapshot = self._freeze(SamplerState(), now())
        """The state after the latest step; replaced whole, so any thread may read it at any time."""
        self._past = deque([self.snapshot], maxlen=_PAST)

    @property
    def knowing(self) -> bool:
        """Whether every device has shown something."""
        return all(timeline.known_until_ns is not None for timeline in self._timelines.values())

    @property
    def hour_ago(self) -> Snapshot:
        """The state of then, or of the daemon's begin."""
        return self._past[0]

    @property
    def pending(self) -> int:
        """Finished spans that are not measured yet."""
        return self._admission.pending

    @property
    def unstored(self) -> int:
        """Measurements that the store has not taken yet."""
        return self.outbox.waiting

    def begin(self, span_id: str, start_ns: int, uid: int | None = None) -> bool:
        """A user's span has started; false when it is refused, see :meth:`Admission.begin`."""
        return self._admission.begin((span_id, uid), start_ns, self._now())

    def finish(self, span: Span) -> bool:
        """A span has ended; false when it is refused, see :meth:`Admission.finish`."""
        return self._admission.finish(span, self._now())

    def cancel(self, span_id: str, uid: int | None = None) -> None:
        """A running span failed, or its program is gone."""
        self._admission.cancel((span_id, uid))

    def room(self, uid: int | None) -> int:
        """How many more finished spans of a user can wait, so that none is lost should the store fail now.

        Some can whatever others have waiting, who would lose theirs first.
        """
        left = MAX_WAITING_ROWS - self._admission.pending - self.outbox.waiting
        own = self._admission.pending_of(uid) + self.outbox.waiting_of(uid)
        return min(self._admission.room(uid), max(left, OWN_ROWS - own))

    def reject(self, reason: str) -> None:
        """Count something that was refused."""
        self._rejected[reason] += 1

    def fail(self, error: str, device_uuid: str | None = None, detail: str = "") -> None:
        """Note that something went wrong, with one device or at all; what keeps going wrong is logged once a minute."""
        now_ns = self._now()
        said = f"{error}: {detail}" if detail else error
        self.last_error, self.last_error_ns = said, now_ns
        # What differs in its figures or its detail is the same: senders may put any there.
        kind = device_uuid, re.sub(r"\d+", "#", error)
        if now_ns >= self._logged_ns.get(kind, now_ns):
            self._logged_ns[kind] = now_ns + _LOG_AGAIN_NS
            logger.error("%s", said, extra=None if device_uuid is None else about(device_uuid))

    def learn(self, uuid: str, calibrations: Mapping[Field, Calibration]) -> None:
        """Take what calibration has found of a device."""
        self._reading.learn(uuid, calibrations)
        self._devices = tuple(
            with_periods(device, calibrations) if device.uuid == uuid else device for device in self._devices
        )

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
        self.clock.note(now_ns, utc_offset_ns)
        for device in self._devices:
            own = samples[samples["device"] == device.index]
            columns = (own[name] for name in ("before_ns", "after_ns", "value", "status", "field"))
            self._timelines[device.uuid].extend(*columns)
        for channel in channels:
            self._timelines[self._devices[channel.device].uuid].expect(channel.field, channel.effective_hz)
        self._admission.expire(now_ns)
        self._settle_delay_s = settle_delay_s
        self._take(self._ledger.settle(now_ns - round(settle_delay_s * 1e9)))
        while self._ledger.behind and self._now() - now_ns < SETTLING_S * 1e9:
            self._take(self._ledger.settle(now_ns - round(settle_delay_s * 1e9)))
        for (model_name, phase, kind), energy_j in self._ledger.take_booked().items():
            self._models.book(model_name, phase, "gpu" if kind == "gpu" else "cpu", energy_j)
        self.outbox.turn(now_ns)
        self._store = self._store_state()
        if self._store.faults != self.snapshot.store.faults:
            self.last_error, self.last_error_ns = self._store.last_fault, now_ns
        self._reading.look(samples, statistics, channels, now_ns)
        for uuid, totals in self._ledger.totals.items():
            self._reading.note_unattributed(self._timelines[uuid].device, sum(totals.unattributed_j.values()), now_ns)
        self.snapshot = self._freeze(_sampler_state(statistics), now_ns)
        if now_ns - self._past[-1].taken_ns >= _PAST_STEP_NS:
            self._past.append(self.snapshot)

    def _take(self, settled: Sequence[Joules]) -> None:
        """Hand on what is measured."""
        for joules in settled:
            self._late += joules.late
            measurement = self._measurement(joules)
            self._models.add(measurement)
            if not joules.late:
                self._count(measurement.span)
            self.on_measured(measurement)
            self.compare(measurement)
            self.outbox.put(measurement)

    def _count(self, span: Span) -> None:
        """Note that a span has run on its GPUs, and on the processor, as the ledger charges them."""
        for uuid in (*(span.device_uuids or ()), *self._packages):
            if uuid in self._timelines:
                self._requests[uuid] += 1
                self._output_tokens[uuid] += span.output_tokens

    def _measurement(self, joules: Joules) -> Measurement:
        span = self._admission.settled(joules.span)
        return Measurement(
            span=span,
            system=self._host.system(span),
            started_at=self.clock.at(span.start_ns),
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

    def _freeze(self, sampler: SamplerState, now_ns: int) -> Snapshot:
        outbox = self.outbox
        otlp = self.otlp_state()
        rejected = self._rejected + Counter(duplicate=outbox.duplicates, unstorable=outbox.unstorable)
        rejected += Counter(otlp.refused)
        return Snapshot(
            version=__version__,
            backend=self._backend,
            devices=tuple(self._device_state(device) for device in self._devices),
            models=self._models.freeze(),
            sampler=sampler,
            spans_rejected={reason: count for reason, count in rejected.items() if count},
            spans_running=self._admission.running,
            spans_pending=self._admission.pending,
            spans_stored=outbox.stored,
            spans_late=self._late,
            spans_of_strangers=self._host.strangers,
            latest_stranger=self._host.latest_stranger,
            unopened=self._unopened,
            settle_delay_s=self._settle_delay_s,
            spool_waiting_bytes=self.spool_waiting_bytes,
            store_errors=outbox.errors + self._store.errors,
            store_waiting=outbox.waiting,
            store_lost=outbox.lost,
            store=self._store,
            otlp=otlp,
            drift=self.drift_state(),
            taken_ns=now_ns,
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
            silent_s=self._reading.silent_s(device),
            allocated_j=totals.allocated_j,
            residual_j=totals.residual_j,
            work=self._ledger.costs[device.uuid].work,
            booked_ns=self._ledger.watermark_ns.get(device.uuid),
            requests=self._requests[device.uuid],
            output_tokens=self._output_tokens[device.uuid],
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
