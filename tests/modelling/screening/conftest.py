"""An ideal campaign: three trials of each cell in random order, one after another, 3 % of noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

LENGTHS = (8, 32, 128, 512)
TDP_W = 400.0

Campaign = Callable[..., pd.DataFrame]


def make_campaign(seed: int = 1, *, trials: int = 3, noise: float = 0.03, **columns: Any) -> pd.DataFrame:
    """Rows in the order of time; ``columns`` replace whole columns, ``None`` takes one away."""
    rng = np.random.default_rng(seed)
    cells = [(name, τin, τout) for name in ("small", "large") for τin in LENGTHS for τout in LENGTHS] * trials
    rows = pd.DataFrame(
        [cells[number] for number in rng.permutation(len(cells))],
        columns=["model_name", "input_tokens", "output_tokens"],
    )
    # A call, the prompt's tokens, a step each: in seconds, at 250 W.
    size = rows["model_name"].map({"small": 1.0, "large": 4.0})
    exact_s = size * (0.2 + 2e-4 * rows["input_tokens"] + 0.02 * rows["output_tokens"])
    rows["runtime_s"] = exact_s * rng.lognormal(sigma=noise, size=len(rows))
    rows["gpu_energy_j"] = 250.0 * exact_s * rng.lognormal(sigma=noise, size=len(rows))
    rows["gpu_energy_std_j"] = 0.005 * rows["gpu_energy_j"]
    rows["cpu_energy_j"] = 40.0 * rows["runtime_s"]
    starts = pd.Timestamp("2026-01-01T00:00:00Z") + pd.to_timedelta(
        (rows["runtime_s"] + 0.5).cumsum().shift(fill_value=0.0), unit="s"
    )
    rows["started_at"] = starts.dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    rows["span_id"] = [f"span-{number}" for number in range(len(rows))]
    rows = rows.assign(
        hostname="gpu-7",
        system="1× NVIDIA A100-SXM4-80GB",
        device_uuids="GPU-a",
        batch_size=1,
        quality="measured",
        allocated=False,
        simulated=False,
        total_tokens=rows["input_tokens"] + rows["output_tokens"],
        requested_output_tokens=rows["output_tokens"],
        provenance="measured",
    )
    return rows.assign(**{name: values for name, values in columns.items() if values is not None}).drop(
        columns=[name for name, values in columns.items() if values is None]
    )


@pytest.fixture
def campaign() -> Campaign:
    return make_campaign
