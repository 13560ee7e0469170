"""What Prometheus sees: an immutable snapshot that the daemon publishes, and a scrape that only reads it."""

from __future__ import annotations

from llmpower.metrics.accounts import ModelAccounts
from llmpower.metrics.collector import LlmpowerCollector
from llmpower.metrics.dcgm import DcgmCollector
from llmpower.metrics.server import MetricsServer
from llmpower.metrics.snapshot import (
    DeviceState,
    FieldState,
    Histogram,
    ModelState,
    OtlpState,
    SamplerState,
    Snapshot,
    StoreState,
)
from llmpower.metrics.web_config import OPTION as WEB_CONFIG_OPTION

__all__ = [
    "WEB_CONFIG_OPTION",
    "DcgmCollector",
    "DeviceState",
    "FieldState",
    "Histogram",
    "LlmpowerCollector",
    "MetricsServer",
    "ModelAccounts",
    "ModelState",
    "OtlpState",
    "SamplerState",
    "Snapshot",
    "StoreState",
]
