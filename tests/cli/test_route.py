"""``llmpower route`` as a process: what it prints and writes; see test_route_refused.py for what it refuses."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from route_options import COLUMNS, TIMED

from llmpower.cli.route import WEIGHTINGS
from llmpower.cli.tariffs import WEIGHS
from llmpower.modelling import load_models, save_models
from llmpower.routing import Workload, load_policy, read_accuracy, route
from llmpower.routing.problem.accuracy import WEIGHTINGS as KNOWN_WEIGHTINGS
from llmpower.routing.problem.rates import WEIGHS as KNOWN_WEIGHS

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_choices_are_those_of_the_library() -> None:
    assert WEIGHS == KNOWN_WEIGHS
    assert WEIGHTINGS == KNOWN_WEIGHTINGS


def test_json_is_the_plan_of_the_library(run_route: Run, route_files: Path) -> None:
    done = run_route("--accuracy", "{d}/accuracy.csv", "--share", "large=0.25:0.5", "--zeta", "0.2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    frame = pd.read_csv(route_files / "queries.csv")
    plan = route(
        load_models(route_files / "models.json"),
        Workload.from_tokens(frame["ContextTokens"], frame["GeneratedTokens"]),
        read_accuracy(route_files / "accuracy.csv").accuracy,
        zeta=0.2,
        shares={"large": (0.25, 0.5)},
    )
    document: dict[str, Any] = json.loads(done.stdout)
    assert {**document, "solve_s": plan.solve_s} == plan.to_json()


def test_table_says_what_was_planned_and_what_it_saves(run_route: Run) -> None:
    done = run_route("--accuracy", "{d}/accuracy.csv", "--shares-from-accuracy", "--zeta", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    # Σ tokens is 1712, so a point is worth 1712/100 × 20 kJ / 364.
    assert lines[0].startswith(
        "4 queries in 3 cells, 2 models, ζ = 0.5, where a point of accuracy is worth 940.8 J; optimal within "
    )
    assert "ê = e / 20 kJ, â = a / 364, a weighted by tokens (min-max over all queries and models" in lines[1]
    names = [line.split()[0] for line in lines if line]
    assert names[2:] == [
        *("ENERGY", "plan", "single:large", "single:small", "round_robin", "random"),
        *("best_blind_mix", "same_shares_blind", "hybrid_threshold", "MODEL", "large", "small"),
        *("energy", "energy", "saved", "measured", "hybrid_threshold:"),
    ]
    large = next(line for line in reversed(lines) if line.startswith("large"))
    assert large.split()[:3] == ["large", "75.00", "3"]
    assert "energy covers gpu" in lines


def test_plan_has_the_rows_in_their_order(run_route: Run, tmp_path: Path) -> None:
    out = tmp_path / "plan.csv"
    assert run_route("--accuracy", "{d}/accuracy.csv", "--share", "small=0.5", "-o", str(out)).returncode == 0
    plan = pd.read_csv(out)
    assert list(plan.columns) == ["input_tokens", "when", "output_tokens", "model_name"]
    assert plan["when"].tolist() == ["first", "second", "third", "fourth"]
    assert sorted(plan["model_name"]) == ["large", "large", "small", "small"]


def test_policy_decides_as_the_plan(run_route: Run, tmp_path: Path) -> None:
    out, path = tmp_path / "plan.csv", tmp_path / "policy.json"
    assert run_route("--accuracy", "{d}/accuracy.csv", "--policy", str(path), "-o", str(out)).returncode == 0
    plan, policy = pd.read_csv(out), load_policy(path)
    chosen = policy.choose(plan["input_tokens"], plan["output_tokens"])
    assert [policy.models[number].name for number in chosen] == plan["model_name"].tolist()


def test_cells_and_frontier(run_route: Run, tmp_path: Path) -> None:
    out, frontier = tmp_path / "plan.parquet", tmp_path / "frontier.csv"
    arguments = (
        "--zeta",
        "0",
        "--accuracy",
        "{d}/accuracy.csv",
        "--cells",
        "-o",
        str(out),
        "--frontier",
        str(frontier),
    )
    done = run_route(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert pd.read_parquet(out).to_dict("list") == {
        "input_tokens": [8, 100, 512],
        "output_tokens": [500, 64, 8],
        "model_name": ["large"] * 3,
        "count": [1, 1, 2],
    }
    table = pd.read_csv(frontier)
    assert (table["zeta"].diff().dropna() > 0).all()
    assert table["share:large"].iloc[[0, -1]].tolist() == [1, 0]


def test_a_budget_is_kept_and_its_bound_printed(run_route: Run) -> None:
    arguments = ("--accuracy", "{d}/accuracy.csv", "--energy-budget", "9000")
    document = json.loads(run_route(*arguments, "--json").stdout)
    assert document["energy_j"] <= 9000
    assert document["bound"]["accuracy"] >= document["accuracy_token_weighted"]
    assert document["joules_per_point"] > 0
    bound = f"{100 * document['bound']['accuracy']:.2f} %"
    assert f"no plan does better than {bound}, even if it divided queries" in run_route(*arguments).stdout


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_plot(run_route: Run, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plan.{suffix}"
    done = run_route("--accuracy", "{d}/accuracy.csv", "--plot", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    if suffix == "svg":
        # Text stays text, and every line and point has its name.
        for label in (b"frontier", b"plan, ", b"blind mixes", b"token threshold", b"round robin", b"large", b"small"):
            assert label in content


def test_progress_is_for_terminals(route_files: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    inputs = ("--models", route_files / "models.json", "--workload", route_files / "queries.csv", *COLUMNS)
    options = ("--accuracy", route_files / "accuracy.csv", "--frontier", tmp_path / "frontier.csv", "--json")
    command = [sys.executable, "-m", "llmpower.cli.main", "route", *map(str, inputs), *map(str, options)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=120)
    os.close(theirs)
    assert re.search(rb"frontier  \[#+\]  (\d+)/\1[^/]*\r?\n$", os.read(ours, 10_000))
    os.close(ours)
    assert json.loads(done.stdout)["queries"] == 4


def test_extrapolation_is_said_on_stderr(run_cli: Run, route_files: Path, tmp_path: Path) -> None:
    workload = tmp_path / "long.csv"
    workload.write_text("input_tokens,output_tokens,count\n512,8,3\n513,8,1\n")
    done = run_cli("route", "--models", route_files / "models.json", "--workload", workload, "--zeta", "1", "--json")
    assert done.returncode == 0
    document = json.loads(done.stdout)
    assert (document["extrapolated_queries"], document["extrapolated_share"]) == (1, 0.25)
    (line,) = done.stderr.splitlines()
    assert line.startswith("llmpower: warning: 25 % of the queries, with 25 % of the energy, lie outside what at least")


def test_what_is_dominated_uncertain_and_idle_is_said(run_route: Run) -> None:
    done = run_route(
        *("--accuracy", "{d}/worse.csv", "--shares-from-accuracy", "--idle-watts", "50", "--idle-watts", "large=60"),
        *("--horizon", "100", "--bootstrap", "5"),
    )
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("llmpower: warning: no ζ ever chooses large: others are as good for fewer joules on every")
    assert "measured again, 0 % of the queries would go elsewhere (95 % of 5 draws: at most 0 %)" in done.stdout
    assert "of the plan's energy, 29.00 kJ are charged for loaded models that wait" in done.stdout


def test_fits_that_fall_short_of_what_was_measured_are_said(run_cli: Run, route_files: Path, tmp_path: Path) -> None:
    low, whole = load_models(route_files / "models.json")
    biased = replace(low, energy=replace(low.energy, heldout=replace(low.energy.heldout, bias=-0.25)))
    save_models([biased, whole], tmp_path / "models.json")
    inputs = ("--models", tmp_path / "models.json", "--workload", route_files / "queries.csv", *COLUMNS)
    done = run_cli("route", *inputs, "--zeta", "1")
    assert done.stderr.splitlines() == [
        f"llmpower: warning: joules of {low.model_name} add up to 25.0 % less than was measured, held out, which no"
        " interval here allows for; for plans fit with --match-total"
    ]


def test_who_is_late_is_said(run_route: Run, tmp_path: Path) -> None:
    front = tmp_path / "front.csv"
    options = ("--accuracy", "{d}/accuracy.csv", "--max-runtime", "9", "--bootstrap", "2")
    done = run_route(*options, "--zeta", "0", "--frontier", str(front), "--plot", str(tmp_path / "plan.svg"))
    assert (done.returncode, done.stderr) == (0, "")
    late = {line.split()[0]: line.split()[-1] for line in done.stdout.split("MODEL")[0].splitlines()[4:] if line}
    # The large model takes 66.7 s for one query of the four.
    assert late["plan"] == late["single:small"] == late["hybrid_threshold"] == "0.00"
    assert late["single:large"] == "25.00"
    assert late["random"] == "12.50"
    assert "every query is predicted to take at most 9 s by itself" in done.stdout
    assert "(late)" in (tmp_path / "plan.svg").read_text()
    document = json.loads(run_route(*options, "--json").stdout)
    assert (document["max_runtime_s"], document["late_queries"]) == (9, 0)
    assert document["baselines"]["single:large"]["late_queries"] == 1
    # The front is that of the plans within the limit: the plan of most accuracy ends it.
    best = float(json.loads(run_route(*options, "--zeta", "0", "--json").stdout)["accuracy_token_weighted"])
    assert pd.read_csv(front)["accuracy_token_weighted"].max() == pytest.approx(best)
    assert json.loads(run_route("--zeta", "1", "--json").stdout)["late_queries"] is None


def test_gpu_seconds_are_counted(run_route: Run, route_files: Path) -> None:
    options = ("--accuracy", str(route_files / "accuracy.csv"), "--zeta", "0", "--gpu-seconds", "large=100")
    done = run_route(*options)
    assert (done.returncode, done.stderr) == (0, "")
    over = {line.split()[0]: line.split()[-1] for line in done.stdout.split("MODEL")[0].splitlines()[4:] if line}
    assert over["plan"] == over["single:small"] == "–"
    assert over["single:large"] == "large"
    document = json.loads(run_route(*options, "--json").stdout)
    used = document["gpu_seconds"]["large"]
    assert used == pytest.approx(4 * document["models"]["large"]["runtime_s"])
    assert 0 < used <= 100
    assert document["second_limits"]["large"]["limit"] == 100
    assert document["bound"]["objective"] <= document["objective"]
    assert f"large: {used:.1f} of at most 100.0 GPU-seconds" in done.stdout


def test_a_tariff_states_euros_and_grams_beside_joules(run_route: Run, tmp_path: Path) -> None:
    front = tmp_path / "front.csv"
    options = ("--accuracy", "{d}/accuracy.csv", *TIMED, "--tariff", "{d}/tariff.csv", "--bootstrap", "2")
    done = run_route(*options, "--frontier", str(front))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.search(r"where a point of accuracy is worth \S+ EUR;", lines[0])
    assert "ê = e·price / 0.001667 EUR" in lines[1]  # 20 kJ at noon
    assert re.findall(r"\w+ \[.+?\]", lines[3])[:6] == [
        *("ENERGY [kJ]", "SAVED [%]", "COST [EUR]", "SAVED [%]", "CO₂ [g]", "SAVED [%]"),
    ]
    assert "pursued is money; queries came while a kWh was 0.1 to 0.3 EUR and 100 to 400 g CO₂" in lines
    (saved,) = (line for line in lines if line.startswith("saved against "))
    assert re.search(r" kJ \(.+ EUR \(.+ g CO₂ \(", saved)
    assert {"cost_eur", "carbon_g", "cost_per_point_eur"} <= set(pd.read_csv(front).columns)
    document = json.loads(run_route(*options, "--carbon-budget", "0.5", "--json").stdout)
    assert document["weighs"] == "carbon"
    assert 0 < document["carbon_g"] <= 0.5
    assert document["carbon_g"] < document["baselines"]["single:large"]["carbon_g"]
    assert document["carbon_per_point_g"] > 0


def test_a_policy_takes_the_rates_along(run_route: Run, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    options = ("--accuracy", "{d}/accuracy.csv", *TIMED, "--tariff", "{d}/tariff.csv", "--policy", str(path))
    done = run_route(*options)
    assert done.returncode == 0, done.stderr
    assert "the policy takes the tariff's hours for hours of UTC; name --tariff-zone" in done.stderr
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["tariff"] == {
        "weighs": "money",
        "highest_per_kwh": 0.3,
        "zone": None,
        "rates": [{"hour": 3, "per_kwh": 0.1}, {"hour": 12, "per_kwh": 0.3}],
    }
    assert run_route(*options, "--weigh", "energy").stderr == ""
    assert json.loads(path.read_text(encoding="utf-8"))["tariff"] is None


def test_unloading_is_part_of_the_answer(run_route: Run, tmp_path: Path) -> None:
    policy = tmp_path / "policy.json"
    options = ("--idle-watts", "50", "--horizon", "1e6", "--allow-unload", "--policy", str(policy))
    done = run_route("--accuracy", "{d}/accuracy.csv", *options)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("large "))
    assert line.split()[-1] == "unloaded"
    assert [model.name for model in load_policy(policy).models] == ["small"]


def test_simulated_is_said(run_route: Run) -> None:
    assert run_route("--zeta", "1", models="simulated.json").stdout.startswith("SIMULATED: ")
    assert json.loads(run_route("--zeta", "1", "--json", models="simulated.json").stdout)["simulated"] is True
    assert "SIMULATED" not in run_route("--zeta", "1").stdout


def test_a_data_set_is_planned_as_its_rows_are(run_cli: Run, route_files: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(route_files / "queries.csv")
    for number, part in enumerate((frame[:3], frame[3:])):
        (tmp_path / f"fleet/host={number}").mkdir(parents=True)
        part.to_parquet(tmp_path / f"fleet/host={number}/1.parquet", index=False)

    def planned(workload: Path, *more: object) -> subprocess.CompletedProcess[str]:
        options = ("--accuracy", route_files / "accuracy.csv", "--zeta", "0.5", *more)
        return run_cli("route", "--models", route_files / "models.json", "--workload", workload, *COLUMNS, *options)

    both = []
    for name, workload in (("fleet", tmp_path / "fleet"), ("table", route_files / "queries.csv")):
        done = planned(workload, "--cells", "-o", tmp_path / f"{name}.csv", "--json")
        document = json.loads(done.stdout)
        both.append([document[key] for key in ("queries", "cells", "energy_j", "objective", "models")])
    assert both[0] == both[1]
    assert (tmp_path / "fleet.csv").read_text() == (tmp_path / "table.csv").read_text()
    refused = planned(tmp_path / "fleet", "-o", tmp_path / "rows.csv")
    assert (refused.returncode, "add --cells" in refused.stderr) == (2, True)
