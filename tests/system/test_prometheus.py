"""The whole path to the screen: requests, the daemon, TLS, a real Prometheus, its rules, the dashboard's queries."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from fleet import MODEL_NAMES, PASSWORD, ROOT, RULES, Fleet, running_fleet
from pages import blocks
from servers import LLMPOWER, wait_until

from llmpower.store import iter_rows

VARIABLES = {
    "job": "llmpower",
    "instance": ".*",
    "model_name": ".*",
    "window": "1m",
    "__rate_interval": "10s",
    "price": "0.25",
    "carbon": "400",
    "pue": "1.3",
}
DASHBOARD = json.loads((ROOT / "grafana" / "llmpower.json").read_text())


pytestmark = pytest.mark.usefixtures("tools")


@pytest.fixture(scope="module")
def fleet(tools: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:  # noqa: ARG001 (before the programs start)
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "20", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def filled_in(expr: str) -> str:
    filled = re.sub(r"\$(\w+)", lambda match: VARIABLES[match[1]], expr)
    assert "$" not in filled
    return filled


def rules(kind: str) -> list[dict[str, Any]]:
    groups = [yaml.safe_load((ROOT / "prometheus" / name).read_text())["groups"] for name in RULES]
    return [rule for group in groups for part in group for rule in part["rules"] if kind in rule]


def panels() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_every_host_is_scraped(fleet: Fleet) -> None:
    assert fleet.prometheus.value('min(up{job="llmpower"})') == 1
    assert fleet.prometheus.value('count(up{job="llmpower"})') == 2


@pytest.mark.parametrize(("title", "expr"), panels(), ids=[f"{title}-{n}" for n, (title, _) in enumerate(panels())])
def test_every_query_of_the_dashboard_returns_data(title: str, expr: str, fleet: Fleet) -> None:
    found = fleet.prometheus.query(filled_in(expr))
    assert [series for series in found if series["value"][1] != "NaN"], f"{title}: {filled_in(expr)}"


def test_every_variable_and_annotation_of_the_dashboard_finds_something(fleet: Fleet) -> None:
    asked = 0
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert match
            assert fleet.prometheus.get(f"label/{match[2]}/values", **{"match[]": filled_in(match[1])})
            asked += 1
    for annotation in DASHBOARD["annotations"]["list"]:
        assert fleet.prometheus.query(filled_in(annotation["expr"]))
        asked += 1
    assert asked == 4


@pytest.mark.parametrize("record", [rule["record"] for rule in rules("record")])
def test_every_recording_rule_records(record: str, fleet: Fleet) -> None:
    found = fleet.prometheus.query(record)
    assert found
    assert all(float(series["value"][1]) >= 0 for series in found)


@pytest.mark.parametrize(("name", "expr"), [(rule["alert"], rule["expr"]) for rule in rules("alert")])
def test_every_alert_looks_at_something_that_is_there(name: str, expr: str, fleet: Fleet) -> None:
    """With its limits taken away, each must find this fleet; a misspelt metric or label would never fire."""
    without_limits = re.sub(r"\s*(==|[<>]=?) *[\d.e]+\b", "", expr)
    assert without_limits != expr
    assert fleet.prometheus.query(without_limits), f"{name}: {without_limits}"


def test_what_is_wrong_with_this_fleet_raises_its_alerts_and_no_others(fleet: Fleet) -> None:
    expected = {
        ("LlmpowerSimulated", "sick"),
        ("LlmpowerSimulated", "busy"),
        ("LlmpowerSpansRejected", "sick"),
        ("LlmpowerDeviceSilent", "sick"),
        ("LlmpowerReadsFail", "sick"),
        ("LlmpowerResidualTooLarge", "sick"),
        ("LlmpowerJoulesUnavailable", "busy"),
        ("LlmpowerModelNamesFull", "busy"),
        # Its cards' watts come and go as they are told to, whatever runs on them.
        ("LlmpowerAllocationResidual", "busy"),
    }
    wait_until(lambda: raised(fleet) >= expected, f"all of {expected} are raised")
    # A machine under test may come late to its samples, and a busy host has few other spans beside the refused.
    perhaps = {(name, host) for name in ("LlmpowerSamplerLate", "LlmpowerSamplesDropped") for host in ("busy", "sick")}
    assert raised(fleet) - perhaps - {("LlmpowerSpansRejected", "busy")} == expected


def raised(fleet: Fleet) -> set[tuple[str, str]]:
    """The alerts that fire, with their hosts."""
    alerts = fleet.prometheus.get("alerts")["alerts"]
    return {(of["labels"]["alertname"], of["labels"]["instance"]) for of in alerts if of["state"] == "firing"}


def test_a_card_that_hung_raised_its_alert_and_a_lost_one_is_told_by_status(fleet: Fleet) -> None:
    fired = 'max_over_time(ALERTS{alertname="LlmpowerDeviceStalled",alertstate="firing"}[10m])'
    # A call that hangs holds the driver's lock, so both cards of that host waited.
    assert {series["metric"]["instance"] for series in fleet.prometheus.query(fired)} == {"sick"}
    assert len(fleet.prometheus.query(fired)) == 2
    told = subprocess.run(
        [*LLMPOWER, "status", f"--socket={fleet.sick.socket}"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    lost = fleet.sick.status()["devices"][1]
    assert f"! {lost['name']} ({lost['uuid']}, 00000000:02:00.0) has shown no energy for " in told
    assert "GPU is lost (NVML code 15)\n  -> nvidia-smi -L; where that lists it, restart the daemon\n" in told


def test_all_rules_evaluate_without_a_complaint(fleet: Fleet) -> None:
    groups = fleet.prometheus.get("rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    assert "err=" not in fleet.prometheus.log


def test_in_every_scrape_the_joules_of_each_card_add_up(fleet: Fleet) -> None:
    energy = "sum by (instance, gpu_uuid) (llmpower_gpu_energy_joules_total)"
    parts = " + ".join(
        f"sum by (instance, gpu_uuid) (llmpower_{name}_energy_joules_total)"
        for name in ("gpu_inference", "idle", "unattributed")
    )
    now_s = time.time()
    window = {"start": str(now_s - 30), "end": str(now_s), "step": "1"}
    cards = fleet.prometheus.get("query_range", query=f"{energy} - ({parts})", **window)["result"]
    assert len(cards) == 4
    for card in cards:
        assert all(abs(float(rest)) < 1e-6 for _, rest in card["values"]), card
    by_card = 'sum(llmpower_gpu_inference_energy_joules_total{instance="busy"})'
    by_model = 'sum(llmpower_inference_energy_joules_total{instance="busy",device_kind="gpu"})'
    for card in fleet.prometheus.get("query_range", query=f"{by_card} - {by_model}", **window)["result"]:
        assert all(abs(float(rest)) < 1e-6 for _, rest in card["values"]), card


def test_exemplars_lead_to_rows_of_the_store(fleet: Fleet) -> None:
    now_s = time.time()
    found = fleet.prometheus.get(
        "query_exemplars",
        query='{__name__=~"llmpower_inference_(request_energy_joules|duration_seconds)_bucket"}',
        start=str(now_s - 60),
        end=str(now_s),
    )
    names = {series["seriesLabels"]["__name__"].removesuffix("_bucket") for series in found}
    assert names == {"llmpower_inference_request_energy_joules", "llmpower_inference_duration_seconds"}
    joules = {
        exemplar["labels"]["span_id"]: float(exemplar["value"])
        for series in found
        for exemplar in series["exemplars"]
        if "energy" in series["seriesLabels"]["__name__"]
    }
    columns = ("span_id", "gpu_energy_j", "cpu_energy_j")
    stored = {row[0]: sum(filter(None, row[1:])) for row in iter_rows(fleet.busy.store, columns=columns)}
    assert joules
    for span_id, energy_j in joules.items():
        assert stored[span_id] == pytest.approx(energy_j, rel=1e-9)


def test_a_flood_of_model_names_ends_in_other(fleet: Fleet) -> None:
    count = "count(count by (model_name) (llmpower_inference_requests_total))"
    assert fleet.prometheus.value(count) == 101
    assert MODEL_NAMES > 101
    assert fleet.prometheus.query('llmpower_inference_requests_total{model_name="other"}')


def test_a_board_made_for_dcgm_exporter_shows_the_same_joules(fleet: Fleet) -> None:
    theirs = 'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{UUID=~"GPU-.+",pci_bus_id=~"0.+",Hostname!=""} / 1000'
    ours = 'llmpower_gpu_energy_joules_total{instance="sick"}'
    differences = fleet.prometheus.query(f"{theirs} - on (gpu) group_left () {ours}")
    assert {card["metric"]["gpu"] for card in differences} == {"0", "1"}
    assert all(float(card["value"][1]) == pytest.approx(0.0, abs=1e-6) for card in differences)
    assert fleet.prometheus.query("max_over_time(DCGM_FI_DEV_POWER_USAGE[1m]) > 50")
    assert not fleet.prometheus.query('DCGM_FI_DEV_POWER_USAGE{instance="busy"}')


def test_promtool_has_nothing_to_say_about_the_metrics(fleet: Fleet) -> None:
    for arguments in (
        (f"http://127.0.0.1:{fleet.sick.port}/metrics",),
        ("--cacert", str(fleet.ca), "--user", f"prometheus:{PASSWORD}", fleet.url),
    ):
        scraped = curl(*arguments)
        assert scraped.returncode == 0
        assert "\nllmpower_gpu_energy_joules_total{" in scraped.stdout
        # dcgm-exporter's names are not to Prometheus's taste, which is not for us to fix.
        ours = "".join(line for line in scraped.stdout.splitlines(keepends=True) if "DCGM_FI_DEV_" not in line)
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=ours, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_from_outside_there_is_no_way_past_certificate_and_password(fleet: Fleet) -> None:
    trusting = ("--cacert", str(fleet.ca), "--output", "/dev/null", "--write-out", "%{http_code}")
    assert curl(*trusting, "--user", f"prometheus:{PASSWORD}", fleet.url).stdout == "200"
    assert curl(*trusting, fleet.url).stdout == "401"
    assert curl(*trusting, "--user", "prometheus:wrong", fleet.url).stdout == "401"
    assert curl(*trusting, "--user", f"prometheus:{fleet.hash}", fleet.url).stdout == "401"
    assert curl(*trusting, "--tls-max", "1.1", "--user", f"prometheus:{PASSWORD}", fleet.url).returncode == 35
    assert curl("--user", f"prometheus:{PASSWORD}", fleet.url).returncode == 60  # the authority is not known
    assert curl(fleet.url.replace("https:", "http:")).returncode != 0


def test_doctor_sees_that_the_door_is_there_and_shut(fleet: Fleet) -> None:
    command = [*LLMPOWER, "doctor", f"--socket={fleet.busy.socket}", "--json"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    (metrics,) = [finding for finding in json.loads(told)["findings"] if finding["check"] == "metrics"]
    assert (metrics["ok"], metrics["found"]) == (True, f"{fleet.url} answers and asks for a password")


def test_no_secret_is_logged_or_told(fleet: Fleet) -> None:
    curl("--cacert", str(fleet.ca), "--user", "prometheus:nearly-right", fleet.url)
    told = fleet.busy.log + json.dumps(fleet.busy.status())
    assert "metrics https://" in told
    for secret in (PASSWORD, fleet.hash, "nearly-right", (fleet.directory / "server.key").read_text()[100:140]):
        assert secret not in told


def test_a_prometheus_with_the_wrong_password_gets_nothing(fleet: Fleet) -> None:
    """Last, for it changes the fleet: a password changed at the daemon holds from the next scrape on."""
    web = fleet.directory / "web.yml"
    before = web.read_text()
    web.write_text(before.replace(fleet.hash, fleet.hash[:-1] + ("a" if fleet.hash[-1] != "a" else "b")))
    up = 'up{instance="busy"}'
    wait_until(lambda: fleet.prometheus.value(up) == 0, "Prometheus is refused")
    target = next(
        target for target in fleet.prometheus.get("targets")["activeTargets"] if target["labels"]["instance"] == "busy"
    )
    assert "401" in target["lastError"]
    web.write_text(before)
    wait_until(lambda: fleet.prometheus.value(up) == 1, "Prometheus is let in again")


@pytest.mark.parametrize("arguments", [("check", "config", "prometheus.yml"), ("check", "rules", *RULES)])
def test_promtool_checks_what_is_shipped(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=ROOT / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_the_page_about_monitoring_checks_and_tests_it_too() -> None:
    (block,) = [block for block in blocks(ROOT / "docs" / "monitoring.md") if "promtool" in block.text]
    done = subprocess.run(["bash", "-ec", block.text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 3 rule files found" in done.stdout
    assert "tests/rules_test.yml" in done.stdout
