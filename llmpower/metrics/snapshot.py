"""The state of the daemon at one moment, frozen.

The daemon's loop builds a new one and puts it in place of the old by one assignment. Threads that serve scrapes take
whichever is there: no lock, no half-updated sum, and the books balance in every single scrape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmpower.types import Device, Quality, WorkCost


@dataclass(frozen=True, slots=True)
class SpanExemplar:
    """One span of those that a bucket counts: its id, its value there, and when it ended (seconds since 1970)."""

    span_id: str
    value: float
    ended_s: float


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by upper bound: ``counts[i]`` lie in (bounds[i-1], bounds[i]], the last above every bound.

    ``exemplars`` has the latest of each bucket, where one is kept; it is empty where none ever is.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: tuple[SpanExemplar | None, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldState:
    """How one field of a device is read.

    ``status`` is in words, ``ok`` when the latest read was good. Period, jitter and latencies are those of the
    calibration, ``None`` before it; ``edge_width_s`` is how closely the latest updates were seen, ``locked`` whether
    reads come when updates are due.
    """

    status: str
    requested_hz: float
    effective_hz: float
    locked: bool = False
    edge_width_s: float | None = None
    period_s: float | None = None
    jitter_s: float | None = None
    latency_p50_s: float | None = None
    latency_p99_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceState:
    """One device and its joules since the daemon began, each in one account: energy = inference + idle + unattributed.

    ``power_w`` is the latest reading; ``unattributed_j`` is keyed by reason, ``fields`` by what is read.
    ``stalled_s`` is how long a driver call has kept the device from being read, 0 when none does; ``silent_s`` is how
    long it has shown nothing, or its counter has failed, ``None`` where that is not watched. ``allocated_j`` of the
    inference was shared by several spans at a time, by the costs in ``work``, which leave ``residual_j`` of it
    unexplained. All joules are booked up to ``booked_ns`` (CLOCK_MONOTONIC, ``None`` before anything is); ``requests``
    with ``output_tokens`` are those that ran here, on this device and maybe others, and are measured.
    """

    device: Device
    power_w: float | None
    energy_j: float
    inference_j: float
    idle_j: float
    unattributed_j: Mapping[str, float]
    fields: Mapping[str, FieldState] = field(default_factory=dict)
    stalled_s: float = 0.0
    silent_s: float | None = None
    allocated_j: float = 0.0
    residual_j: float = 0.0
    work: tuple[WorkCost, ...] = ()
    booked_ns: int | None = None
    requests: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelState:
    """What one model has cost: ``energy_j`` by (phase, device kind), tokens by direction."""

    requests: Mapping[Quality, int]
    energy_j: Mapping[tuple[str, str], float]
    tokens: Mapping[str, int]
    request_energy_j: Histogram
    duration_s: Histogram


@dataclass(frozen=True, slots=True)
class SamplerState:
    """What the sampler says of itself: rates by source, read errors by (source, code)."""

    samples: int = 0
    dropped: int = 0
    ticks: int = 0
    missed_ticks: int = 0
    lateness_s: Histogram = Histogram((), (0,), 0.0)
    read_errors: Mapping[tuple[str, int], int] = field(default_factory=dict)
    effective_hz: Mapping[str, float] = field(default_factory=dict)
    read_time_s: float = 0.0
    cpu_time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the database says of itself; sizes are ``None`` while it cannot be reached.

    ``size_bytes`` is the file, ``free_bytes`` the part of it that holds nothing, ``log_bytes`` the write-ahead log.
    ``deleted`` counts spans by the limit that they exceeded, ``age`` or ``size``. ``errors`` are failures of upkeep,
    ``corruptions`` the databases that were set aside. ``faults`` counts what was said to be wrong, ``last_fault`` is
    the latest of it in words.
    """

    size_bytes: int | None = None
    free_bytes: int | None = None
    log_bytes: int | None = None
    deleted: Mapping[str, int] = field(default_factory=dict)
    errors: int = 0
    corruptions: int = 0
    commit_s: Histogram = Histogram((), (0,), 0.0)
    faults: int = 0
    last_fault: str | None = None


@dataclass(frozen=True, slots=True)
class OtlpState:
    """What came by OpenTelemetry: ``answers`` by HTTP status, ``spans`` by what became of them, ``refused`` by reason.

    ``unplaced`` are those accepted of which nobody knows on which GPUs they ran, ``unplaced_reason`` why not, of the
    latest. ``clock_error_s`` is by how much their moments may be off, the wall clock being what they are timed by.
    """

    answers: Mapping[int, int] = field(default_factory=dict)
    spans: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    unplaced: int = 0
    unplaced_reason: str = ""
    clock_error_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelDrift:
    """What a model's requests cost beside its prediction, those that ran ``alone`` or ``shared`` their card.

    ``ratio`` is measured over predicted, a weighted geometric mean; ``std_error`` that of its logarithm, ``None``
    before it is known; ``tolerance`` how far from 1 the ratio may be by the model's own held-out error. ``drifted`` is
    true where it is further off, beyond doubt. ``system`` is what the model was fitted on.
    """

    model_name: str
    system: str
    sharing: str
    simulated: bool
    ratio: float
    std_error: float | None
    tolerance: float
    spans: int
    drifted: bool


@dataclass(frozen=True, slots=True)
class DriftState:
    """Requests beside a file of ``models``: the ``charts``, and ``outcomes``, how many were compared or why not.

    Without a file there is none of it.
    """

    models_file: str | None = None
    models: int = 0
    outcomes: Mapping[str, int] = field(default_factory=dict)
    charts: tuple[ModelDrift, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a scrape or a status request can ask for.

    Of the spans, those ``running`` have begun, those ``pending`` have ended and wait to be measured, and those
    ``stored`` are rows in the store since the daemon began. ``store_waiting`` counts the measured ones that the store
    could not take yet, ``store_lost`` those given up because too many waited. ``spans_late`` came when their time was
    settled, which stays ``settle_delay_s`` behind the present. ``spans_of_strangers`` name a GPU that is not sampled
    here, the latest ``latest_stranger``. ``unopened`` has the GPUs that the driver counts and would not open when the
    daemon started, by its numbers, and why not; none of them is sampled. ``taken_ns`` is when all this was so
    (CLOCK_MONOTONIC).
    """

    version: str
    backend: str
    devices: tuple[DeviceState, ...] = ()
    models: Mapping[str, ModelState] = field(default_factory=dict)
    sampler: SamplerState = SamplerState()
    spans_rejected: Mapping[str, int] = field(default_factory=dict)
    spans_running: int = 0
    spans_pending: int = 0
    spans_stored: int = 0
    spans_late: int = 0
    spans_of_strangers: int = 0
    latest_stranger: str = ""
    unopened: Mapping[int, str] = field(default_factory=dict)
    settle_delay_s: float = 0.0
    spool_waiting_bytes: int = 0
    store_errors: int = 0
    store_waiting: int = 0
    store_lost: int = 0
    store: StoreState = StoreState()
    otlp: OtlpState = OtlpState()
    drift: DriftState = DriftState()
    taken_ns: int = 0
