"""Metric families as text, in the format of Prometheus (0.0.4) and in OpenMetrics 1.0.

prometheus_client writes both, at 10 to 30 µs a line; a scrape of 50 models has some 3,000 lines, four fifths of them
buckets. The same bytes are written here at 1 to 2 µs a line. Names, which are ours, are known to need no escaping, and
what stands before a value is the same in every scrape, so it is made once and remembered, as are exemplars while they
last; the caches are bounded. A test checks that the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import Exemplar
from prometheus_client.samples import Sample

from llmpower.metrics.snapshot import Histogram, SpanExemplar

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = tuple[tuple[str, str], ...]

# What OpenMetrics adds to names and types, the older format has not.
_TEXT_SUFFIX = {"counter": "_total", "info": "_info"}
_TEXT_TYPE = {"info": "gauge", "unknown": "untyped"}


class HistogramFamily(Metric):
    """Histograms by label values, kept as they are; :attr:`samples` makes the usual samples for those who ask."""

    def __init__(self, name: str, documentation: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__(name, documentation, "histogram")
        self._labelnames = labels
        self.histograms: list[tuple[dict[str, str], Histogram]] = []

    def add_metric(self, labels: tuple[str, ...], histogram: Histogram) -> None:
        """Add the histogram of these label values."""
        self.histograms.append((dict(zip(self._labelnames, labels, strict=True)), histogram))

    @property
    def samples(self) -> list[Sample]:
        """The family as prometheus_client has it."""
        return [sample for labels, histogram in self.histograms for sample in self._samples(labels, histogram)]

    @samples.setter
    def samples(self, _: list[Sample]) -> None:
        # The base class begins with an empty list.
        pass

    def _samples(self, labels: dict[str, str], histogram: Histogram) -> Iterator[Sample]:
        count = 0
        for bound, count, exemplar in _buckets(histogram):
            shown = None
            if exemplar is not None:
                shown = Exemplar({"span_id": exemplar.span_id}, exemplar.value, exemplar.ended_s)
            yield Sample(f"{self.name}_bucket", labels | {"le": bound}, count, None, shown)
        yield Sample(f"{self.name}_count", labels, count)
        yield Sample(f"{self.name}_sum", labels, histogram.total)


def render(families: Iterable[Metric], openmetrics: bool) -> bytes:
    """The families as the body of an answer of type :data:`OPENMETRICS` or :data:`TEXT`."""
    lines: list[str] = []
    for family in families:
        name, kind, documentation = family.name, family.type, family.documentation.replace("\\", r"\\")
        if openmetrics:
            documentation = documentation.replace('"', r"\"")
        else:
            name, kind = name + _TEXT_SUFFIX.get(kind, ""), _TEXT_TYPE.get(kind, kind)
        lines += (f"# HELP {name} " + documentation.replace("\n", r"\n"), f"# TYPE {name} {kind}")
        if isinstance(family, HistogramFamily):
            for labels, histogram in family.histograms:
                lines += _histogram(family.name, labels, histogram, openmetrics)
        else:
            lines += [
                f"{sample.name}{_labels(tuple(sample.labels.items()))} {_number(sample.value)}"
                for sample in family.samples
            ]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join([*lines, ""]).encode()


def _histogram(name: str, labels: dict[str, str], histogram: Histogram, openmetrics: bool) -> Iterator[str]:
    shown = tuple(labels.items())
    count = 0
    for head, (_, count, exemplar) in zip(_heads(name, shown, histogram.bounds), _buckets(histogram), strict=True):
        line = head + _number(count)
        yield line + _exemplar(exemplar) if openmetrics and exemplar else line
    yield f"{name}_count{_labels(shown)} {_number(count)}"
    yield f"{name}_sum{_labels(shown)} {_number(histogram.total)}"


@lru_cache(maxsize=1024)
def _heads(name: str, labels: Labels, bounds: tuple[float, ...]) -> tuple[str, ...]:
    """What stands before the count of each bucket: labels come sorted, le among them."""
    pairs = sorted(map(_pair, labels))
    before = "".join(f"{pair}," for pair in pairs if pair < "le=")
    after = "".join(f",{pair}" for pair in pairs if pair > "le=")
    return tuple(f'{name}_bucket{{{before}le="{bound}"{after}}} ' for bound in _bounds(bounds))


def _buckets(histogram: Histogram) -> Iterator[tuple[str, int, SpanExemplar | None]]:
    """Upper bounds with the counts up to them, and one span of each bucket where there is one."""
    bounds = _bounds(histogram.bounds)
    exemplars = histogram.exemplars or (None,) * len(bounds)
    return zip(bounds, accumulate(histogram.counts), exemplars, strict=True)


@lru_cache
def _bounds(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(str, bounds), "+Inf")


@lru_cache(maxsize=8192)
def _exemplar(exemplar: SpanExemplar) -> str:
    return f' # {{span_id="{_escaped(exemplar.span_id)}"}} {_number(exemplar.value)} {exemplar.ended_s}'


@lru_cache(maxsize=8192)
def _labels(labels: Labels) -> str:
    return "{" + ",".join(sorted(map(_pair, labels))) + "}" if labels else ""


def _pair(label: tuple[str, str]) -> str:
    return f'{label[0]}="{_escaped(label[1])}"'


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    """As Go prints it, which turns to exponents sooner than Python."""
    if type(value) is int and value < 1_000_000:  # most are counts
        return f"{value}.0"
    text = repr(float(value))
    point = text.find(".")
    if value > 0 and point > 6:
        return f"{text[0]}.{text[1:point]}{text[point + 1 :]}".rstrip("0.") + f"e+{point - 1:02d}"
    return {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}.get(text, text)
