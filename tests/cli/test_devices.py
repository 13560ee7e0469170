from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from forked import run_forked
from prometheus_client import CollectorRegistry

from llmpower.metrics import MetricsServer
from llmpower.sampling import simulated_library


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_forked(*arguments, env=os.environ | {"LLMPOWER_SIM_LOAD": "square:100,300,0.37"} | environment)


def test_devices_shows_periods_and_latencies(tmp_path: Path) -> None:
    done = run(
        *("devices", "--backend", "simulated", "--seconds", "1.6", "--powercap-root", str(tmp_path), "--json"),
        LLMPOWER_SIM_GPUS="2",
    )
    assert done.returncode == 0, done.stderr
    devices = json.loads(done.stdout)["devices"]
    assert len(devices) == 2
    for device in devices:
        assert device["simulated"] is True
        by_field = {source["field"]: source for source in device["sources"]}
        assert by_field.keys() == {"energy", "power_instant"}
        assert by_field["energy"]["period_s"] == pytest.approx(0.1, rel=0.2)
        assert 0 < by_field["energy"]["latency_p50_s"] <= by_field["energy"]["latency_p99_s"]


def test_a_period_that_was_not_seen_is_null_and_not_zero() -> None:
    done = run("devices", "--backend", "simulated", "--seconds", "0.5", "--json", LLMPOWER_SIM_LOAD="constant:100")
    sources = json.loads(done.stdout)["devices"][0]["sources"]
    assert {source["period_s"] for source in sources if source["field"] == "power_instant"} == {None}


def test_devices_on_a_terminal_says_simulated() -> None:
    done = run("devices", "--backend", "simulated", "--seconds", "0.5")
    assert done.returncode == 0
    assert "SIMULATED" in done.stdout
    assert done.stderr == ""


def test_a_library_of_the_wrong_kind_is_one_line() -> None:
    done = run("devices", "--nvml-library", "libm.so.6")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "libm.so.6" in done.stderr


def test_doctor_says_what_is_missing_and_how_to_mend_it(tmp_path: Path) -> None:
    done = run(
        *("doctor", "--nvml-library", str(tmp_path / "none.so"), "--powercap-root", str(tmp_path)),
        *("--socket", str(tmp_path / "s"), "--json"),
    )
    assert done.returncode == 0, done.stderr
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    for check in ("NVML", "CPU energy", "daemon"):
        assert findings[check]["ok"] is False
        assert findings[check]["fix"]


def test_doctor_looks_for_every_extra_that_all_has() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    (users,) = project["optional-dependencies"]["all"]
    done = run("doctor", "--powercap-root", "", "--json")
    checks = [finding["check"] for finding in json.loads(done.stdout)["findings"]]
    extras = re.findall(r"\w+", users.removeprefix("llmpower"))
    assert sorted(check for check in checks if check.startswith("extra ")) == [f"extra {name}" for name in extras]


def test_doctor_tells_a_driver_that_refuses_from_one_that_is_not_there() -> None:
    done = run("doctor", "--nvml-library", str(simulated_library()), "--json", LLMPOWER_SIM_FAULT="init")
    (nvml,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "NVML"]
    assert "Driver Not Loaded" in nvml["found"]
    assert nvml["fix"] == "nvidia-smi; dmesg -T | grep -i nvrm"


def test_a_card_that_cannot_be_opened_is_named_by_its_number() -> None:
    environ = {"LLMPOWER_SIM_GPUS": "2", "LLMPOWER_SIM_FAULT": "lost:0@0"}
    done = run("doctor", "--nvml-library", str(simulated_library()), "--json", **environ)
    (lost,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "GPU"]
    assert (lost["ok"], lost["found"]) == (False, "GPU 0 cannot be opened: GPU is lost (NVML code 15)")
    shown = run("devices", "--backend=simulated", "--seconds=0.5", **environ)
    assert "GPU 0 cannot be opened: GPU is lost (NVML code 15)\n" in shown.stdout
    as_json = json.loads(run("devices", "--backend=simulated", "--seconds=0.5", "--json", **environ).stdout)
    assert as_json["unopened"] == {"0": "GPU is lost (NVML code 15)"}


def test_doctor_asks_the_daemon_what_is_wrong(receiver: Any, tmp_path: Path) -> None:
    problem = {"what": "card (GPU-a) has been stalled for 5 s", "fix": "dmesg"}
    receiver.status = {"version": "0.0.1", "pid": 7, "uptime_s": 61.0, "simulated": False, "problems": [problem]}
    receiver.status["metrics_url"] = "http://127.0.0.1:9/metrics"
    done = run("doctor", "--nvml-library", str(tmp_path / "none.so"), "--socket", str(receiver.path), "--json")
    daemon = [finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "daemon"]
    assert [(finding["ok"], finding["fix"]) for finding in daemon] == [
        (True, None),
        (False, "dmesg"),
        (False, "sudo systemctl restart llmpower"),
    ]
    assert daemon[0]["found"].endswith("version 0.0.1, pid 7, up 1 min 1 s")
    assert "runs version 0.0.1" in daemon[2]["found"]


@pytest.mark.parametrize(
    ("text", "ok", "found"),
    [
        (None, True, "answers"),
        ("basic_auth_users: {prometheus: HASH}", True, "answers and asks for a password"),
        ("away", False, "does not answer"),
    ],
)
def test_doctor_asks_for_the_metrics(text: str | None, ok: bool, found: str, receiver: Any, tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text((text or "").replace("HASH", bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()))
    server = MetricsServer("127.0.0.1", 0, CollectorRegistry(), web_config_file=None if text == "away" else file)
    receiver.status = {"version": "0", "pid": 7, "uptime_s": 61.0, "metrics_url": server.url}
    if text == "away":
        server.close()
    done = run(
        *("doctor", "--nvml-library", str(tmp_path / "none.so"), "--socket", str(receiver.path), "--json"),
        http_proxy="http://127.0.0.1:9",  # what leaves the machine goes by it
    )
    (metrics,) = [finding for finding in json.loads(done.stdout)["findings"] if finding["check"] == "metrics"]
    assert metrics["ok"] is ok
    assert metrics["found"].startswith(f"{server.url} {found}")
    assert bool(metrics["fix"]) is not ok
    if text != "away":
        server.close()


def test_doctor_finds_a_card_and_a_package(tmp_path: Path) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "5"), ("max_energy_range_uj", "10")):
        (zone / name).write_text(f"{text}\n")
    done = run("doctor", "--nvml-library", str(simulated_library()), "--powercap-root", str(tmp_path), "--json")
    findings = {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["GPU energy"]["ok"] is True
    assert findings["CPU energy"]["ok"] is True


@pytest.mark.parametrize("command", ["devices", "doctor", "daemon"])
def test_a_powercap_root_that_is_not_there_is_refused(command: str, tmp_path: Path) -> None:
    done = run(command, "--powercap-root", str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"powercap-root = {tmp_path / 'none'}: is not a directory; check the path" in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_does_not_look_for_cpu_energy_that_is_turned_off() -> None:
    done = run("doctor", "--nvml-library", str(simulated_library()), "--powercap-root", "", "--json")
    assert "CPU energy" not in {finding["check"] for finding in json.loads(done.stdout)["findings"]}
