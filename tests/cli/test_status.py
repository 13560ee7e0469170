from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from forked import run_forked

from llmpower.spans.daemon_socket import SYSTEM_SOCKET

STATUS: dict[str, Any] = {
    "version": "1.2.3",
    "pid": 77,
    "uptime_s": 7384.2,
    "problems": [],
    "backend": "simulated",
    "simulated": True,
    "devices": [
        {
            "uuid": "GPU-a",
            "name": "Simulated A100",
            "kind": "gpu",
            "simulated": True,
            "power_w": 251.26,
            "energy_j": 12_345.0,
            "inference_j": 8_024.0,
            "idle_j": 4_074.0,
            "unattributed_j": 0.0,
        },
        {
            "uuid": "intel-rapl:0",
            "name": "package-0",
            "kind": "cpu_package",
            "simulated": False,
            "power_w": None,
            "energy_j": 4.5,
            "inference_j": 1.0,
            "idle_j": 2.0,
            "unattributed_j": 0.0,
        },
    ],
    "models": [
        {
            "model_name": "llama",
            "requests": 12,
            "energy_j": 5_400.0,
            "energy_per_request_j": 450.0,
            "energy_per_output_token_j": 1.125,
        },
        {
            "model_name": "mistral",
            "requests": 3,
            "energy_j": 0.0,
            "energy_per_request_j": None,
            "energy_per_output_token_j": None,
        },
    ],
    "spans": {"stored": 12, "pending": 1, "running": 2, "rejected": {"not_json": 3, "overloaded": 1}},
    "store": {
        "path": "/var/lib/llmpower/spans.db",
        "errors": 4,
        "waiting": 5,
        "lost": 6,
        "corruptions": 1,
        "size_bytes": 350 * 2**20,
        "log_bytes": 4 * 2**20,
        "deleted": 7,
    },
    "sampler": {"effective_hz": {"gpu_energy": 100.0}, "dropped": 0, "read_errors": 0},
    "metrics_url": "http://127.0.0.1:10450/metrics",
    "otlp": {
        "url": "http://127.0.0.1:10451/v1/traces",
        "answers": {"200": 9},
        "spans": {"accepted": 40, "no_request": 5, "refused": 2},
        "clock_error_s": 0.001,
    },
    "settle_delay_s": 120.0,
    "last_error": None,
    "last_error_age_s": None,
    "cost": {"cpu_s": 20.0, "cpu_share": 0.0125, "memory_bytes": 45 * 2**20},
}


def status(*options: object) -> subprocess.CompletedProcess[str]:
    return run_forked("status", *options)


def test_what_a_person_reads(receiver: Any) -> None:
    receiver.status = STATUS
    ended = status("--socket", receiver.path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == (
        "llmpower 1.2.3, pid 77, up 2 h 3 min\n"
        "SIMULATED: the GPU is simulated, and none of its joules are real\n"
        "all is well\n"
        "\n"
        "device          power [W]  energy [J]  requests [%]  idle [%]  uuid\n"
        "Simulated A100      251.3   12,345.00            65        33  GPU-a\n"
        "package-0               –        4.50            22        44  intel-rapl:0\n"
        "\n"
        "model    requests  energy [kJ]  J/request  J/token\n"
        "llama          12         5.40        450     1.12\n"
        "mistral         3         0.00          –        –\n"
        "\n"
        "spans       12 stored, 1 pending, 2 running\n"
        "rejected    not_json 3, overloaded 1\n"
        "store       /var/lib/llmpower/spans.db, 4 errors, 5 waiting, 6 lost\n"
        "            350 MiB and a log of 4 MiB, 7 deleted by retention, 1 damaged ones set aside\n"
        "metrics     http://127.0.0.1:10450/metrics\n"
        "otlp        http://127.0.0.1:10451/v1/traces, 40 requests accepted, 2 refused; energy comes 2 min 0 s later\n"
        "last error  none\n"
        "own cost    1.2 % of one CPU, 45 MiB\n"
    )


def test_what_is_wrong_comes_first_with_what_to_do(receiver: Any) -> None:
    problem = {"what": "Simulated A100 (GPU-a) has been stalled for 2 min 10 s", "fix": "dmesg -T | grep -i xid"}
    stalled = STATUS["devices"][0] | {"stalled_s": 130.0, "power_w": None}
    silent = STATUS["devices"][0] | {"uuid": "GPU-b", "power_w": None, "silent_s": 754.0}
    receiver.status = STATUS | {
        "problems": [problem],
        "devices": [stalled, silent],
        "last_error": "GPU is lost",
        "last_error_age_s": 754.0,
    }
    told = status("--socket", receiver.path).stdout
    assert "\n! Simulated A100 (GPU-a) has been stalled for 2 min 10 s\n  -> dmesg -T | grep -i xid\n\ndevice" in told
    assert "stalled 2 min 10 s        12.35  " in told
    assert "no reading        12.35  " in told
    assert "last error  12 min 34 s ago: GPU is lost\n" in told
    assert "all is well" not in told


def test_a_daemon_from_before_an_upgrade_is_understood(receiver: Any) -> None:
    new = {"problems", "models", "last_error_age_s", "otlp", "settle_delay_s"}
    receiver.status = {name: value for name, value in STATUS.items() if name not in new} | {"last_error": "old"}
    ended = status("--socket", receiver.path)
    assert ended.returncode == 0
    assert "last error  old\n" in ended.stdout
    assert "all is well" not in ended.stdout


@pytest.mark.parametrize(
    ("otlp", "line"),
    [
        ({"url": None, "spans": {}}, "otlp        nowhere\n"),
        ({"url": "http://[::1]:1/v1/traces", "spans": {}}, "otlp        http://[::1]:1/v1/traces\n"),
    ],
)
def test_where_nothing_came_by_opentelemetry_nothing_is_said_of_it(
    receiver: Any, otlp: dict[str, object], line: str
) -> None:
    receiver.status = STATUS | {"otlp": otlp}
    assert line in status("--socket", receiver.path).stdout


def test_json_is_one_document_and_absent_is_null(receiver: Any) -> None:
    receiver.status = STATUS
    ended = status("--socket", receiver.path, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout) == STATUS


@pytest.mark.skipif(SYSTEM_SOCKET.exists(), reason="the system's daemon runs here")
def test_a_service_that_is_down_is_to_be_asked_of_systemd() -> None:
    ended = status("--socket", SYSTEM_SOCKET)
    assert ended.returncode == 2
    assert "'systemctl status llmpower' says why" in ended.stderr


def test_no_daemon_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    ended = status("--socket", tmp_path / "none.sock")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"llmpower: error: --socket = {tmp_path}/none.sock: no daemon answers there")
    assert ended.stderr.count("\n") == 1


def test_requests_are_shown_beside_their_models(receiver: Any) -> None:
    chart = {"model_name": "llama", "sharing": "shared", "simulated": True, "system": "1× card", "ratio": 1.2345}
    known = chart | {"std_error": 0.0123, "tolerance": 0.06, "spans": 400, "drifted": True}
    young = chart | {"sharing": "alone", "std_error": None, "tolerance": 0.06, "spans": 3, "drifted": False}
    receiver.status = STATUS | {
        "drift": {
            "models_file": "/etc/llmpower/models.json",
            "models": 2,
            "outcomes": {"compared": 403, "no_model": 7},
            "charts": [known, young],
        }
    }
    told = status("--socket", receiver.path).stdout
    rows = [line.split() for line in told.splitlines() if line.startswith("llama (")]
    known, young = (row[3:] for row in rows)
    assert known == ["400", "1.234", "1.2", "6.0", "DRIFTED", "1×", "card"]
    assert young == ["3", "1.234", "–", "6.0", "not", "known", "yet", "1×", "card"]
    assert "compared    with 2 models of /etc/llmpower/models.json: compared 403, no_model 7\n" in told


def test_without_models_nothing_is_said_of_them(receiver: Any) -> None:
    receiver.status = STATUS | {"drift": {"models_file": None, "models": 0, "outcomes": {}, "charts": []}}
    assert "compared" not in status("--socket", receiver.path).stdout


def test_names_have_no_power_over_the_terminal(receiver: Any) -> None:
    hostile = "x\x1b[2J\x1b]0;owned\x07"
    model = STATUS["models"][0] | {"model_name": hostile}
    problem = {"what": f"requests of {hostile} drift", "fix": hostile}
    receiver.status = STATUS | {"models": [model], "problems": [problem], "last_error": hostile}
    assert "\x1b" not in status("--socket", receiver.path).stdout
