"""What loaded models draw while they wait, and which of them are worth loading.

Measured joules of a query say nothing of the hours in which a model holds its GPUs for queries that do not come. A
loaded model is charged

    F_K = GPUs_K · idle watts · horizon,

whatever it is given. Joules of queries are gross, so the seconds in which a GPU works are in both; F_K is too high by
at most the idle share of what the model serves, and stated beside the queries' joules, never mixed into them.

Models that may be unloaded make a question of sets: with S the loaded ones and opt(S) the exact plan on them,

    minimise over S   opt(S) + ζ·Σ_{K∈S} F_K / max e.

Fewer choices never make a plan cheaper, opt(S) ≥ opt(T) for S ⊆ T, so of the sets in order of their charge those are
solved whose charge, with the largest opt(T) of a solved T ⊇ S, still leaves room below the best; usually a handful of
the 2^n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.modelling.forms import FloatArray
from llmpower.routing.problem.choices import Choice, find, gpus_of
from llmpower.routing.problem.workload import IntArray
from llmpower.tables import number_of

MOST_CHOICES = 16
"""Beyond, the sets are too many to be listed."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What to charge: watts of a GPU that waits, for ``horizon_s`` seconds.

    ``watts`` holds for every model that ``watts_by_model`` does not name; ``num_gpus`` by model or choice.
    """

    horizon_s: float
    watts: float | None = None
    watts_by_model: Mapping[str, float] = field(default_factory=dict)
    num_gpus: Mapping[str, int] = field(default_factory=dict)

    def energy_j(self, choices: Iterable[Choice]) -> FloatArray:
        """F_K [J], shape (n_choices,).

        Raises:
            InputError: watts or horizon are not positive numbers, or a model lacks its watts or its GPUs.
        """
        if not 0 < (horizon_s := number_of(self.horizon_s)) < np.inf:
            raise InputError("--horizon", self.horizon_s, "is the time that models stay loaded, in seconds above 0")
        choices = tuple(choices)
        known = {name for choice in choices for name in (choice.name, choice.model.model_name)}
        for name in self.watts_by_model:
            if name not in known:
                raise InputError("--idle-watts", name, f"is not among the models: {', '.join(sorted(known))}")
        charges = []
        for choice in choices:
            watts = find(self.watts_by_model, choice)
            watts = self.watts if watts is None else watts
            if watts is None:
                raise InputError("--idle-watts", choice.name, "has none; write MODEL=W, or W for every model")
            if not 0 <= (waiting_w := number_of(watts)) < np.inf:
                raise InputError("--idle-watts", watts, "is what a GPU draws while it waits, in watts")
            charges.append(gpus_of(self.num_gpus, choice) * waiting_w * horizon_s)
        return np.array(charges, np.float64)


def parse_idle_watts(texts: Iterable[str]) -> tuple[float | None, dict[str, float]]:
    """``["50", "a=65"]`` → ``(50.0, {"a": 65.0})``.

    Raises:
        InputError: an entry is neither W nor MODEL=W, or says a second thing of the same.
    """
    watts: float | None = None
    by_model: dict[str, float] = {}
    for text in texts:
        name, _, figure = text.rpartition("=")
        try:
            value = float(figure)
        except ValueError as error:
            raise InputError("--idle-watts", text, "write W or MODEL=W, such as 55 or Llama-2-7B=55") from error
        if name in by_model or (not name and watts is not None):
            raise InputError("--idle-watts", text, f"{name or 'every model'} has watts already; give one")
        if name:
            by_model[name] = value
        else:
            watts = value
    return watts, by_model


def cheapest_set(
    charges: FloatArray, low: IntArray, high: IntArray, n_queries: int, optimum: Callable[[NDArray[np.intp]], float]
) -> NDArray[np.intp]:
    """The choices to load, ascending: the least of ``optimum`` of a set plus its ``charges``, all in one unit.

    ``charges`` have shape (n_choices,); ``low`` and ``high`` are the limits on queries. A choice whose share is above 0
    stays loaded. Of equal sets the larger is kept.

    Raises:
        InputError: more choices than :data:`MOST_CHOICES` could be unloaded.
    """
    free = np.flatnonzero(low <= 0)
    if len(free) > MOST_CHOICES:
        advice = f"{len(free)} models without a share are too many sets to compare; name {MOST_CHOICES} with --only"
        raise InputError("--allow-unload", "on", advice)
    everything = np.arange(len(charges))
    solved = {frozenset(everything.tolist()): optimum(everything)}
    best, least = everything, solved[frozenset(everything.tolist())] + float(charges.sum())
    sets = [
        np.setdiff1d(everything, unloaded)
        for size in range(1, len(free) + 1)
        for unloaded in combinations(free.tolist(), size)
    ]
    sets = [loaded for loaded in sets if len(loaded) and high[loaded].sum() >= n_queries]
    for loaded in sorted(sets, key=lambda chosen: (charges[chosen].sum(), -len(chosen), chosen.tolist())):
        key = frozenset(loaded.tolist())
        bound = max(value for of, value in solved.items() if of >= key)
        if bound + charges[loaded].sum() >= least:
            continue
        try:
            solved[key] = optimum(loaded)
        except InfeasibleError:  # limits in whole numbers that only the unloaded choices could have met
            continue
        if (total := solved[key] + float(charges[loaded].sum())) < least:
            best, least = loaded, total
    return best
