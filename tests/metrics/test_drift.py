"""What a scrape says of requests compared with their models."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from llmpower.metrics import DriftState, LlmpowerCollector, ModelDrift, Snapshot

CHART = ModelDrift("llama", "1× card", "shared", False, 1.25, 0.01, 0.06, 400, True)
YOUNG = ModelDrift("llama", "", "alone", True, 0.98, None, 0.02, 3, False)


def scrape(drift: DriftState) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(LlmpowerCollector(lambda: Snapshot(version="1", backend="nvml", drift=drift)))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name.startswith("llmpower_model_")
    }


def test_charts_are_gauges_by_model_system_and_sharing() -> None:
    found = scrape(DriftState("models.json", 1, {"compared": 403, "simulated": 2}, (CHART, YOUNG)))
    shared = frozenset({("model_name", "llama"), ("system", "1× card"), ("sharing", "shared"), ("simulated", "false")})
    alone = frozenset({("model_name", "llama"), ("system", ""), ("sharing", "alone"), ("simulated", "true")})
    assert found == {
        ("llmpower_model_energy_ratio", shared): 1.25,
        ("llmpower_model_energy_ratio_std_error", shared): 0.01,
        ("llmpower_model_energy_ratio_tolerance", shared): 0.06,
        ("llmpower_model_energy_drifted", shared): 1.0,
        ("llmpower_model_compared_spans_total", shared): 400.0,
        ("llmpower_model_energy_ratio", alone): 0.98,
        ("llmpower_model_energy_ratio_tolerance", alone): 0.02,
        ("llmpower_model_energy_drifted", alone): 0.0,
        ("llmpower_model_compared_spans_total", alone): 3.0,
        ("llmpower_model_comparisons_total", frozenset({("outcome", "compared")})): 403.0,
        ("llmpower_model_comparisons_total", frozenset({("outcome", "simulated")})): 2.0,
    }


def test_without_models_there_are_no_samples() -> None:
    assert scrape(DriftState()) == {}
