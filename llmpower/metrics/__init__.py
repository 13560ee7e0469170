"""What Prometheus sees: an immutable snapshot that the daemon publishes, and a scrape that only reads it."""

from __future__ import annotations

from llmpower.metrics.accounts import MAX_MODEL_NAMES, ModelAccounts
from llmpower.metrics.collector import LlmpowerCollector
from llmpower.metrics.dcgm import DcgmCollector
from llmpower.metrics.server import MetricsServer
from llmpower.metrics.snapshot import (
    DeviceState,
    DriftState,
    FieldState,
    Histogram,
    ModelDrift,
    ModelState,
    OtlpState,
    SamplerState,
    Snapshot,
    StoreState,
)
from llmpower.metrics.web_config import OPTION as WEB_CONFIG_OPTION

__all__ = [
    "MAX_MODEL_NAMES",
    "WEB_CONFIG_OPTION",
    "DcgmCollector",
    "DeviceState",
    "DriftState",
    "FieldState",
    "Histogram",
    "LlmpowerCollector",
    "MetricsServer",
    "ModelAccounts",
    "ModelDrift",
    "ModelState",
    "OtlpState",
    "SamplerState",
    "Snapshot",
    "StoreState",
]
