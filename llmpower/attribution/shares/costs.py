"""What work on one device costs, found out from the device itself.

The coefficients of :mod:`~llmpower.attribution.shares.weights` are fitted to what the device has shown. Between two
edges of its counter the energy is known, and what ran there too. Its power y = E/d is, by what was done a second, x,

    y = x·β + r,     β ≥ 0,     var r = σ²/d

(what fluctuates averages out over time). Only the sums XᵀX, Xᵀy and those of the residuals are kept, and old
observations fade by a factor e in :data:`MEMORY_S` of busy time. Idle time within an observation is taken off at the
idle power. σ² is the mean of d·r², and :data:`CORRELATED` observations in a row count for one.

Before there is evidence there is a prior, which enters as observations β_k = β0_k ± κ_k·β0_k: a model's coefficients
are in the :data:`PROPORTIONS` of a usual model, at the scale at which they explain most of the device's energy. So
evidence takes over where there is some, a coefficient that nothing has moved yet stays where it was, and two whose work
only ever comes together share it by the prior. The covariance (XᵀX/σ² + prior)⁻¹ knows all that.

What no coefficient explains is that requests differ. If each costs what its tokens say times 1 ± ε, then an observation
in which spans had shares s_i deviates by ε·√(Σ s_i²) of its energy E; so ε² = Σ (r·d/E)²/Σ Σ s_i², over observations
that spans shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.shares.nnls import nonnegative
from llmpower.attribution.shares.weights import FEATURES
from llmpower.types import Span, WorkCost

Floats = NDArray[np.float64]

PROPORTIONS = (1.0, 4e-5, 60.0, 2.0, 1e-3)
"""Energy of a prompt's token, per token before it, of a step, of a decoded token, and per token of its context.

By arithmetic, for a dense model of 7 billion parameters in 16 bits on a card of 400 TFLOP/s, 3 TB/s and 650 W: a
prompt's token takes 14 GFLOP, 35 µs at full power, and 0.5 MFLOP per token before it; a step reads 14 GB in 4.7 ms at
half of that power, and half a megabyte per token of context, or a quarter of that where heads share their cache.
"""

PRIOR_STD = (1.0, 3.0, 2.0, 3.0, 5.0)
"""κ."""

PULL = 0.01
"""How far a model's scale is drawn to that of all models together, relative to what it has shown itself."""

MEMORY_S = 600.0

LEAST_STD = 0.01
"""Least σ believed, relative to the mean power, for observations of :data:`USUAL_S`."""

FIRST_STD = 0.1
"""The same before residuals have told."""

USUAL_S = 0.1
FEW = 10.0
"""This many usual observations determine σ."""

CORRELATED = 4.0
"""How many observations in a row err together: what disturbs one lasts."""

OUTLIER = 3.0
"""An observation further off than this many deviations counts as if it were at this distance."""

SPREAD = (0.02, 0.2, 1.0)
"""Least, first and most ε believed; the first counts for :data:`FEW` observations."""

SOLVE_SHARE, SOLVE_EVERY = 0.05, 100
"""A new solution waits for this many new observations, relative to all before, and for no more than this many."""

MAX_MODELS = 4
OTHERS = MAX_MODELS - 1
"""Models on one device have coefficients of their own up to this many; all others that run beside them share some."""

ALL_OTHERS = "*"
"""What these are called."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What ran between moments at which the device showed its energy: columns of shape (k,).

    ``busy_s`` is the part of ``duration_s`` in which anything ran; ``done`` has what was done a second, averaged over
    all of the duration: the features of each model, shape (k, 5·models).
    """

    duration_s: Floats
    busy_s: Floats
    energy_j: Floats
    done: Floats


class Costs:
    """The coefficients of one device, learnt as it works."""

    def __init__(self) -> None:
        size = MAX_MODELS * len(FEATURES)
        self._slots: dict[str, tuple[int, float]] = {}  # number, and when it was seen; the latest last
        self._clock_s = 0.0  # busy time observed
        self._seen = np.zeros(MAX_MODELS, int)  # observations of each
        # Sums that fade.
        self._gram, self._moments = np.zeros((size, size)), np.zeros(size)
        self._duration_s = self._energy_j = self._residual_w2 = 0.0
        self._strayed = self._concentration = 0.0
        self._unsolved, self._taken = 0, 0
        self._positive = np.zeros(size, bool)  # of the latest solution
        self.beta = np.zeros(size)
        """The coefficients of each slot, in J per feature."""
        self.covariance = np.zeros((size, size))
        """Of beta."""
        self.sigma_w = 0.0
        """σ, in W·√s."""
        self.spread = SPREAD[1]
        """ε."""
        self.residual_j = 0.0
        """Σ over observations of the absolute energy that the coefficients leave unexplained, of what spans shared."""
        self.work: tuple[WorkCost, ...] = ()
        """The same for people, by model; of those of which something was seen."""
        self._solve()

    @property
    def mean_w(self) -> float:
        """Mean power while busy; 1 W before any was seen."""
        return self._energy_j / self._duration_s if self._energy_j > 0 else 1.0

    def slots(self, spans: Sequence[Span]) -> NDArray[np.int64]:
        """The number of the coefficients of each span's model, shape (spans,)."""
        numbers = {name: self._slot(name) for name in dict.fromkeys(span.model_name for span in spans)}
        return np.array([numbers[span.model_name] for span in spans], np.int64)

    def _slot(self, model_name: str) -> int:
        """A slot of its own if one is free or not seen for long; else the last, which all others share."""
        found = self._slots.pop(model_name, None)
        if found is None:
            number = len(self._slots)
            if number == OTHERS:
                oldest, (number, seen_s) = next(iter(self._slots.items()))
                if self._clock_s - seen_s < MEMORY_S:
                    return OTHERS
                del self._slots[oldest]
                self._forget(number)
        else:
            number = found[0]
        self._slots[model_name] = number, self._clock_s
        return number

    def learn(self, seen: Observed, idle_w: float | None) -> None:
        """Take what the device has shown, and by ``idle_w`` what it draws with nothing to do, in watts, if known."""
        idle_s = seen.duration_s - seen.busy_s
        taken = (seen.busy_s > seen.duration_s / 2) & ((idle_s < 1e-6) | (idle_w is not None))
        if not taken.any():
            return
        d, x = seen.duration_s[taken], seen.done[taken]
        own = slice(0, x.shape[1])
        y = (seen.energy_j[taken] - (idle_w or 0.0) * idle_s[taken]) / d
        weight = d.copy()
        if self._duration_s > FEW * USUAL_S:
            residual_w = y - x @ self.beta[own]
            limit_w = OUTLIER * self.sigma_w / np.sqrt(d)
            weight *= np.minimum(1.0, limit_w / np.maximum(np.abs(residual_w), 1e-9))
        self._clock_s += float(d.sum())
        self._fade(exp(-float(d.sum()) / MEMORY_S))
        self._gram[own, own] += (x * weight[:, None]).T @ x
        self._moments[own] += (weight * y) @ x
        self._duration_s += float(weight.sum())
        self._energy_j += float(weight @ y)
        for number in range(x.shape[1] // len(FEATURES)):
            self._seen[number] += int(np.count_nonzero(x[:, _own(number)].any(axis=1)))
        self._taken += len(d)
        self._unsolved += len(d)
        if self._unsolved >= min(SOLVE_SHARE * self._taken, SOLVE_EVERY):
            self._solve()
        residual_w = y - x @ self.beta[own]
        self._residual_w2 += float(weight @ (d * np.minimum(residual_w**2, y**2)))

    def judge(self, seen: Observed, shared_j: Floats, concentrated_j: Floats) -> None:
        """Take how the observed was shared.

        Args:
            seen: as above.
            shared_j: the energy of it that several spans shared, shape (k,).
            concentrated_j: Σ s_i² of the shares times that energy.
        """
        taken = (shared_j > 0.5 * seen.energy_j) & (seen.busy_s > 0.999 * seen.duration_s)
        if not taken.any():
            return
        energy_j = np.maximum(seen.energy_j[taken], 1e-12)
        explained_j = seen.duration_s[taken] * (seen.done[taken] @ self.beta[: seen.done.shape[1]])
        residual_j = energy_j - explained_j
        self.residual_j += float(np.abs(residual_j) @ (shared_j[taken] / energy_j))
        self._strayed += float(np.sum(np.minimum((residual_j / energy_j) ** 2, 1.0)))
        self._concentration += float(np.sum(concentrated_j[taken] / np.maximum(shared_j[taken], 1e-12)))

    def _fade(self, factor: float) -> None:
        self._gram *= factor
        self._moments *= factor
        self._duration_s *= factor
        self._energy_j *= factor
        self._residual_w2 *= factor
        self._strayed *= factor
        self._concentration *= factor

    def _solve(self) -> None:
        self._unsolved = 0
        mean_w = self.mean_w
        few_s = FEW * USUAL_S
        first_w2 = (FIRST_STD * mean_w) ** 2 * USUAL_S
        sigma_w2 = (self._residual_w2 + few_s * first_w2) / (self._duration_s + few_s)
        self.sigma_w = max(sqrt(sigma_w2), LEAST_STD * mean_w * sqrt(USUAL_S))
        # In units of the prior, of which each coefficient is then expected to be 1 ± κ.
        prior = np.outer(self._scales(), PROPORTIONS).ravel()
        precision = 1 / np.tile(PRIOR_STD, MAX_MODELS) ** 2
        units = prior / (self.sigma_w * sqrt(CORRELATED))
        gram = self._gram * np.outer(units, units) + np.diag(precision)
        moments = self._moments * units / (self.sigma_w * sqrt(CORRELATED)) + precision
        # A model of which nothing was seen is where the prior is; it need not be solved for.
        self.beta = prior.copy()
        seen = np.diag(self._gram) > 0
        self.beta[seen] *= nonnegative(gram[np.ix_(seen, seen)], moments[seen], self._positive[seen])
        self._positive = self.beta > 0
        self.covariance = np.outer(prior, prior) * np.linalg.inv(gram)
        least, first, most = SPREAD
        spread2 = (self._strayed + FEW * first**2 / 10) / (self._concentration + FEW / 10)
        self.spread = min(max(sqrt(spread2), least), most)
        self.work = tuple(self._tell())

    def _tell(self) -> Iterator[WorkCost]:
        std_j = np.sqrt(np.diag(self.covariance))
        misfit = self.sigma_w / sqrt(USUAL_S) / self.mean_w
        named = [*((name, slot) for name, (slot, _) in self._slots.items()), (ALL_OTHERS, OTHERS)]
        for name, slot in named:
            if self._seen[slot]:
                energy_j = dict(zip(FEATURES, self.beta[_own(slot)].tolist(), strict=True))
                deviations_j = dict(zip(FEATURES, std_j[_own(slot)].tolist(), strict=True))
                yield WorkCost(name, energy_j, deviations_j, int(self._seen[slot]), misfit, self.spread)

    def _scales(self) -> Floats:
        """Of each model, at which scale the proportions explain most of the energy."""
        shape = np.array(PROPORTIONS)
        blocks = self._gram.reshape(MAX_MODELS, len(shape), MAX_MODELS, len(shape))
        gram = np.einsum("k,ikjl,l->ij", shape, blocks, shape)
        moments = self._moments.reshape(MAX_MODELS, len(shape)) @ shape
        known = np.diag(gram) > 0
        if not known.any():
            return np.ones(MAX_MODELS)
        together = float(moments[known].sum() / gram[np.ix_(known, known)].sum()) or 1.0
        pull = PULL * np.diag(gram)[known]
        own = nonnegative(gram[np.ix_(known, known)] + np.diag(pull), moments[known] + together * pull)
        scales = np.full(MAX_MODELS, together)
        scales[known] = np.maximum(own, PULL * together)
        return scales

    def _forget(self, slot: int) -> None:
        """What was learnt of a model that another takes the place of, which has the prior's coefficients at once."""
        own = _own(slot)
        self._gram[own], self._gram[:, own], self._moments[own] = 0.0, 0.0, 0.0
        self._seen[slot] = 0
        self._solve()


def _own(slot: int) -> slice:
    return slice(slot * len(FEATURES), (slot + 1) * len(FEATURES))
