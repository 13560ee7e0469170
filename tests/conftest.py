"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmpower.types import Measurement, Span

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def paper_data() -> Path:
    """The reference measurements (paper/, azure/): published data that is not part of this repository."""
    directory = Path(os.environ.get("LLMPOWER_REFERENCE_DATA", ROOT.parent / "shared" / "data"))
    if not (directory / "paper" / "grid.csv").is_file():
        pytest.skip(f"no reference data in {directory}; set LLMPOWER_REFERENCE_DATA to run this test")
    return directory


@pytest.fixture(scope="session")
def make_measurement() -> Callable[..., Measurement]:
    """A measurement of a span of 2 s that began ``number`` minutes into 2026; keywords of Span or Measurement."""

    def make(number: int = 0, **fields: Any) -> Measurement:
        start_ns = number * 60_000_000_000
        span = Span(
            span_id=f"span-{number}",
            model_name="llama",
            device_uuids=("GPU-1",),
            start_ns=start_ns,
            first_token_ns=start_ns + 500_000_000,
            end_ns=start_ns + 2_000_000_000,
            input_tokens=10,
            output_tokens=20,
            batch_size=1,
            hostname="host",
            pid=7,
            attributes={"request": "one"},
        )
        measurement = Measurement(
            span=span,
            system="1× card",
            started_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
            gpu_energy_j=100.0,
            gpu_energy_std_j=1.0,
            cpu_energy_j=None,
            cpu_energy_std_j=None,
            prefill_energy_j=30.0,
            decode_energy_j=70.0,
            quality="measured",
            method="counter",
            allocated=False,
            simulated=True,
        )
        of_span = {name: value for name, value in fields.items() if name in Span.__slots__}
        of_measurement = {name: value for name, value in fields.items() if name not in Span.__slots__}
        return replace(measurement, span=replace(span, **of_span), **of_measurement)

    return make
