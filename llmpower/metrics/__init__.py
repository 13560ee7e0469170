"""What Prometheus sees: an immutable snapshot that the daemon publishes, and a scrape that only reads it."""

from __future__ import annotations

from llmpower.metrics.accounts import ModelAccounts
from llmpower.metrics.collector import LlmpowerCollector
from llmpower.metrics.server import MetricsServer
from llmpower.metrics.snapshot import DeviceState, FieldState, Histogram, ModelState, SamplerState, Snapshot

__all__ = [
    "DeviceState",
    "FieldState",
    "Histogram",
    "LlmpowerCollector",
    "MetricsServer",
    "ModelAccounts",
    "ModelState",
    "SamplerState",
    "Snapshot",
]
