"""Where a query can go: a model on a system.

The same LLM on two kinds of hardware is two choices, each with fits of its own, so a plan may send short prompts to the
frugal card and long ones to the fast card (Wilkins et al., "Hybrid Heterogeneous Clusters Can Lower the Energy
Consumption of LLM Inference Workloads", 2024, do so by token thresholds). A choice goes by the model's name alone where
that says which one is meant, and by ``model@system`` where the model stands on several.

Joules that do not mean the same (simulated beside real, GPU beside GPU and CPU) are not compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.modelling.fitted.models import labels_of, models_of
from llmpower.tables import whole_number

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice:
    """One column of a plan: ``name`` is unique among the choices, ``model`` what it costs there."""

    name: str
    model: WorkloadModel


def candidates(models: WorkloadModel | Iterable[WorkloadModel], only: str | Collection[str] = ()) -> tuple[Choice, ...]:
    """The choices, sorted by name so that no answer depends on the order of a file.

    ``only`` names choices, or models with all their systems.

    Raises:
        InputError: no model, an unknown one in ``only``, one model and system twice, or joules of different kinds.
    """
    choices = _named(models_of(models))
    only = (only,) if isinstance(only, str) else tuple(only)
    for name in only:
        if not any(name in (choice.name, choice.model.model_name) for choice in choices):
            known = ", ".join(choice.name for choice in choices) or "none"
            raise InputError("--only", name, f"no fitted model has this name; there are: {known}")
    chosen = tuple(choice for choice in choices if not only or choice.name in only or choice.model.model_name in only)
    if not chosen:
        raise InputError("--models", "no models", "there is nothing to route to; fit at least one")
    first = chosen[0]
    for choice in chosen:
        for what in ("simulated", "boundary"):
            if getattr(choice.model, what) != getattr(first.model, what):
                found = (
                    f"{getattr(first.model, what)} for {first.name}, {getattr(choice.model, what)} for {choice.name}"
                )
                raise InputError(what, found, "joules of different kinds cannot be compared; choose models with --only")
    return chosen


def find(values: Mapping[str, T], choice: Choice) -> T | None:
    """What is said of a choice by its own name, else of its model on every system."""
    return values.get(choice.name, values.get(choice.model.model_name))


def gpus_of(num_gpus: Mapping[str, int], choice: Choice) -> int:
    """The GPUs that a choice occupies.

    Raises:
        InputError: nobody said how many, or what is no number of them.
    """
    gpus = find(num_gpus, choice)
    if gpus is None:
        raise InputError("num_gpus", "missing", f"{choice.name} has none; add a column num_gpus to the --accuracy file")
    if (number := whole_number(gpus, 1)) is None:
        raise InputError("num_gpus", f"{choice.name}={gpus}", "is a whole number of GPUs, 1 or more")
    return number


def _named(models: list[WorkloadModel]) -> list[Choice]:
    choices = [Choice(name, model) for name, model in zip(labels_of(models), models, strict=True)]
    for name, times in Counter(choice.name for choice in choices).items():
        if times > 1:
            raise InputError("--models", name, "appears twice; give each model on each system once")
    return sorted(choices, key=lambda choice: choice.name)
