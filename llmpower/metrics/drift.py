"""Requests beside their models, in Prometheus's words: nothing where no models were given."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from llmpower.metrics.snapshot import DriftState

LABELS = ("model_name", "system", "sharing", "simulated")


def drift_families(drift: DriftState) -> Iterator[Metric]:
    """The families, which are there and empty where nothing is compared."""
    ratio = GaugeMetricFamily(
        "llmpower_model_energy_ratio",
        "Measured over predicted energy of the model's requests, a weighted geometric mean; of those that ran alone, "
        "and of those that shared their card.",
        labels=LABELS,
    )
    std_error = GaugeMetricFamily(
        "llmpower_model_energy_ratio_std_error",
        "Standard error of the natural logarithm of llmpower_model_energy_ratio, corrected for requests that err "
        "together.",
        labels=LABELS,
    )
    tolerance = GaugeMetricFamily(
        "llmpower_model_energy_ratio_tolerance",
        "How far from 1 the ratio may be by the model's own held-out error, less the noise of single trials.",
        labels=LABELS,
    )
    drifted = GaugeMetricFamily(
        "llmpower_model_energy_drifted",
        "1 where the ratio is further off than its tolerance, by five standard errors; else 0.",
        labels=LABELS,
    )
    spans = CounterMetricFamily(
        "llmpower_model_compared_spans", "Spans whose energy was compared with the model's.", labels=LABELS
    )
    for chart in drift.charts:
        labels = (chart.model_name, chart.system, chart.sharing, str(chart.simulated).lower())
        ratio.add_metric(labels, chart.ratio)
        if chart.std_error is not None:
            std_error.add_metric(labels, chart.std_error)
        tolerance.add_metric(labels, chart.tolerance)
        drifted.add_metric(labels, float(chart.drifted))
        spans.add_metric(labels, chart.spans)
    outcomes = CounterMetricFamily(
        "llmpower_model_comparisons",
        "Spans compared with the models of --models, by outcome: compared, or why not.",
        labels=("outcome",),
    )
    for outcome, count in drift.outcomes.items():
        outcomes.add_metric((outcome,), count)
    yield from (ratio, std_error, tolerance, drifted, spans, outcomes)
