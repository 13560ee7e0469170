"""A grid of measurements that cost what a form says, for tests of fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmpower.exceptions import FitError
from llmpower.modelling import FORMS, Form, fit

LENGTHS = (8, 32, 128, 512)
TRUTH = {
    "recompute": [4.0, 0.03, 4e-6],
    "recompute+call": [200.0, 4.0, 0.03, 4e-6],
    "roofline": [20.0, 4.0, 1e-3, 1e-6, 0.05],
    "cached": [60.0, 0.2, 1e-5, 15.0, 0.01],
}


def measured(form: str = "cached", model_name: str = "a", noise: float = 0.0, **columns: Any) -> pd.DataFrame:
    """A 4 × 4 grid of one model that costs what ``form`` says, with lognormal noise."""
    τin, τout = (grid.reshape(-1) for grid in np.meshgrid(LENGTHS, LENGTHS))
    made: Form = FORMS[form]()
    energy = made.design(τin, τout) @ TRUTH[form]
    energy *= np.random.default_rng(2).lognormal(sigma=noise, size=len(energy))
    frame = pd.DataFrame(
        {
            "model_name": model_name,
            "input_tokens": τin,
            "output_tokens": τout,
            "runtime_s": energy / 300,
            "gpu_energy_j": energy,
        }
    )
    return frame.assign(**columns)


def refusal(frame: pd.DataFrame, **options: Any) -> FitError:
    """The error that a fit ends with."""
    with pytest.raises(FitError) as caught:
        fit(frame, **options)
    return caught.value
