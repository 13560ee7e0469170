"""How certain a plan is of its joules, of what it saves, and of where it sends queries.

A plan's energy is linear in the models' coefficients. With Φ_K the sum of φ(τin, τout) over the queries on K, w_K the
coefficients and C_K their covariance,

    E = Σ_K Φ_K·w_K,      Var E = Σ_K Φ_Kᵀ C_K Φ_K,

because models are fitted to measurements of their own. What it saves against another division of the same queries is
linear too, with Φ_K that of the other less that of the plan: errors that both share cancel, and a saving is known far
better than either energy. The interval is E ± t·√Var at the degrees of freedom of Welch and Satterthwaite,
ν = (Σ v_K)² / Σ v_K²/ν_K with v_K the K-th summand. Terms held at zero by their bound count as known, as in
:meth:`~llmpower.modelling.Fit.interval`; a model whose data left no degree of freedom leaves the plan without interval.

This is the error of the coefficients: of the mean over such queries, if the form is right and the system is the one
measured. It knows nothing of a form that bends elsewhere, of a card that reads 5 % high, or of how far relative error
draws a fit below the mean of trials that vary (:mod:`~llmpower.modelling.regressing.totals`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmpower.modelling import Fit
from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs
from llmpower.routing.costing.outcome import Outcome
from llmpower.routing.costing.predictions import CELLS_AT_ONCE, by_form, design
from llmpower.routing.plans.student import student_t
from llmpower.routing.solving import kernels
from llmpower.routing.solving.assignment import Assignment
from llmpower.routing.stretches import in_stretches

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure [J], its standard deviation, and where it lies with a confidence of 95 %."""

    value_j: float
    std_j: float
    low_j: float
    high_j: float


@dataclass(frozen=True, slots=True)
class Saving:
    """What a plan saves against a baseline at equal accuracy: idle energy, where it is charged, included.

    ``fraction`` is of the baseline's energy. ``inside_noise`` where the interval reaches down to no saving at all;
    ``None``, as is ``interval``, where the fits do not tell. ``cost_eur`` and ``carbon_g`` are ``None`` where no tariff
    says them; where one is pursued, it is its saving that may be within the noise.
    """

    against: str
    energy_j: float
    fraction: float
    interval: Interval | None
    inside_noise: bool | None
    cost_eur: float | None
    carbon_g: float | None


def saving(
    costs: Costs, plan: Outcome, against: str, other: Outcome, ΔΦ: list[FloatArray], weighed_ΔΦ: list[FloatArray]
) -> Saving:
    """Of ``plan`` against ``other``; ΔΦ is Φ_K of the other less that of the plan, and the same of weighted joules."""
    saved_j = other.total_energy_j - plan.total_energy_j
    waiting_j = (other.idle_energy_j or 0.0) - (plan.idle_energy_j or 0.0)
    found = pursued = interval(costs, ΔΦ, waiting_j)
    # Equal divisions differ by rounding, which is neither a saving nor noise.
    saves = saved_j > 1e-9 * other.total_energy_j
    if (rate := costs.rate) is not None:
        waiting_j *= rate.mean_part
        pursued = interval(costs, weighed_ΔΦ, waiting_j)
        saves = other.weighed_j - plan.weighed_j + waiting_j > 1e-9 * other.weighed_j
    return Saving(
        against=against,
        energy_j=saved_j,
        fraction=saved_j / other.total_energy_j,
        interval=found,
        inside_noise=None if pursued is None else saves and pursued.low_j <= 0,
        cost_eur=_less(other.cost_eur, plan.cost_eur),
        carbon_g=_less(other.carbon_g, plan.carbon_g),
    )


def _less(other: float | None, plan: float | None) -> float | None:
    return None if other is None or plan is None else other - plan


@dataclass(frozen=True, slots=True, eq=False)
class Designs:
    """Σ_c x_cK·φ_K(c) of each choice K, each (n_terms,), by what x is: the plan's queries, or all of them."""

    plan: list[FloatArray]
    everything: list[FloatArray]


def summed_designs(costs: Costs, assigned: Assignment, *, weighed: bool = False) -> Designs:
    """Of ``assigned``, and of all queries on each choice; ``weighed`` as their joules are."""
    workload, fits = costs.workload, [choice.model.energy for choice in costs.choices]
    found = Designs([np.zeros(0) for _ in fits], [np.zeros(0) for _ in fits])
    for columns in by_form(fits):
        fit = fits[columns[0]]

        def add_up(cells: slice, fit: Fit = fit) -> tuple[FloatArray, FloatArray]:
            φ = design(fit, workload.input_tokens[cells], workload.output_tokens[cells])
            φ = np.ascontiguousarray(costs.weighed(φ, cells) if weighed else φ, np.float64)
            of_plan = kernels.tally(assigned.choice[cells].astype(np.int64), len(fits), assigned.whole[cells], φ)
            if len(x := assigned.queries[here := assigned.divided_in(cells)]):
                of_plan += x.T @ φ[assigned.divided[here] - cells.start]
            # Products of floats are left to BLAS, those of integers are not.
            return of_plan, workload.count[cells].astype(np.float64) @ φ

        parts = in_stretches(add_up, workload.n_cells, CELLS_AT_ONCE)
        of_plan, of_all = (sum(each) for each in zip(*parts, strict=True))
        for column in columns:
            found.plan[column], found.everything[column] = of_plan[column], of_all
    return found


def interval(costs: Costs, Φ: list[FloatArray], certain_j: float = 0.0) -> Interval | None:
    """Of Σ_K Φ_K·w_K + ``certain_j`` [J]; ``None`` where a model that counts has no degree of freedom."""
    value, variances, degrees = certain_j, [], []
    for choice, φ in zip(costs.choices, Φ, strict=True):
        fit = choice.model.energy
        value += float(φ @ fit.coefficients)
        if not φ.any():
            continue
        variance = float(φ @ np.nan_to_num(fit.covariance) @ φ)
        if (freedom := fit.degrees_of_freedom) <= 0:
            return None
        variances.append(max(variance, 0.0))
        degrees.append(freedom)
    total = sum(variances)
    spread = sum(v * v / ν for v, ν in zip(variances, degrees, strict=True))
    t = student_t(CONFIDENCE, total**2 / spread) if spread else 0.0
    std = float(np.sqrt(total))
    return Interval(value, std, value - t * std, value + t * std)
