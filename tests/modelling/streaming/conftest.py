from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling.forms import Cached

GRID = np.array([8, 32, 128, 512, 2048])
Make = Callable[..., pd.DataFrame]


def measured(rows: int, *, seed: int = 1, traffic: bool = False, **columns: Any) -> pd.DataFrame:
    """Measurements of two models on simulated cards, on a grid or of all lengths, with all that a daemon writes."""
    generator = np.random.default_rng(seed)
    if traffic:
        τin = np.clip(generator.lognormal(6, 1.2, rows), 1, 16000).astype(int)
        τout = np.clip(generator.lognormal(5, 1, rows), 1, 4000).astype(int)
    else:
        τin, τout = generator.choice(GRID, rows), generator.choice(GRID, rows)
    model = generator.integers(0, 2, rows)
    joules = Cached().design(τin, τout) @ [60, 0.2, 1e-5, 15, 0.01] * (1 + model) * generator.lognormal(0, 0.05, rows)
    made = {
        "span_id": [f"{seed}-{number}" for number in range(rows)],
        "model_name": np.array(["org/a", "org/b"])[model],
        "system": "1× card",
        "input_tokens": τin,
        "output_tokens": τout,
        "batch_size": 1,
        "runtime_s": joules / 300,
        "time_to_first_token_s": joules / 3000,
        "gpu_energy_j": joules,
        "gpu_energy_std_j": joules * generator.uniform(0.003, 0.05, rows),
        "prefill_energy_j": joules / 5,
        "decode_energy_j": joules * 0.8,
        "quality": "measured",
        "allocated": False,
        "simulated": True,
    }
    return pd.DataFrame(made).assign(**columns)


@pytest.fixture
def make() -> Make:
    return measured


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes tables as the files of a data set, in small row groups; where it lies."""

    def written(*tables: pd.DataFrame, name: str = "fleet") -> Path:
        root = tmp_path / name
        for number, table in enumerate(tables):
            directory = root / f"host=node-{number}" / "date=2026-01-01"
            directory.mkdir(parents=True, exist_ok=True)
            table.to_parquet(directory / f"{number}.parquet", index=False, row_group_size=max(1, len(table) // 3))
        return root

    return written
