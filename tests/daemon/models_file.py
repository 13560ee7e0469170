"""A models.json with costs that are easy to calculate with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from llmpower.modelling import Fit, HeldOut, WorkloadModel, save_models


def make_fit(per_output_token: float, **changes: Any) -> Fit:
    """Of the form ``cached``: this many joules or seconds an output token, and nothing else."""
    values: dict[str, Any] = {
        "form": "cached",
        "terms": ("p0", "p1", "p2", "d0", "d1"),
        "coefficients": np.array([0.0, 0.0, 0.0, per_output_token, 0.0]),
        "std_errors": np.full(5, np.nan),
        "covariance": np.full((5, 5), np.nan),
        "n_obs": 30,
        "r_squared": None,
        "r_squared_centered": None,
        "r_squared_uncentered": None,
        "f_statistic": None,
        "f_pvalue": None,
        "heldout": HeldOut(mape=0.05, median_ape=0.04, worst_ape=0.1, negative_predictions=0),
        "input_range": (1, 1000),
        "output_range": (1, 1000),
    }
    return Fit(**values | changes)


def make_model(name: str = "llama", joules_per_token: float = 5.0, **changes: Any) -> WorkloadModel:
    """Of the simulated card of ``make_measurement``, on whatever system."""
    energy = changes.pop("energy", {})
    values: dict[str, Any] = {"system": "1× card", "simulated": True, "boundary": "gpu"}
    return WorkloadModel(
        model_name=name, energy=make_fit(joules_per_token, **energy), runtime=make_fit(0.1), **values | changes
    )


def write_models(directory: Path, *models: WorkloadModel) -> Path:
    file = directory / "models.json"
    save_models(models or (make_model(),), file)
    return file
