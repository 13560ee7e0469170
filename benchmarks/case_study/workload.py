"""The queries of the published case study, as far as its figure tells.

The queries themselves are not published. But the figure has energy and mean runtime of each model alone, and under the
published form both are linear in the sums of τin, τout and τin·τout: six numbers that say how many queries there were
(energy over energy of a mean query) and how long their answers are on average. Inputs cost so little on these models
that they are as good as undetermined; instructions of 20 tokens, independent of the answers, fit all six within the
digits that the figure can be read to. How far lengths scatter the six do not tell at all, so the case is computed for
several spreads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from llmpower.modelling import WorkloadModel
from llmpower.routing import Workload

J_PER_KWH = 3.6e6
INPUT_MEAN = 20
INPUT_SPREAD = 0.5
SEED = 1
FIGURE_NAMES = {"Llama-2-7B": "Llama-2 (7B)", "Llama-2-13B": "Llama-2 (13B)", "Llama-2-70B": "Llama-2 (70B)"}


@dataclass(frozen=True)
class Reconstruction:
    """What the six numbers say: ``queries`` as each model's energy has it, and the mean of τout that fits best."""

    queries: dict[str, float]
    output_mean: float


def reconstruct(models: Sequence[WorkloadModel], figure: pd.DataFrame) -> Reconstruction:
    """From fits of the published form and the thesis's figure."""
    published = {model.model_name: _alone(figure, model.model_name) for model in models}
    # Seconds of a mean query are r(τin, τout): with τin given, linear in τout.
    at_zero = np.array([float(model.runtime.predict(INPUT_MEAN, 0)) for model in models])
    per_token = np.array([float(model.runtime.predict(INPUT_MEAN, 1)) for model in models]) - at_zero
    seconds = np.array([published[model.model_name][1] for model in models])
    # Least squares on relative error.
    x, y = per_token / seconds, (seconds - at_zero) / seconds
    output_mean = float(x @ y / (x @ x))
    queries = {
        model.model_name: published[model.model_name][0] / float(model.energy.predict(INPUT_MEAN, output_mean))
        for model in models
    }
    return Reconstruction(queries, output_mean)


def published_workload(found: Reconstruction, spread: float) -> Workload:
    """Lognormal lengths with those means; ``spread`` is the standard deviation of log τout."""
    n = round(float(np.median(list(found.queries.values()))))
    quantiles = ndtri((np.arange(n) + 0.5) / n)
    inputs = _with_mean(np.exp(INPUT_SPREAD * quantiles), INPUT_MEAN)
    outputs = _with_mean(np.exp(spread * quantiles), found.output_mean)
    return Workload.from_tokens(inputs, np.random.default_rng(SEED).permutation(outputs))


def compared(models: Sequence[WorkloadModel], workload: Workload, figure: pd.DataFrame) -> list[dict[str, object]]:
    """The six numbers: as published, and as the workload has them."""
    rows: list[dict[str, object]] = []
    tokens = (workload.input_tokens, workload.output_tokens)
    for model in models:
        energy_j, runtime_s = _alone(figure, model.model_name)
        rows.append(
            {
                "model_name": model.model_name,
                "published_energy_kwh": energy_j / J_PER_KWH,
                "energy_kwh": float(workload.count @ model.energy.predict(*tokens)) / J_PER_KWH,
                "published_mean_runtime_s": runtime_s,
                "mean_runtime_s": float(workload.count @ model.runtime.predict(*tokens)) / workload.n_queries,
            }
        )
    return rows


def _alone(figure: pd.DataFrame, name: str) -> tuple[float, float]:
    """Joules and mean seconds of a model alone."""
    row = figure[figure["method"] == FIGURE_NAMES[name]].iloc[0]
    return float(row["energy_kwh"]) * J_PER_KWH, float(row["mean_runtime_s"])


def _with_mean(lengths: np.ndarray, mean: float) -> np.ndarray:
    return np.maximum(np.rint(lengths * (mean / lengths.mean())), 1).astype(np.int64)
