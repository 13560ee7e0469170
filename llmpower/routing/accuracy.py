"""How good each model is: accuracy.csv, and what an accuracy is worth to the objective.

A model's accuracy A_K is one figure of a leaderboard, in 0..1. The paper lets a query count for as much as it is long,

    a_K(τin, τout) = A_K·(τin + τout)        weighting ``tokens``

so that its "accuracy" is an average over tokens. The other reading counts each query once,

    a_K(τin, τout) = A_K                     weighting ``queries``

Both averages are reported for every plan; the weighting decides which one the objective pursues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.workload import IntArray
from llmpower.tables import read_table

Weighting = Literal["tokens", "queries"]
WEIGHTINGS: tuple[Weighting, ...] = ("tokens", "queries")


@dataclass(frozen=True, slots=True)
class AccuracyTable:
    """accuracy.csv: ``accuracy`` by model name, and ``shares`` of the models that have one there (all in 0..1)."""

    accuracy: Mapping[str, float]
    shares: Mapping[str, float] = field(default_factory=dict)


def read_accuracy(path: Path) -> AccuracyTable:
    """Read ``model_name``, ``accuracy`` and, where there is one, ``share``; other columns are left alone.

    Raises:
        InputError: the file cannot be read, has no rows, names a model twice or not at all, or an accuracy or a
            share is not in 0..1. An empty share means that the model has none.
    """
    import pandas as pd

    frame = read_table(path, required=("model_name", "accuracy"), what="--accuracy")
    if not len(frame):
        raise InputError("--accuracy", path, "holds no rows; give a row a model: model_name, accuracy")
    accuracy: dict[str, float] = {}
    shares: dict[str, float] = {}
    for row, (name, value) in enumerate(zip(frame["model_name"], frame["accuracy"], strict=True), start=1):
        if pd.isna(name):
            raise InputError("model_name", "empty", f"row {row} of {path} needs a model's name")
        if str(name) in accuracy:
            raise InputError("model_name", name, f"row {row} of {path} repeats it; keep one row a model")
        accuracy[str(name)] = _fraction("accuracy", value, f"row {row} of {path}")
    if "share" in frame.columns:
        for row, (name, value) in enumerate(zip(accuracy, frame["share"], strict=True), start=1):
            if not pd.isna(value):
                shares[name] = _fraction("share", value, f"row {row} of {path}")
    return AccuracyTable(accuracy, shares)


def check_accuracy(accuracy: Mapping[str, float]) -> None:
    """Hold a caller's own mapping to what a file is held to.

    Raises:
        InputError: a value is not in 0..1.
    """
    for name, value in accuracy.items():
        _fraction("accuracy", value, name)


def query_accuracy(accuracy: FloatArray, tokens: IntArray, weighting: Weighting) -> FloatArray:
    """a_K of one query of each cell, shape (n_cells, n_models), from A_K (n_models,) and tokens (n_cells,)."""
    weight = tokens.astype(np.float64) if weighting == "tokens" else np.ones(len(tokens))
    return weight[:, np.newaxis] * accuracy


def _fraction(field: str, value: object, place: str) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever is no number raises, which is the question
    except (TypeError, ValueError):
        number = np.nan
    if not 0 <= number <= 1:
        shown = "empty" if value is None or value != value else value
        raise InputError(field, shown, f"{place} needs a fraction from 0 to 1; write 0.51 for 51 %")
    return number
