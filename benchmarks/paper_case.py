"""The paper's case study, planned per query: energy, accuracy and runtime along ζ, and what looking at a query saves.

Llama-2 7B, 13B and 70B from the published grid, on the published case (200 queries, reconstructed from its figure) and
on the Azure conversations; under the published form and under the form that held-out error prefers; with the published
shares 0.05/0.20/0.75 and without any. Where the published form predicts nothing positive for a query, its plans leave
that query out, and say how many.

    python benchmarks/paper_case.py      (half a minute; needs the reference data, LLMPOWER_REFERENCE_DATA)
    python benchmarks/make_paper_case_page.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from case_study.picture import draw
from case_study.workload import J_PER_KWH, compared, published_workload, reconstruct

from llmpower.modelling import WorkloadModel, fit
from llmpower.report.plan_plot import save_plan_plot
from llmpower.routing import (
    AccuracyTable,
    RoutingPlan,
    Workload,
    frontier_table,
    read_accuracy,
    route,
    trace_frontier,
)
from llmpower.routing.tradeoffs.goals import AccuracyFloor

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
LLAMAS = ("Llama-2-7B", "Llama-2-13B", "Llama-2-70B")
FORMS = ("paper", "auto")
ZETAS = tuple(step / 10 for step in range(11))
# Mean accuracies over tokens, between those of the smallest and the largest model.
FLOORS = (0.52, 0.54, 0.56, 0.58, 0.60, 0.62, 0.64)
# The spread of log τout; answers of the Azure conversations have 0.86.
SPREADS = (0.4, 0.7, 1.0)
SPREAD = 0.7


def main() -> None:
    """Compute all cases and write them down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "paper_case.json", help="where the figures go")
    out = parser.parse_args().out
    data = Path(os.environ.get("LLMPOWER_REFERENCE_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "paper" / "grid.csv").is_file():
        sys.exit(f"no reference data in {data}; set LLMPOWER_REFERENCE_DATA")
    grid = pd.read_csv(data / "paper" / "grid.csv")
    figure = pd.read_csv(data / "paper" / "routing_figure.csv")
    accuracy = read_accuracy(data / "paper" / "accuracy.csv")
    trace = pd.read_csv(data / "azure" / "AzureLLMInferenceTrace_conv.csv")
    azure = Workload.from_tokens(trace["ContextTokens"], trace["GeneratedTokens"])
    models = {form: fit(grid[grid["model_name"].isin(LLAMAS)], form=form) for form in FORMS}

    found = reconstruct(models["paper"], figure)
    published = published_workload(found, SPREAD)
    workloads = {"published": published, "azure": azure}
    cases = [
        case(name, workload, form, models[form], accuracy, shares)
        for name, workload in workloads.items()
        for form in FORMS
        for shares in (True, False)
    ]
    document = {
        "what": "the paper's case study planned per query, beside its figure and the best query-blind mix",
        "date": datetime.now(UTC).date().isoformat(),
        "forms": {form: {m.model_name: described(m) for m in models[form]} for form in FORMS},
        "reconstruction": {
            "queries": found.queries,
            "output_mean": found.output_mean,
            "spread": SPREAD,
            "figures": compared(models["paper"], published, figure),
        },
        "figure": figure[figure["method"] == "Offline"].drop(columns="method").to_dict("records"),
        "cases": cases,
        "equal_accuracy": [
            equal_accuracy(name, workload, form, models[form], accuracy)
            for name, workload in workloads.items()
            for form in FORMS
        ],
        "spreads": [
            {"spread": spread, "form": form, "shares": shares}
            | savings(published_workload(found, spread), models[form], accuracy, shares)
            for spread in SPREADS
            for form in FORMS
            for shares in (True, False)
        ],
    }
    out.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draw(document, out.with_suffix(".svg"))
    plan = route(models["auto"], azure, accuracy, only=LLAMAS)
    points = frontier_table(trace_frontier(models["auto"], azure, accuracy, only=LLAMAS))
    save_plan_plot(plan, points, out.with_name(f"{out.stem}_azure.svg"))
    for row in cases:
        print(f"{row['workload']:>9} {row['form']:>5} shares={row['shares']!s:5} saves {span(row)}")


def case(
    name: str, workload: Workload, form: str, models: Sequence[WorkloadModel], accuracy: AccuracyTable, shares: bool
) -> dict[str, Any]:
    """Plans along ζ."""
    kept, left_out = priceable(workload, models)
    plans = [plan_at(zeta, kept, models, accuracy, shares) for zeta in ZETAS]
    return {
        "workload": name,
        "form": form,
        "shares": shares,
        "queries": kept.n_queries,
        "left_out_share": left_out,
        "extrapolated_share": plans[0].extrapolated_share,
        "extrapolated_energy_share": [plan.extrapolated_energy_share for plan in plans],
        "never_chosen": list(plans[0].never_chosen),
        "singles": {
            model.model_name: outcome_row(plans[0].baselines[f"single:{model.model_name}"]) for model in models
        },
        "rows": [plan_row(plan) for plan in plans],
    }


def equal_accuracy(
    name: str, workload: Workload, form: str, models: Sequence[WorkloadModel], accuracy: AccuracyTable
) -> dict[str, Any]:
    """The cheapest plan of each accuracy beside the cheapest mix, without shares."""
    kept, _ = priceable(workload, models)
    rows = []
    for floor in FLOORS:
        plan = route(models, kept, accuracy, zeta=AccuracyFloor(floor), only=LLAMAS, draws=0)
        mix_kwh = plan.baselines["best_blind_mix"].energy_j / J_PER_KWH
        rows.append(plan_row(plan) | {"floor_pct": 100 * floor, "mix_kwh": mix_kwh})
    return {"workload": name, "form": form, "rows": rows}


def savings(
    workload: Workload, models: Sequence[WorkloadModel], accuracy: AccuracyTable, shares: bool
) -> dict[str, Any]:
    """Least and largest saving along ζ; where one model serves everything there is nothing to save."""
    kept, left_out = priceable(workload, models)
    fractions = [plan_at(zeta, kept, models, accuracy, shares).saving.fraction for zeta in ZETAS]
    mixed = [fraction for fraction in fractions if fraction > 1e-9]
    return {"left_out_share": left_out, "least": min(mixed, default=0.0), "largest": max(mixed, default=0.0)}


def plan_at(
    zeta: float, workload: Workload, models: Sequence[WorkloadModel], accuracy: AccuracyTable, shares: bool
) -> RoutingPlan:
    """The plan of one ζ, with the published shares or without any."""
    return route(
        models, workload, accuracy, zeta=zeta, shares=accuracy.shares if shares else None, only=LLAMAS, draws=20
    )


def priceable(workload: Workload, models: Sequence[WorkloadModel]) -> tuple[Workload, float]:
    """The queries for which every fit predicts something above zero, and the share of those left out."""
    tokens = (workload.input_tokens, workload.output_tokens)
    fits = [fitted for model in models for fitted in (model.energy, model.runtime)]
    good = np.logical_and.reduce([fitted.predict(*tokens) > 0 for fitted in fits])
    kept = Workload.from_tokens(*(array[good] for array in (*tokens, workload.count)))
    return kept, 1 - kept.n_queries / workload.n_queries


def plan_row(plan: RoutingPlan) -> dict[str, Any]:
    """What a plan comes to, and what it saves at equal accuracy over the best query-blind mix."""
    interval, bootstrap = plan.saving.interval, plan.bootstrap
    assert interval is not None
    baseline_j = plan.baselines[plan.saving.against].energy_j
    return {
        "zeta": plan.zeta,
        **outcome_row(plan),
        "saving": plan.saving.fraction,
        "saving_low": interval.low_j / baseline_j,
        "saving_high": interval.high_j / baseline_j,
        "reassigned_share": None if bootstrap is None else bootstrap.reassigned_share,
        "threshold_excess": threshold_excess(plan),
        "shares": dict(plan.shares),
    }


def threshold_excess(plan: RoutingPlan) -> float | None:
    """What the best token threshold falls short by, as joules at the plan's ζ over the plan's energy."""
    if not plan.zeta or "hybrid_threshold" not in plan.baselines:
        return None
    objective = plan.baselines["hybrid_threshold"].objective - plan.objective
    return objective * plan.scaling.energy_max_j / plan.zeta / plan.energy_j


def outcome_row(outcome: Any) -> dict[str, Any]:
    """Energy, runtime and accuracy."""
    queries = outcome.workload.n_queries if isinstance(outcome, RoutingPlan) else None
    return {
        "energy_kwh": outcome.energy_j / J_PER_KWH,
        "runtime_s": outcome.runtime_s,
        "mean_runtime_s": None if queries is None else outcome.runtime_s / queries,
        "accuracy_pct": 100 * outcome.accuracy_token_weighted,
    }


def described(model: WorkloadModel) -> dict[str, Any]:
    """Which forms a model has, and what held-out error decided."""
    held = model.energy.heldout
    return {"energy": model.energy.form, "runtime": model.runtime.form, "heldout_mape": held.mape}


def span(row: dict[str, Any]) -> str:
    """Least and largest saving of a case, as text."""
    fractions = [100 * plan["saving"] for plan in row["rows"] if plan["saving"] > 1e-9]
    return f"{min(fractions):.1f} to {max(fractions):.1f} %" if fractions else "nothing"


if __name__ == "__main__":
    main()
