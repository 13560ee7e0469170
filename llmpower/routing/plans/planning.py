"""From models and a workload to a plan: :func:`route`.

It is the one way to a plan; the command line, the frontier and the report all take it, or its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from time import perf_counter

import numpy as np

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.modelling.forms import FloatArray
from llmpower.routing.costing.costs import Costs, predict_costs
from llmpower.routing.costing.idle import Idle
from llmpower.routing.costing.latency import refuse_late
from llmpower.routing.costing.loads import model_loads
from llmpower.routing.costing.outcome import Outcome
from llmpower.routing.plans.baselines import Baselines, baselines, round_robin
from llmpower.routing.plans.bootstrap import Bootstrap, bootstrap
from llmpower.routing.plans.loaded import Assigned, Solved, solve_loaded
from llmpower.routing.plans.plan import RoutingPlan
from llmpower.routing.plans.thresholds import best_threshold
from llmpower.routing.plans.uncertainty import Designs, Saving, interval, saving, summed_designs
from llmpower.routing.problem.accuracy import AccuracyTable, Weighting
from llmpower.routing.problem.gpu_seconds import GpuSeconds
from llmpower.routing.problem.rates import Weigh
from llmpower.routing.problem.shares import Share, query_limits, share_ranges
from llmpower.routing.problem.workload import IntArray, Workload, check_workload
from llmpower.routing.solving.solver import solve
from llmpower.routing.tradeoffs.dominance import never_chosen
from llmpower.routing.tradeoffs.goals import KNEE, Bound, Chosen, Goal, check_goal, choose, pursued
from llmpower.routing.tradeoffs.tradeoff import Tradeoff
from llmpower.tables import number_of, whole_number


def route(
    models: WorkloadModel | Iterable[WorkloadModel],
    workload: Workload,
    accuracy: Mapping[str, float] | AccuracyTable | None = None,
    *,
    zeta: float | Goal = KNEE,
    shares: Mapping[str, Share] | None = None,
    only: str | Collection[str] = (),
    accuracy_weighting: Weighting = "tokens",
    idle: Idle | None = None,
    allow_unload: bool = False,
    max_runtime_s: float | None = None,
    gpu_seconds: GpuSeconds | None = None,
    weigh: Weigh | None = None,
    max_extrapolation: float = 1.0,
    draws: int = 20,
    solved: Callable[[Assigned], None] | None = None,
) -> RoutingPlan:
    """Assign every query to exactly one model at least Σ ζ·ê − (1−ζ)·â (Wilkins, Keshav and Mortier, HotCarbon 2024).

    Args:
        models: what :func:`llmpower.fit` returns or ``models.json`` holds.
        workload: the queries, all known in advance.
        accuracy: A_K in 0..1 by model name, or a table with accuracies by class of query; may be left out where
            ``zeta`` is 1.
        zeta: ζ, from 0 (accuracy alone) to 1 (energy alone), or what it is to be chosen for
            (:mod:`llmpower.routing.tradeoffs.goals`): the knee of the frontier by default.
        shares: by model name, the fraction of the queries to send there, or a pair (low, high); models without one
            are free. Fractions become whole numbers of queries by largest remainder and are met exactly.
        only: route to these models alone, or to one.
        accuracy_weighting: whether a query's accuracy counts by its tokens, as in the paper, or once.
        idle: what loaded models are charged for waiting; nothing by default.
        allow_unload: leave a model out where its queries are not worth what its waiting costs.
        max_runtime_s: no query may go to a model on which it is predicted to take longer, by itself; any may by
            default.
        gpu_seconds: the most GPU-seconds that all queries of a model may take; ζ is chosen as without. Whole queries
            keep to them at a little more than the optimum, and ``optimality_gap`` says how much more.
        weigh: what is pursued of a workload that came with a tariff's rates: ``money``, ``carbon`` or ``energy``. By
            default what the goal counts, else money where there are prices, else carbon.
        max_extrapolation: the largest fraction of the queries, and of the energy, that may lie outside what the models
            were fitted on. Any by default, and up to half on the command line.
        draws: how often to plan again with other coefficients, for
            :class:`~llmpower.routing.plans.bootstrap.Bootstrap`.
        solved: is called when it is known which query goes where, while everything else is computed: rows can be
            written meanwhile. The plan may still be refused.

    Raises:
        InputError: an argument is out of range, models cannot be compared, a form predicts ≤ 0, or more is extrapolated
            than may be.
        InfeasibleError: no division of the queries meets the shares, or none does within ``max_runtime_s`` and
            ``gpu_seconds``.

    Example:
        >>> import pandas as pd
        >>> from llmpower.modelling import fit
        >>> L, K = (8, 64, 512), (("small", 1), ("large", 5))
        >>> rows = pd.DataFrame(
        ...     [(name, τin, τout, k * (5 + 0.1 * τin + 2 * τout), 1.0) for name, k in K for τin in L for τout in L],
        ...     columns=["model_name", "input_tokens", "output_tokens", "gpu_energy_j", "runtime_s"],
        ... )
        >>> queries = Workload.from_tokens([8, 500, 8, 500], [10, 10, 400, 400])
        >>> plan = route(fit(rows, form="cached"), queries, {"small": 0.5, "large": 0.7}, shares={"large": 0.5})
        >>> {name: of.queries for name, of in plan.models.items()}
        {'large': 2, 'small': 2}
        >>> plan.optimality_gap
        0.0
    """
    zeta = check_goal(zeta, accuracy)
    check_workload(workload)
    if (times := whole_number(draws, 0)) is None:
        raise InputError("draws", draws, "is how often to plan again; give 0 or more")
    if gpu_seconds is not None and allow_unload:
        raise InputError("--gpu-seconds", "with --allow-unload", "limits hold for loaded models; leave one out")
    if not 0 <= (most := number_of(max_extrapolation)) <= 1:
        raise InputError("--max-extrapolation", max_extrapolation, "is a fraction from 0 to 1")
    costs = predict_costs(
        models,
        workload,
        accuracy,
        only=only,
        weighting=accuracy_weighting,
        idle=idle,
        allow_unload=allow_unload,
        max_runtime_s=max_runtime_s,
        gpu_seconds=gpu_seconds,
        weigh=pursued(zeta, weigh, workload.rates),
    )
    limits = query_limits(shares, costs.model_names, workload.n_queries)
    refuse_late(costs, limits)
    chosen = choose(costs, limits, zeta)
    plan = make_plan(costs, limits, share_ranges(shares, costs.model_names), chosen, times, solved)
    if max(plan.extrapolated_share, plan.extrapolated_energy_share) > most:
        advice = (
            f"{100 * plan.extrapolated_share:.3g} % of the queries with {100 * plan.extrapolated_energy_share:.3g} % of"
            " the energy lie outside what at least one model was fitted on; measure such lengths, leave them out, or"
            " allow more"
        )
        raise InputError("--max-extrapolation", max_extrapolation, advice)
    return plan


def make_plan(
    costs: Costs,
    limits: tuple[IntArray, IntArray],
    ranges: Mapping[str, tuple[float, float]],
    chosen: Chosen,
    draws: int = 0,
    solved: Callable[[Assigned], None] | None = None,
) -> RoutingPlan:
    """Solve for one ζ; ``limits`` are the lowest and highest numbers of queries, each of shape (n_models,), that
    ``ranges`` of shares come to.
    """
    with ThreadPoolExecutor(1) as pool:
        return _made(costs, limits, ranges, chosen, draws, solved, pool)


def _made(
    costs: Costs,
    limits: tuple[IntArray, IntArray],
    ranges: Mapping[str, tuple[float, float]],
    chosen: Chosen,
    draws: int,
    solved: Callable[[Assigned], None] | None,
    pool: ThreadPoolExecutor,
) -> RoutingPlan:
    workload, names, zeta = costs.workload, costs.model_names, chosen.zeta
    everything = np.arange(len(names))
    paid = costs.per_query(zeta)

    def drawn(loaded: IntArray, second_prices: FloatArray | None) -> Bootstrap | None:
        # What is unloaded stays so. A sample of the queries has no sum to be held to: limits on sums are their prices.
        of_loaded = limits[0], np.where(np.isin(everything, loaded), limits[1], 0)
        priced = replace(costs, second_prices=second_prices)
        return bootstrap(priced, of_loaded, zeta, draws, _assign) if draws else None

    # What does not need the plan does not wait for it: a solution leaves part of two processors free.
    of_rule = pool.submit(best_threshold, costs, zeta, paid)
    of_turns = pool.submit(round_robin, workload, len(names))
    of_corners = pool.submit(never_chosen, costs)
    all_loaded = not costs.unloadable and costs.second_rows is None
    of_draws = pool.submit(drawn, everything, None) if all_loaded else None
    started = perf_counter()
    found = Solved(chosen.solution, everything) if chosen.solution else solve_loaded(costs, limits, zeta, paid)
    solution, loaded = found.solution, found.loaded
    solve_s = perf_counter() - started
    if solved is not None:
        solved(Assigned(workload, names, costs.choices, solution.assignment))
    of_draws = of_draws or pool.submit(drawn, loaded, found.second_prices)
    rule, turns = of_rule.result(), of_turns.result()
    del paid, of_rule, of_turns
    loads, turn_loads, *rule_loads, of_all = costs.all_loads(
        solution.assignment, turns, *([] if rule is None else [rule.choice])
    )
    del turns
    outcome = costs.summed(loads, zeta)
    compared = baselines(costs, outcome, zeta, of_all, turn_loads, *rule_loads)
    Φ = summed_designs(costs, solution.assignment)
    weighed_Φ = Φ if costs.rate is None else summed_designs(costs, solution.assignment, weighed=True)
    worth = Tradeoff(costs, limits).joules_per_point(zeta) if costs.accuracy is not None and zeta else None
    return RoutingPlan(
        **{field.name: getattr(outcome, field.name) for field in fields(Outcome)},
        workload=workload,
        model_names=names,
        choices=costs.choices,
        assignment=solution.assignment,
        share_ranges=ranges,
        max_runtime_s=costs.max_runtime_s,
        zeta=zeta,
        weighs=costs.weighs,
        joules_per_point=worth if costs.rate is None else None,
        amount_per_point=None if costs.rate is None or worth is None else costs.amount(worth),
        bound=chosen.bound
        if found.bound is None
        else Bound(objective=found.bound, fractional_gap=found.fractional_gap),
        second_limits=found.second_limits,
        accuracy_weighting=costs.weighting,
        scaling=costs.scaling,
        prices={names[K]: float(solution.prices[K]) for K in loaded},
        optimality_gap=solution.optimality_gap,
        solve_s=solve_s,
        models=dict(zip(names, model_loads(costs, loads), strict=True)),
        baselines=compared.outcomes,
        threshold=None if rule is None else rule.rule,
        energy=interval(costs, Φ.plan),
        saving=_saving(costs, outcome, compared, Φ, weighed_Φ),
        bootstrap=of_draws.result(),
        extrapolated_queries=int(workload.count[costs.extrapolated].sum()),
        extrapolated_energy_j=solution.assignment.total(costs.energy_j, costs.extrapolated),
        never_chosen=of_corners.result(),
        unloaded=tuple(name for K, name in enumerate(names) if K not in loaded),
        simulated=costs.choices[0].model.simulated,
        boundary=costs.choices[0].model.boundary,
    )


def _assign(
    paid: FloatArray, count: IntArray, low: IntArray, high: IntArray, prices: FloatArray | None
) -> tuple[IntArray, FloatArray]:
    solution = solve(paid, count, low, high, prices=prices)
    return solution.assigned, solution.prices


def _saving(costs: Costs, plan: Outcome, compared: Baselines, Φ: Designs, weighed_Φ: Designs) -> Saving:
    """Against the best blind mix; without accuracies, against the single model that costs least."""
    against, mix = "best_blind_mix", compared.best_blind_mix
    if mix is None:
        # Without accuracies ζ is 1, and the objective is what is pursued.
        singles = [compared.outcomes[f"single:{name}"].objective for name in costs.model_names]
        mix = np.eye(len(singles))[int(np.argmin(singles))]
        against = f"single:{costs.model_names[int(np.argmin(singles))]}"
    ΔΦ, weighed_ΔΦ = (
        [w * of_all - ours for w, of_all, ours in zip(mix, sums.everything, sums.plan, strict=True)]
        for sums in (Φ, weighed_Φ)
    )
    return saving(costs, plan, against, compared.outcomes[against], ΔΦ, weighed_ΔΦ)
