"""Limits on GPU-seconds: how long a model's GPUs are there for the whole workload.

    Σ_c x_cK·r_cK·g_K ≤ S_K        r the predicted runtime [s] of one query by itself, g the GPUs that it runs on

A share says how many queries a model gets, whatever they are; a machine that is rented for two hours is full after two
hours. A limit on a model that stands on several systems holds for all of them together. What a plan has to do to keep
such rows is :mod:`~llmpower.routing.solving.side_rows`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.choices import Choice, gpus_of
from llmpower.tables import number_of

# A sum comes out differently in its last digits in another order, and a limit, budget or floor may be such a sum.
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class GpuSeconds:
    """What is asked: the most GPU-seconds by model or choice, and ``num_gpus`` that one query of it keeps busy."""

    limits: Mapping[str, float]
    num_gpus: Mapping[str, int] = field(default_factory=dict)

    def rows(self, choices: tuple[Choice, ...]) -> SecondRows:
        """The limits in the order of the choices.

        Raises:
            InputError: a limit is not a number above 0, or of no model that queries are routed to, or of one whose
                number of GPUs nobody said.
        """
        found = []
        for name, limit in self.limits.items():
            if not 0 < (number := number_of(limit)) < np.inf:
                advice = "is a number of GPU-seconds above 0; to send a model nothing give it --share MODEL=0"
                raise InputError("--gpu-seconds", f"{name}={limit if np.isnan(number) else f'{number:g}'}", advice)
            mine = [name in (choice.name, choice.model.model_name) for choice in choices]
            if not any(mine):
                known = ", ".join(choice.name for choice in choices)
                raise InputError("--gpu-seconds", name, f"is not among the models that queries are routed to: {known}")
            found.append([gpus_of(self.num_gpus, c) if of else 0 for c, of in zip(choices, mine, strict=True)])
        limits = np.array(list(map(number_of, self.limits.values())))
        return SecondRows(tuple(self.limits), limits, np.array(found, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class SecondRows:
    """By name: ``limit`` [GPU-seconds] (n_rows,), ``gpus`` (n_rows, n_choices) of each choice that counts, else 0."""

    names: tuple[str, ...]
    limit: FloatArray
    gpus: FloatArray

    @property
    def parts(self) -> FloatArray:
        """What a second on each choice takes of each limit, as a part of it (n_rows, n_choices)."""
        return self.gpus / (self.limit * (1 + ROUNDING))[:, np.newaxis]

    def used(self, runtime_s: FloatArray) -> dict[str, float]:
        """GPU-seconds by name, from the seconds that each choice takes (n_choices,)."""
        return dict(zip(self.names, (self.gpus @ runtime_s).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class SecondLimit:
    """One limit of a plan: GPU-seconds that there are, and what one of them adds to the cost of a query there."""

    limit: float
    price: float


def parse_gpu_seconds(texts: Iterable[str]) -> dict[str, float]:
    """``["large=7200"]`` → ``{"large": 7200.0}``.

    Raises:
        InputError: an entry is not MODEL=S, or names a model twice.
    """
    limits: dict[str, float] = {}
    for text in texts:
        name, _, figure = text.rpartition("=")
        try:
            value = float(figure)
        except ValueError:
            name, value = "", 0.0
        if not name:
            raise InputError("--gpu-seconds", text, "write MODEL=S, such as Llama-2-70B=7200")
        if name in limits:
            raise InputError("--gpu-seconds", text, f"{name} has a limit already; give one")
        limits[name] = value
    return limits
