"""A column of a frame as an array."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmpower.modelling.linear import FloatArray

if TYPE_CHECKING:
    import pandas as pd


def floats(rows: pd.DataFrame, column: str) -> FloatArray:
    """The column as floats of shape (n_rows,); what is empty or no number is NaN."""
    import pandas as pd

    values = rows[column]
    if values.dtype.kind not in "iuf":
        values = pd.to_numeric(values, errors="coerce")
    return values.to_numpy(dtype=np.float64, na_value=np.nan)
