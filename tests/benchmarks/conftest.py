"""The benchmarks are scripts and no package; what they are made of is found beside them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))


@pytest.fixture
def benchmarks() -> Path:
    return BENCHMARKS


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def schedule() -> ModuleType:
    return load("accuracy.schedule")


@pytest.fixture
def figures() -> ModuleType:
    return load("accuracy.figures")


@pytest.fixture
def accuracy_page() -> ModuleType:
    return load("make_accuracy_page")


@pytest.fixture
def paper_case_page() -> ModuleType:
    return load("make_paper_case_page")


@pytest.fixture
def h100_page() -> ModuleType:
    return load("make_h100_page")


@pytest.fixture
def benchmarks_page() -> ModuleType:
    return load("make_benchmarks_page")


@pytest.fixture
def daemon_benchmark() -> ModuleType:
    return load("daemon")


@pytest.fixture
def span_load() -> ModuleType:
    return load("service.load")


@pytest.fixture
def processes() -> ModuleType:
    return load("service.processes")


@pytest.fixture
def overhead() -> ModuleType:
    return load("overhead")


@pytest.fixture
def lockstep() -> ModuleType:
    return load("costs.lockstep")


@pytest.fixture
def turns() -> ModuleType:
    return load("campaigns.turns")


@pytest.fixture
def judging() -> ModuleType:
    return load("campaigns.judging")


@pytest.fixture
def grids() -> ModuleType:
    return load("campaigns.grids")
