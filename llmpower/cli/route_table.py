"""What ``llmpower route`` prints: the plan and its baselines, what goes where, and caveats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from llmpower import phrases
from llmpower.cli.layout import ABSENT, aligned, compact, covered, energy_unit, in_percent
from llmpower.cli.route_amounts import amount_columns, pursued, rates_line, saved, worth_words
from llmpower.modelling.fitted.models import SHORT
from llmpower.routing import Outcome, RoutingPlan
from llmpower.routing.problem.gpu_seconds import ROUNDING
from llmpower.routing.problem.rates import UNITS

if TYPE_CHECKING:
    from llmpower.routing.problem.tariff import Tariff


def plan_lines(plan: RoutingPlan) -> list[str]:
    """The tables, for a terminal."""
    outcomes: dict[str, Outcome] = {"plan": plan, **plan.baselines}
    divisor, unit = energy_unit(outcome.total_energy_j for outcome in outcomes.values())
    factor = {"energy": "e", "money": "e·price", "carbon": "e·carbon"}[plan.weighs]
    scaling = f"ê = {factor} / {pursued(plan, plan.scaling.energy_max_j)}"
    if plan.scaling.accuracy_max is not None:
        scaling += f", â = a / {plan.scaling.accuracy_max:,.6g}, a weighted by {plan.accuracy_weighting}"
    lines = [
        f"{phrases.plural(plan.workload.n_queries, 'query')} in {phrases.plural(plan.workload.n_cells, 'cell')},"
        f" {phrases.plural(len(plan.model_names), 'model')},"
        f" ζ = {plan.zeta:.4g}{worth_words(plan)};"
        f" optimal within {plan.optimality_gap:.1g}, found in {plan.solve_s:.2f} s",
        f"cost = ζ·ê − (1−ζ)·â, {scaling} ({plan.scaling.convention})",
        "",
    ]
    if plan.simulated:
        lines.insert(0, phrases.SIMULATED)
    limited, counted = plan.max_runtime_s is not None, plan.second_limits is not None
    amounts = amount_columns(plan.workload.rates.by_kind, outcomes.values())
    header = (
        *("", f"ENERGY [{unit}]", "SAVED [%]", *(name for column in amounts for name in (column.header, "SAVED [%]"))),
        *("ACC/TOKEN [%]", "ACC/QUERY [%]", "RUNTIME [s]"),
        *(["LATE [%]"] if limited else []),
        *(["OVER"] if counted else []),
    )
    lines += aligned(
        header,
        [
            (
                name,
                f"{outcome.total_energy_j / divisor:,.2f}",
                saved(plan.total_energy_j, outcome.total_energy_j) if outcome is not plan else "",
                *(
                    text
                    for column in amounts
                    for text in (
                        column.figure(outcome),
                        saved(column.of(plan), column.of(outcome)) if outcome is not plan else "",
                    )
                ),
                in_percent(outcome.accuracy_token_weighted, 2),
                in_percent(outcome.accuracy_query_mean, 2),
                f"{outcome.runtime_s:,.1f}",
                *([in_percent((outcome.late_queries or 0) / plan.workload.n_queries, 2)] if limited else []),
                *([", ".join(_over(plan, outcome)) or ABSENT] if counted else []),
            )
            for name, outcome in outcomes.items()
        ],
        right=header[1:],
    )
    lines.append("")
    header = ("MODEL", "SHARE [%]", "QUERIES", f"ENERGY [{unit}]", "RUNTIME [s]", "PRICE")
    lines += aligned(
        header,
        [
            (
                name,
                in_percent(plan.shares[name], 2),
                f"{load.queries:,}",
                f"{load.energy_j / divisor:,.2f}",
                f"{load.runtime_s:,.1f}",
                "unloaded" if name in plan.unloaded else _price(plan.prices[name]),
            )
            for name, load in plan.models.items()
        ],
        right=header[1:],
    )
    return [*lines, "", *_notes(plan, divisor, unit)]


def _price(price: float) -> str:
    return f"{'+' if price > 0 else ''}{compact(price, 4)}"


def warnings(plan: RoutingPlan) -> Iterator[str]:
    """What somebody should know before acting on the plan."""
    if plan.extrapolated_queries:
        yield (
            f"{100 * plan.extrapolated_share:.3g} % of the queries, with {100 * plan.extrapolated_energy_share:.3g} %"
            " of the energy, lie outside what at least one model was fitted on; there its figures are extrapolations"
        )
    for choice in plan.choices:
        if (fit := choice.model.energy).shortfall > SHORT:
            yield (
                f"joules of {choice.name} add up to {in_percent(fit.shortfall)} % less than was measured, held out,"
                " which no interval here allows for; for plans fit with --match-total"
            )
    if plan.saving.inside_noise:
        yield (
            f"the saving of {100 * plan.saved_share:.2g} % is within the noise of the models: measured again, it"
            " may vanish; measure more trials (llmpower profile)"
        )
    # Without accuracies the table has said already which model costs least.
    for name in plan.never_chosen if plan.accuracy_query_mean is not None else ():
        forcing = "its share sends" if plan.second_limits is None else "shares and limits send"
        forced = f"only {forcing} queries there" if plan.models[name].queries else "it serves none"
        why = "others are as good for fewer joules on every query"
        if plan.max_runtime_s is not None:
            why = "on every query it would be late, or others are as good for fewer joules"
        yield f"no ζ ever chooses {name}: {why}; {forced}"


def policy_warnings(plan: RoutingPlan, tariff: Tariff | None) -> Iterator[str]:
    """What somebody should know before routing by its policy."""
    if tariff is None or plan.weighs == "energy":
        return
    if not tariff.day:
        last = np.datetime64(int(tariff.start[-1]), "s")
        yield f"the policy has rates until {last}Z and an hour at most; what comes later is weighted by their mean"
    elif tariff.zone is None:
        yield "the policy takes the tariff's hours for hours of UTC; name --tariff-zone where they are local ones"


def _notes(plan: RoutingPlan, divisor: float, unit: str) -> Iterator[str]:
    """How sure the figures are, and what stands behind names of the table."""
    yield f"energy covers {covered(plan.boundary)}"
    if plan.workload.rates.number:
        yield rates_line(plan)
    if (bound := plan.bound) is not None:
        best = _percent(bound.accuracy)
        if bound.energy_j is not None:
            best = f"{bound.energy_j / divisor:,.2f} {unit}"
        elif (amount := bound.cost_eur or bound.carbon_g) is not None:
            best = f"{amount:,.6g} {UNITS[plan.weighs].name}"
        elif bound.objective is not None:
            best = f"an objective of {bound.objective:.9g}"
        yield f"no plan does better than {best}, even if it divided queries"
    if plan.max_runtime_s is not None:
        yield f"every query is predicted to take at most {plan.max_runtime_s:.6g} s by itself; LATE would take longer"
    if (limits := plan.second_limits) is not None and plan.gpu_seconds is not None:
        more = f"{100 * plan.optimality_gap:.2g} % of what it pays"
        yield f"in whole queries this one has {plan.objective:.9g}, {more} more{_in_fractions(plan)}"
        for name, limit in limits.items():
            worth = f"one more is worth {limit.price:.4g} of the objective" if limit.price else "more are worth nothing"
            yield f"{name}: {plan.gpu_seconds[name]:,.1f} of at most {limit.limit:,.1f} GPU-seconds; {worth}"
        yield "OVER: the models whose GPU-seconds a baseline exceeds"
    if (energy := plan.energy) is not None:
        yield (
            f"energy of the plan's queries: 95 % from {energy.low_j / divisor:,.2f} to {energy.high_j / divisor:,.2f}"
            f" {unit}, by the coefficients' covariance"
        )
    saving = plan.saving
    line = f"saved against {saving.against}: {saving.energy_j / divisor:z,.2f} {unit} ({in_percent(saving.fraction)} %)"
    if (sure := saving.interval) is not None:
        line += f", 95 % from {sure.low_j / divisor:,.2f} to {sure.high_j / divisor:,.2f} {unit}"
    for column in amount_columns(plan.workload.rates.by_kind, [plan.baselines[saving.against]]):
        line += f"; {column.saved(plan)}"
    if (against := plan.baselines[saving.against]).late_queries:
        line += f"; that is late for {_late(plan, against)} of the queries"
    if over := _over(plan, against):
        line += f"; that exceeds the GPU-seconds of {', '.join(over)}"
    yield line
    if (again := plan.bootstrap) is not None:
        yield (
            f"measured again, {100 * again.reassigned_share:.2g} % of the queries would go elsewhere (95 % of"
            f" {phrases.plural(again.draws, 'draw')}: at most {100 * again.reassigned_share_p95:.2g} %)"
        )
    if plan.idle_energy_j is not None:
        idle = f"{plan.idle_energy_j / divisor:,.2f} {unit}"
        yield f"of the plan's energy, {idle} are charged for loaded models that wait"
    if (rule := plan.threshold) is not None:
        yield (
            f"hybrid_threshold: up to {rule.threshold} {rule.tokens.replace('_', ' ')} to {rule.below}, longer ones to"
            f" {rule.above}"
        )


def _in_fractions(plan: RoutingPlan) -> str:
    if plan.bound is None or plan.bound.fractional_gap is None:
        return ""
    return f"; divided ones would come to within {plan.bound.fractional_gap:.1g} of it"


def _over(plan: RoutingPlan, outcome: Outcome) -> list[str]:
    """Models whose limit on GPU-seconds is exceeded, by more than a sum's rounding."""
    used = outcome.gpu_seconds or {}
    limits = plan.second_limits or {}
    return [name for name, limit in limits.items() if used[name] > limit.limit * (1 + 2 * ROUNDING)]


def _late(plan: RoutingPlan, outcome: Outcome) -> str:
    return _percent((outcome.late_queries or 0) / plan.workload.n_queries)


def _percent(fraction: float | None) -> str:
    return ABSENT if fraction is None else f"{in_percent(fraction, 2)} %"
