"""Analysis of variance, as the paper has it: do input tokens, output tokens, and the two together matter at all?

Token counts are taken as categories, so no form is assumed; what the cells leave is noise, which only repeated rows of
a cell can show (the paper pools three models of one size). Sums of squares are of type II: what a factor explains
beyond the other,

    SS_in = RSS(out) − RSS(in + out)      SS_out = RSS(in) − RSS(in + out)      SS_in×out = RSS(in + out) − RSS(cells)

each F its mean square over that of the cells' residuals (statsmodels' ``anova_lm(typ=2)`` gives the same figures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import FitError
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.boundary import Boundary
from llmpower.modelling.rows.frames import floats
from llmpower.phrases import plural
from llmpower.tables import check_frame

if TYPE_CHECKING:
    import pandas as pd

# Beyond this many lengths they are no categories, and the additive model would be a table of billions.
MAX_LENGTHS = 2000


@dataclass(frozen=True, slots=True)
class Effect:
    """One line of the table."""

    name: str
    sum_of_squares: float
    degrees: int
    f_statistic: float
    f_pvalue: float


@dataclass(frozen=True, slots=True)
class Anova:
    """The table of one target over ``n_obs`` rows: inputs, outputs, their interaction, and what remains."""

    target: str
    n_obs: int
    effects: tuple[Effect, Effect, Effect]
    residual_sum_of_squares: float
    residual_degrees: int


def anova(measurements: pd.DataFrame, boundary: str = "gpu") -> tuple[Anova, Anova]:
    """Energy and runtime over all rows, whatever model they are of.

    Raises:
        FitError: one length alone, no cell with two rows, or more lengths than categories can be.
    """
    check_frame(measurements, "measurements")
    covered = Boundary.parse(boundary)
    columns = {name: floats(measurements, name) for name in covered.consulted() if name in measurements.columns}
    energy_j = covered.energy(columns)
    known = ~np.isnan(energy_j)
    inputs = np.unique(floats(measurements, "input_tokens")[known], return_inverse=True)[1]
    outputs = np.unique(floats(measurements, "output_tokens")[known], return_inverse=True)[1]
    return (
        analyse("energy", inputs, outputs, energy_j[known]),
        analyse("runtime", inputs, outputs, floats(measurements, "runtime_s")[known]),
    )


def analyse(target: str, inputs: NDArray[np.intp], outputs: NDArray[np.intp], y: FloatArray) -> Anova:
    """The table of ``y`` by two factors, numbered from 0; all of shape (n_obs,)."""
    n_in, n_out = int(inputs.max()) + 1, int(outputs.max()) + 1
    distinct, cells = np.unique(inputs * n_out + outputs, return_inverse=True)
    if min(n_in, n_out) < 2:
        raise FitError("anova", f"{n_in} × {n_out} lengths", "one length alone has no effect; measure others")
    if n_in + n_out > MAX_LENGTHS:
        raise FitError("anova", f"{n_in} × {n_out} lengths", "too many to be categories; choose some with --where")
    if len(y) == len(distinct):
        advice = "no cell has two rows, so there is no noise to compare with; repeat trials, or pool models"
        raise FitError("anova", plural(len(y), "row"), advice)
    alone_in, alone_out, full = (_residual(groups, y) for groups in (inputs, outputs, cells))
    additive, rank = _additive(distinct // n_out, distinct % n_out, cells, y)
    degrees = len(y) - len(distinct)
    # Where cells are missing the two factors together may have fewer degrees than apart.
    explained = (
        ("input_tokens", alone_out - additive, rank - n_out),
        ("output_tokens", alone_in - additive, rank - n_in),
        ("input_tokens:output_tokens", additive - full, len(distinct) - rank),
    )
    effects = tuple(_effect(name, squares, df, full / degrees, degrees) for name, squares, df in explained)
    return Anova(target, len(y), (effects[0], effects[1], effects[2]), full, degrees)


def _residual(groups: NDArray[np.intp], y: FloatArray) -> float:
    """Σ(y − mean of its group)²."""
    mean = np.bincount(groups, y) / np.bincount(groups)
    return float(np.sum((y - mean[groups]) ** 2))


def _additive(
    of_in: NDArray[np.intp], of_out: NDArray[np.intp], cells: NDArray[np.intp], y: FloatArray
) -> tuple[float, int]:
    """RSS of effect of input + effect of output, and the rank of that model."""
    n = np.bincount(cells)
    mean = np.bincount(cells, y) / n
    indicators = np.concatenate([np.eye(int(of_in.max()) + 1)[of_in], np.eye(int(of_out.max()) + 1)[of_out]], axis=1)
    root = np.sqrt(n)
    effects, _, rank, _ = np.linalg.lstsq(indicators * root[:, np.newaxis], mean * root, rcond=None)
    fitted = indicators @ effects
    return float(np.sum((y - fitted[cells]) ** 2)), int(rank)


def _effect(name: str, squares: float, degrees: int, noise: float, residual_degrees: int) -> Effect:
    from scipy.special import fdtrc

    f = squares / degrees / noise if degrees > 0 and noise > 0 else np.nan
    return Effect(name, squares, degrees, float(f), float(fdtrc(degrees, residual_degrees, f)))
