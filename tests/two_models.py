"""Two models whose costs differ by little for a short answer and tenfold for a long one, for tests of what routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmpower.modelling import WorkloadModel, fit

NAMES = ("small", "large")
LENGTHS = (8, 64, 512)
_JOULES_A_TOKEN = {"small": (0.1, 4.0), "large": (0.5, 40.0)}
_WATTS = 300


def measurements(names: Sequence[str] = NAMES) -> Any:
    """A frame of noiseless measurements: p1·τin + d0·τout joules, at 300 W."""
    import pandas as pd

    rows = [
        (name, τin, τout, p1 * τin + d0 * τout, (p1 * τin + d0 * τout) / _WATTS)
        for name, (p1, d0) in _JOULES_A_TOKEN.items()
        for τin in LENGTHS
        for τout in LENGTHS
        if name in names
    ]
    return pd.DataFrame(rows, columns=["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"])


def two_models() -> list[WorkloadModel]:
    """Their fits."""
    return fit(measurements(), form="cached")
