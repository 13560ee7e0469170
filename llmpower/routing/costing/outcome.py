"""What a division of a workload comes to: the figures that plans, baselines and points of a frontier share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmpower.modelling.forms import FloatArray


@dataclass(frozen=True, slots=True)
class Scaling:
    """The largest energy and accuracy of one query on one model; the least of both counts as 0.

    Where money or carbon is pursued the energy is weighted by its rate, as a fraction of the highest one.
    ``accuracy_max`` is in tokens under weighting ``tokens`` (A_K·(τin + τout)) and without unit under ``queries``;
    ``None`` where no accuracy was given.
    """

    energy_max_j: float
    accuracy_max: float | None
    convention: str = "min-max over all queries and models, minimum 0"


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a division of the workload comes to, over all queries.

    ``objective`` is Σ ζ·ê − (1−ζ)·â, and ζ·(idle energy)/max e where that is charged, all weighted by the tariff where
    money or carbon is pursued (:mod:`llmpower.routing.problem.rates`); ``energy_j`` and ``runtime_s``
    are sums of what the models predict (seconds of all queries one after the other). ``idle_energy_j`` is what the
    loaded models are charged for waiting, ``None`` where they are not. ``accuracy_token_weighted`` is
    Σ A_K·(τin+τout) / Σ (τin+τout), ``accuracy_query_mean`` Σ A_K / N; both ``None`` where no accuracy was given.
    ``shares`` are fractions of the queries by model name. ``late_queries`` are predicted to take longer than they may:
    expected queries where chance divides them, ``None`` where nothing is asked. ``gpu_seconds`` are those that are
    taken of each limit on them, by its name; ``None`` where there is none. ``cost_eur`` and ``carbon_g`` are of the
    queries and of waiting, ``None`` where no tariff says them; ``weighed_j`` is what ``energy_j`` counts in the
    objective, the same without a tariff.
    """

    objective: float
    energy_j: float
    runtime_s: float
    accuracy_token_weighted: float | None
    accuracy_query_mean: float | None
    shares: Mapping[str, float]
    idle_energy_j: float | None
    late_queries: float | None
    gpu_seconds: Mapping[str, float] | None
    weighed_j: float
    cost_eur: float | None
    carbon_g: float | None

    @property
    def total_energy_j(self) -> float:
        """Joules of the queries and of waiting."""
        return self.energy_j + (self.idle_energy_j or 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Loads:
    """What each choice is given, each of shape (n_choices,): queries, tokens, J, s, and accuracies summed over queries.

    ``accuracy_tokens`` is Σ A_K·(τin+τout) and ``accuracy_queries`` Σ A_K; both are 0 where there are no accuracies.
    ``late`` are queries that take longer than they may; 0 where nothing is asked. ``rate_energy_j`` (n_rates,
    n_choices) are the joules by rate; no rates without a tariff.
    """

    queries: FloatArray
    tokens: FloatArray
    energy_j: FloatArray
    runtime_s: FloatArray
    accuracy_tokens: FloatArray
    accuracy_queries: FloatArray
    late: FloatArray
    rate_energy_j: FloatArray

    def weighted(self, weights: FloatArray) -> Loads:
        """Each choice given the fraction ``weights`` (n_choices,) of this."""
        return Loads(
            self.queries * weights,
            self.tokens * weights,
            self.energy_j * weights,
            self.runtime_s * weights,
            self.accuracy_tokens * weights,
            self.accuracy_queries * weights,
            self.late * weights,
            self.rate_energy_j * weights,
        )
