"""Puts this folder's helper module on the path: tests are collected without packages."""

import sys
from pathlib import Path

import pytest
import trustme
from prometheus_client import CollectorRegistry

from llmpower.metrics import LlmpowerCollector, Snapshot

sys.path.insert(0, str(Path(__file__).parent))

from certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Issues certificates into the test's directory."""
    return Authority(tmp_path, trustme.CA())


@pytest.fixture
def registry() -> CollectorRegistry:
    """Of a daemon that has just begun."""
    registry = CollectorRegistry(auto_describe=True)
    registry.register(LlmpowerCollector(lambda: Snapshot(version="1.2.3", backend="nvml")))
    return registry
