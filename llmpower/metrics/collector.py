"""The snapshot in Prometheus's words: base units, request ids never a label.

Names, labels and units are an interface: dashboards and alerts are written against them. A reading that is not there
gives no sample, never a 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from llmpower.metrics.devices import device_families
from llmpower.metrics.drift import drift_families
from llmpower.metrics.exposition import HistogramFamily
from llmpower.metrics.snapshot import OtlpState, SamplerState, Snapshot


class LlmpowerCollector(Collector):
    """Collects every ``llmpower_*`` metric from the snapshot that ``get_snapshot`` returns at that moment.

    ``reasons`` are those for which spans may be rejected; each has a sample from the start, so that the first rejection
    is an increase.
    """

    def __init__(self, get_snapshot: Callable[[], Snapshot], reasons: Iterable[str] = ()) -> None:
        self._get_snapshot = get_snapshot
        self._reasons = tuple(reasons)

    def collect(self) -> Iterator[Metric]:
        """The families, all from one snapshot."""
        snapshot = self._get_snapshot()
        yield from device_families(snapshot.devices, len(snapshot.unopened))
        yield from _inference(snapshot)
        yield from drift_families(snapshot.drift)
        yield from _sampler(snapshot.sampler)
        yield from _daemon(snapshot, self._reasons)
        yield from _otlp(snapshot.otlp)
        yield from _store(snapshot)


def _inference(snapshot: Snapshot) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "llmpower_inference_requests",
        "Spans accounted for, by how their energy was found.",
        labels=("model_name", "quality"),
    )
    energy = CounterMetricFamily(
        "llmpower_inference_energy_joules",
        "Energy of the spans by phase (prefill, decode, or unsplit where the first token was not seen) and device.",
        labels=("model_name", "phase", "device_kind"),
    )
    tokens = CounterMetricFamily(
        "llmpower_inference_tokens", "Tokens of the spans, whole batches.", labels=("model_name", "direction")
    )
    request_energy = HistogramFamily(
        "llmpower_inference_request_energy_joules",
        "Energy of one span: its GPUs and the CPU packages, of these whichever were measured.",
        labels=("model_name",),
    )
    duration = HistogramFamily("llmpower_inference_duration_seconds", "Duration of one span.", labels=("model_name",))
    for name, state in snapshot.models.items():
        for quality, count in state.requests.items():
            requests.add_metric((name, quality), count)
        for (phase, kind), joules in state.energy_j.items():
            energy.add_metric((name, phase, kind), joules)
        for direction, count in state.tokens.items():
            tokens.add_metric((name, direction), count)
        request_energy.add_metric((name,), state.request_energy_j)
        duration.add_metric((name,), state.duration_s)
    yield from (requests, energy, tokens, request_energy, duration)


def _sampler(sampler: SamplerState) -> Iterator[Metric]:
    rate = GaugeMetricFamily(
        "llmpower_sampler_effective_hertz",
        "Reads per second of each field, at most; fewer than asked for when calls are slow or no span runs.",
        labels=("source",),
    )
    for source, hertz in sorted(sampler.effective_hz.items()):
        rate.add_metric((source,), hertz)
    errors = CounterMetricFamily(
        "llmpower_sampler_read_errors",
        "Reads that failed, by the code of NVML or the negative errno of the kernel.",
        labels=("source", "code"),
    )
    for (source, code), count in sorted(sampler.read_errors.items()):
        errors.add_metric((source, str(code)), count)
    lateness = HistogramFamily("llmpower_sampler_lateness_seconds", "How late the sampling thread woke.")
    lateness.add_metric((), sampler.lateness_s)
    yield from (rate, errors, lateness)
    yield CounterMetricFamily("llmpower_sampler_samples", "Samples taken.", sampler.samples)
    yield CounterMetricFamily(
        "llmpower_sampler_dropped_samples", "Samples lost because the ring was full.", sampler.dropped
    )
    yield CounterMetricFamily("llmpower_sampler_ticks", "Times the sampling thread woke.", sampler.ticks)
    yield CounterMetricFamily(
        "llmpower_sampler_missed_ticks", "Deadlines that passed while it still read.", sampler.missed_ticks
    )
    yield CounterMetricFamily(
        "llmpower_sampler_read_seconds", "Time spent inside the devices' calls.", sampler.read_time_s
    )
    yield CounterMetricFamily(
        "llmpower_sampler_cpu_seconds", "Processor time of the sampling thread.", sampler.cpu_time_s
    )


def _daemon(snapshot: Snapshot, reasons: tuple[str, ...]) -> Iterator[Metric]:
    yield InfoMetricFamily(
        "llmpower_build",
        "The program that answers.",
        value={"version": snapshot.version, "backend": snapshot.backend},
    )
    rejected = CounterMetricFamily(
        "llmpower_spans_rejected",
        "Packets refused at the socket and spans refused after it.",
        labels=("reason",),
    )
    for reason, count in sorted((dict.fromkeys(reasons, 0) | dict(snapshot.spans_rejected)).items()):
        rejected.add_metric((reason,), count)
    yield rejected
    yield GaugeMetricFamily("llmpower_spans_running", "Spans that have begun and not ended.", snapshot.spans_running)
    yield GaugeMetricFamily(
        "llmpower_spans_pending", "Finished spans that wait for the counters to pass them.", snapshot.spans_pending
    )
    yield CounterMetricFamily(
        "llmpower_spans_late",
        "Spans that came when their time was already accounted for, and so have no energy.",
        snapshot.spans_late,
    )
    yield GaugeMetricFamily(
        "llmpower_settle_delay_seconds",
        "How far behind the present energy is accounted for; more where spans come by OpenTelemetry, after their end.",
        snapshot.settle_delay_s,
    )
    yield GaugeMetricFamily(
        "llmpower_spool_waiting_bytes",
        "Finished spans in the spool that the daemon has no room for yet.",
        snapshot.spool_waiting_bytes,
    )


def _otlp(otlp: OtlpState) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "llmpower_otlp_requests",
        "HTTP requests to the OpenTelemetry receiver, by the answer's status.",
        labels=("code",),
    )
    for status, count in sorted(otlp.answers.items()):
        answers.add_metric((str(status),), count)
    spans = CounterMetricFamily(
        "llmpower_otlp_spans",
        "Spans received by OpenTelemetry, by what became of them: accepted, refused, no_request (of a start-up, of "
        "HTTP), call (to another server), nested (in a request already counted), repeated.",
        labels=("fate",),
    )
    for fate in ("accepted", "refused", "no_request", "call", "nested", "repeated"):
        spans.add_metric((fate,), otlp.spans.get(fate, 0))
    yield from (answers, spans)


def _store(snapshot: Snapshot) -> Iterator[Metric]:
    store = snapshot.store
    yield CounterMetricFamily(
        "llmpower_store_errors", "Writes to the database and turns of its upkeep that failed.", snapshot.store_errors
    )
    yield CounterMetricFamily(
        "llmpower_store_corruptions", "Damaged databases that were set aside and replaced.", store.corruptions
    )
    yield GaugeMetricFamily(
        "llmpower_store_waiting_spans", "Measured spans that the database has not taken yet.", snapshot.store_waiting
    )
    yield CounterMetricFamily(
        "llmpower_store_lost_spans", "Measured spans given up because too many waited.", snapshot.store_lost
    )
    deleted = CounterMetricFamily(
        "llmpower_store_deleted_spans",
        "Spans deleted because of retention.time (age) or retention.size (size).",
        labels=("reason",),
    )
    for reason, count in sorted(store.deleted.items()):
        deleted.add_metric((reason,), count)
    yield deleted
    # A database that cannot be reached has no size.
    size = GaugeMetricFamily("llmpower_store_size_bytes", "The database file.", labels=())
    free = GaugeMetricFamily(
        "llmpower_store_free_bytes", "The part of the database file that holds nothing.", labels=()
    )
    log = GaugeMetricFamily(
        "llmpower_store_log_bytes",
        "Its write-ahead log; beyond some 10 MB, a reader keeps an old view of the database open.",
        labels=(),
    )
    for family, found in ((size, store.size_bytes), (free, store.free_bytes), (log, store.log_bytes)):
        if found is not None:
            family.add_metric((), found)
        yield family
    commit = HistogramFamily(
        "llmpower_store_commit_seconds", "How long the database took for a batch of spans, the disk included."
    )
    commit.add_metric((), store.commit_s)
    yield commit
