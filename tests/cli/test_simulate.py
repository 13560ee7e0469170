"""``llmpower simulate`` as a process, on a policy that ``llmpower route`` wrote."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from online_policies import queries
from two_models import two_models

from llmpower.modelling import save_models

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, run_cli: Run) -> Path:
    directory = tmp_path_factory.mktemp("simulate")
    save_models(two_models(), directory / "models.json")
    (directory / "accuracy.csv").write_text("model_name,accuracy\nsmall,0.5\nlarge,0.7\n")
    τin, τout = queries(1000, 4)
    trace = pd.DataFrame({"when": pd.date_range("2026-01-01", periods=1000, freq="s"), "ContextTokens": τin})
    trace["output_tokens"] = τout
    trace.to_csv(directory / "trace.csv", index=False)
    made = run_cli(
        *("route", "--models", directory / "models.json", "--workload", directory / "trace.csv"),
        *("--accuracy", directory / "accuracy.csv", "--column", "input_tokens=ContextTokens", "--share", "large=0.25"),
        *("--share", "small=0.75", "--policy", directory / "policy.json", "--zeta", "0.5"),
    )
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture
def run_simulate(run_cli: Run, directory: Path) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        columns = ("--column", "input_tokens=ContextTokens", "--column", "timestamp=when")
        files = ("--policy", str(directory / "policy.json"), "--workload", str(directory / "trace.csv"))
        return run_cli("simulate", *files, *columns, *arguments)

    return run


def test_one_document_on_stdout_and_nothing_else(run_simulate: Run) -> None:
    done = run_simulate("--json", "--servers", "small=40")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["history"], document["queries"], document["period"]) == (200, 800, 800)
    assert document["servers"]["small"] == 40
    strategies = document["strategies"]
    assert strategies["online"]["shares"] == {"large": 0.25, "small": 0.75}
    assert strategies["optimum"]["closed"] == pytest.approx(1)
    assert strategies["greedy"]["closed"] is None
    assert strategies["online"]["decision_p99_us"] > 0


def test_a_table_for_people(run_simulate: Run) -> None:
    done = run_simulate("--period", "100", "--history", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    (first, second), document = done.stdout.splitlines()[:2], json.loads(run_simulate("--json").stdout)
    assert re.fullmatch(
        r"500 queries routed after 500 to learn from, ζ = 0\.5, where a point of accuracy is worth \S+ kJ,"
        r" shares over 100 queries",
        first,
    )
    assert second.startswith("energy covers gpu; servers: ")
    assert document["joules_per_point"] > 0
    for name in ("CLOSED", "optimum", "online_lengths_known", "weighted_round_robin", "single:large", "WAIT-P99"):
        assert name in done.stdout


def test_a_policy_of_money_is_replayed_at_its_rates(run_cli: Run, run_simulate: Run, directory: Path) -> None:
    (directory / "tariff.csv").write_text("hour,eur_per_kwh\n0,0.2\n1,0.4\n")
    columns = ("--column", "input_tokens=ContextTokens", "--column", "timestamp=when")
    policy = directory / "money.json"
    made = run_cli(
        *("route", "--models", directory / "models.json", "--workload", directory / "trace.csv", *columns),
        *("--accuracy", directory / "accuracy.csv", "--tariff", directory / "tariff.csv", "--policy", policy),
    )
    assert made.returncode == 0, made.stderr
    done = run_simulate("--policy", str(policy))
    assert (done.returncode, done.stderr) == (0, "")
    assert "pursued is money" in done.stdout
    assert "COST [EUR]" in done.stdout
    document = json.loads(run_simulate("--policy", str(policy), "--json").stdout)
    assert document["weighs"] == "money"
    # All of it is of the first hour.
    single = document["strategies"]["single:large"]
    assert single["cost_eur"] == pytest.approx(single["energy_j"] / 3.6e6 * 0.2)
    assert single["carbon_g"] is None
    tariff = {"weighs": "money", "highest_per_kwh": 0.4, "rates": [{"hour": 1, "per_kwh": 0.4}]}
    policy.write_text(json.dumps(json.loads(policy.read_text()) | {"tariff": tariff}))
    refused = run_simulate("--policy", str(policy))
    assert refused.returncode == 2
    assert refused.stderr.startswith("llmpower: error: hour = 0: 800 of 800 rows of the workload came when the tariff")
    assert refused.stderr.endswith("and make the policy again\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--servers", "small"), "--servers = small: write MODEL=N, such as Llama-2-7B=4"),
        (("--servers", "tiny=3"), "--servers = tiny: is not among the policy's models: large, small"),
        (("--history", "-1"), "--history = -1.0: is the part of the trace to learn from"),
        (("--period", "0"), "period = 0: shares are kept over a number of queries; give 1 or more"),
        (("--policy", "absent.json"), "--policy = absent.json: cannot be read"),
    ],
    ids=["no number", "unknown model", "history", "period", "no policy"],
)
def test_bad_input_is_one_line_and_exit_code_2(run_simulate: Run, arguments: tuple[str, ...], line: str) -> None:
    done = run_simulate(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"llmpower: error: {line}")
    assert done.stderr.count("\n") == 1


def test_a_workload_without_times_is_refused(run_cli: Run, directory: Path) -> None:
    done = run_cli("simulate", "--policy", directory / "policy.json", "--workload", directory / "trace.csv")
    assert done.returncode == 2
    assert "column = timestamp" in done.stderr
