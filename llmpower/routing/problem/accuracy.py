"""How good each model is: accuracy.csv, and what an accuracy is worth to the objective.

A model's accuracy A_K is one figure of a leaderboard, in 0..1. The paper lets a query count for as much as it is long,

    a_K(τin, τout) = A_K·(τin + τout)        weighting ``tokens``

so that its "accuracy" is an average over tokens. The other reading counts each query once,

    a_K(τin, τout) = A_K                     weighting ``queries``

Both averages are reported for every plan; the weighting decides which one the objective pursues. Where models are
good at different things, A_K may be given by class of query; the workload's column ``query_class`` says which is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.choices import Choice, find
from llmpower.tables import number_of, read_records

Weighting = Literal["tokens", "queries"]
WEIGHTINGS: tuple[Weighting, ...] = ("tokens", "queries")


@dataclass(frozen=True, slots=True)
class AccuracyTable:
    """accuracy.csv, all by the name of a model or of a choice (``model@system``).

    ``accuracy`` (0..1) holds for queries of every class that ``by_class`` (model, then class) does not name;
    ``shares`` are fractions of the queries, ``num_gpus`` what the model occupies while it is loaded.
    """

    accuracy: Mapping[str, float]
    shares: Mapping[str, float] = field(default_factory=dict)
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    num_gpus: Mapping[str, int] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Whatever has an accuracy here."""
        return tuple(dict.fromkeys((*self.accuracy, *self.by_class)))


def read_accuracy(path: str | PathLike[str]) -> AccuracyTable:
    """Read ``model_name, accuracy`` and, where there are such columns, ``query_class``, ``share``, ``num_gpus``.

    A row without ``query_class`` holds for the classes that no other row of its model names. Other columns are left
    alone.

    Raises:
        InputError: the file cannot be read, has no rows, names a model (and class) twice or not at all, or holds an
            accuracy or share that is not in 0..1 or a number of GPUs that is none. An empty share or number is none.
    """
    path = Path(path)
    records = read_records(path, required=("model_name", "accuracy"), what="--accuracy")
    if not records:
        raise InputError("--accuracy", path, "holds no rows; give one row per model: model_name, accuracy")
    accuracy: dict[str, float] = {}
    by_class: dict[str, dict[str, float]] = {}
    for row, record in enumerate(records, start=1):
        name, query_class = record["model_name"], record.get("query_class")
        if name is None:
            raise InputError("model_name", "empty", f"row {row} of {path} needs a model's name")
        if query_class is None:
            known, key = accuracy, str(name)
        else:
            known, key = by_class.setdefault(str(name), {}), str(query_class)
        if key in known:
            of = "" if query_class is None else f" for {query_class}"
            raise InputError("model_name", name, f"row {row} of {path} repeats it{of}; keep one row per model")
        known[key] = _fraction("accuracy", record["accuracy"], f"row {row} of {path}")
    return AccuracyTable(
        accuracy, _of_models(records, "share", _fraction, path), by_class, _of_models(records, "num_gpus", _gpus, path)
    )


def accuracies(table: AccuracyTable, choices: Sequence[Choice], classes: Sequence[str]) -> FloatArray:
    """A_K by class of query and choice, shape (n_classes, n_choices).

    Raises:
        InputError: an accuracy is missing, or not in 0..1.
    """
    values = np.empty((len(classes), len(choices)))
    for row, query_class in enumerate(classes):
        for column, choice in enumerate(choices):
            value = (find(table.by_class, choice) or {}).get(query_class, find(table.accuracy, choice))
            if value is None:
                of = f" for queries of class {query_class!r}" if query_class or table.by_class else ""
                advice = f"has a fit but no accuracy{of}; add its row, or leave the model out by --only"
                raise InputError("--accuracy", choice.name, advice)
            values[row, column] = _fraction("accuracy", value, choice.name)
    return values


def _of_models(records: Sequence[Mapping[str, object]], column: str, read: Any, path: Path) -> dict[str, Any]:
    """A column that says one thing of a model, however many rows it has; empty cells say nothing."""
    found: dict[str, Any] = {}
    for row, record in enumerate(records, start=1):
        name, value = str(record["model_name"]), record.get(column)
        if value is None:
            continue
        number = read(column, value, f"row {row} of {path}")
        if found.setdefault(name, number) != number:
            raise InputError(column, value, f"row {row} of {path} says another one of {name} than before; keep one")
    return found


def _gpus(field: str, value: object, place: str) -> int:
    number = number_of(value)
    if not (1 <= number < np.inf and number.is_integer()):
        raise InputError(field, value, f"{place} needs a whole number of GPUs, 1 or more")
    return int(number)


def _fraction(field: str, value: object, place: str) -> float:
    number = number_of(value)
    if not 0 <= number <= 1:
        shown = "empty" if value is None or value != value else value
        raise InputError(field, shown, f"{place} needs a fraction from 0 to 1; write 0.51 for 51 %")
    return number
