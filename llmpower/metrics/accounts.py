"""Running totals per model: the counters behind ``llmpower_inference_*``.

Model names come from whoever may open the socket, and every new one is a new set of time series in the operator's
Prometheus. The first 100 keep their names; what comes after is summed under ``other``, so no total is wrong.

A span's id is no label, for the same reason. The histograms keep the latest id of each bucket as an exemplar, which
costs a time series nothing: a dashboard leads from "some requests cost 40 kJ" to one of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

from llmpower.metrics.snapshot import Histogram, ModelState, SpanExemplar
from llmpower.types import Measurement, Quality

MAX_MODEL_NAMES = 100
OTHER = "other"

MAX_EXEMPLAR_CHARS = 128 - len("span_id")
"""OpenMetrics gives the names and values of an exemplar's labels 128 characters together."""

REQUEST_ENERGY_BOUNDS_J = tuple(
    float(f"{digit}e{exponent}") for exponent in range(-1, 6) for digit in (1, 2, 5)
)  # 0.1 J to 500 kJ
DURATION_BOUNDS_S = tuple(0.01 * 2**power for power in range(17))
"""OpenTelemetry's advice for ``gen_ai.server.request.duration`` (0.01 s, doubling), carried on to 655 s for batches."""


class ModelAccounts:
    """Adds measurements up per model."""

    def __init__(self) -> None:
        self._models: dict[str, _Account] = {}

    def add(self, measurement: Measurement) -> None:
        """Count one finished span."""
        self._account(measurement.span.model_name).add(measurement)

    def book(self, model_name: str, phase: str, device_kind: str, energy_j: float) -> None:
        """Add joules as they are booked, which for a long span is before it ends: the books balance in any scrape."""
        self._account(model_name).energy_j[phase, device_kind] += energy_j

    def freeze(self) -> dict[str, ModelState]:
        """The totals now, by model name."""
        return {name: account.freeze() for name, account in self._models.items()}

    def _account(self, name: str) -> _Account:
        if (account := self._models.get(name)) is not None:
            return account
        return self._models.setdefault(name if len(self._models) < MAX_MODEL_NAMES else OTHER, _Account())


class _Account:
    def __init__(self) -> None:
        self._requests: Counter[Quality] = Counter()
        self.energy_j: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._tokens: Counter[str] = Counter()
        self._request_energy = _Counts(REQUEST_ENERGY_BOUNDS_J)
        self._duration = _Counts(DURATION_BOUNDS_S)

    def add(self, measurement: Measurement) -> None:
        span = measurement.span
        self._requests[measurement.quality] += 1
        self._tokens["input"] += span.input_tokens
        self._tokens["output"] += span.output_tokens
        ended_s = measurement.started_at.timestamp() + span.runtime_s
        self._duration.observe(span.runtime_s, span.span_id, ended_s)

        measured = [joules for joules in (measurement.gpu_energy_j, measurement.cpu_energy_j) if joules is not None]
        if measured:
            self._request_energy.observe(sum(measured), span.span_id, ended_s)

    def freeze(self) -> ModelState:
        return ModelState(
            requests=dict(self._requests),
            energy_j=dict(self.energy_j),
            tokens=dict(self._tokens),
            request_energy_j=self._request_energy.freeze(),
            duration_s=self._duration.freeze(),
        )


class _Counts:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0
        self._exemplars: list[tuple[str, float, float] | None] = [None] * (len(bounds) + 1)

    def observe(self, value: float, span_id: str, ended_s: float) -> None:
        bucket = bisect_left(self._bounds, value)
        self._counts[bucket] += 1
        self._total += value
        former = self._exemplars[bucket]
        # Prometheus refuses an exemplar that is older than the one it has.
        if (former is None or ended_s > former[2]) and len(span_id) <= MAX_EXEMPLAR_CHARS:
            self._exemplars[bucket] = span_id, value, ended_s

    def freeze(self) -> Histogram:
        # Thousands of spans a second take each other's places; a record is made of those alone that stay.
        exemplars = tuple(None if each is None else SpanExemplar(*each) for each in self._exemplars)
        return Histogram(self._bounds, tuple(self._counts), self._total, exemplars)
