"""Every rule has a case of promtool's, and every alert tells what to do. ``make test-system`` runs the cases."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RUNBOOK = ROOT / "docs" / "runbook.md"


def rules(kind: str) -> dict[str, Any]:
    files = [yaml.safe_load(file.read_text("utf-8")) for file in (ROOT / "prometheus").glob("llmpower-*.yml")]
    groups = [group for file in files for group in file["groups"]]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


def cases(file: str) -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((ROOT / "prometheus" / "tests" / file).read_text("utf-8"))["tests"]
    return tests


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    fires, rests = set(), set()
    for case in cases("alerts_test.yml"):
        for test in case["alert_rule_test"]:
            (fires if test["exp_alerts"] else rests).add(test["alertname"])
    assert rules("alert").keys() == fires == rests


def test_every_recorded_series_has_a_case() -> None:
    tested = " ".join(
        test["expr"] for case in cases("rules_test.yml") for test in case["promql_expr_test"] if test["exp_samples"]
    )
    assert rules("record")
    assert [name for name in rules("record") if name not in tested] == []


def test_every_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() -> None:
    sections = re.findall(r"^## (Llmpower\w+)$", RUNBOOK.read_text("utf-8"), re.MULTILINE)
    assert sections == list(rules("alert"))
    for name, rule in rules("alert").items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
