"""The daemon as its users meet it: a process, its socket, its port, its file, its end."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_process import Daemon, running
from forked import run_forked

from llmpower.spans.client import SpanClient
from llmpower.store import iter_rows, read_measurements


def test_from_spans_to_joules(daemon: Daemon) -> None:
    client = SpanClient(daemon.socket)
    first = daemon.scrape()
    for number in range(3):
        with running(client, f"span-{number}"):
            time.sleep(0.5)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 3)
    last = daemon.scrape()

    rows = read_measurements(daemon.store)
    assert list(rows["span_id"]) == ["span-0", "span-1", "span-2"]
    # Whatever the wave does, the card draws between 100 and 300 W (within its sensor's error).
    assert (rows["gpu_energy_j"] / rows["runtime_s"]).between(90, 320).all()
    assert (rows["prefill_energy_j"] + rows["decode_energy_j"]).tolist() == pytest.approx(rows["gpu_energy_j"].tolist())
    assert rows["simulated"].all()
    assert set(rows["quality"]) <= {"measured", "interpolated"}
    assert rows["system"].str.fullmatch(r"1× .*[Ss]imulated.*").all()

    def increase(name: str, **labels: str) -> float:
        return daemon.total(last, name, **labels) - daemon.total(first, name, **labels)

    energy_j = increase("llmpower_gpu_energy_joules_total")
    inference_j = increase("llmpower_gpu_inference_energy_joules_total")
    other_j = increase("llmpower_idle_energy_joules_total") + increase("llmpower_unattributed_energy_joules_total")
    assert inference_j + other_j == pytest.approx(energy_j, rel=1e-9)
    assert inference_j == pytest.approx(rows["gpu_energy_j"].sum(), rel=1e-9)
    assert increase("llmpower_inference_energy_joules_total", device_kind="gpu") == pytest.approx(inference_j, rel=1e-9)
    assert increase("llmpower_inference_requests_total", model_name="llama") == 3
    assert increase("llmpower_inference_tokens_total", direction="output") == 60
    assert daemon.total(last, "llmpower_gpu_info", simulated="true") == 1
    assert daemon.total(last, "llmpower_sampler_dropped_samples_total") == 0
    assert daemon.total(last, "process_cpu_seconds_total") > 0
    client.close()


def test_sigterm_finishes_what_has_ended_and_leaves_the_store_whole(daemon: Daemon) -> None:
    client = SpanClient(daemon.socket)
    client.begin("never-ended", time.monotonic_ns())
    with running(client, "ended"):
        time.sleep(0.4)
    assert daemon.end() == 0
    assert {path.name for path in daemon.store.parent.glob("spans.db*")} == {"spans.db", "spans.db.lock"}
    ((span_id, joules),) = iter_rows(daemon.store, columns=("span_id", "gpu_energy_j"))
    assert span_id == "ended"
    assert isinstance(joules, float)
    assert joules > 0
    assert not daemon.socket.exists()
    assert re.fullmatch(
        r"INFO llmpower [^\n]*: backend simulated, [^\n]*; socket [^\n]*; metrics http://[^\n]*; store [^\n]*\n"
        r"WARNING SIMULATED: [^\n]*\n"
        r"(INFO calibrated [^\n]*\n)*"
        r"INFO SIGTERM: finishing\n"
        r"INFO stopped; 1 span stored in [^\n]*\n",
        daemon.log(),
    )


def test_ctrl_c_is_an_orderly_end(daemon: Daemon) -> None:
    assert daemon.end(signal.SIGINT) == 0
    assert "Traceback" not in daemon.log()


def test_a_program_that_dies_does_not_hold_up_the_others(daemon: Daemon) -> None:
    script = "import sys, time, pathlib; from llmpower.spans.client import SpanClient as C; "
    script += "c = C(pathlib.Path(sys.argv[1])); c.begin('dying', time.monotonic_ns()); time.sleep(60)"
    dying = subprocess.Popen([sys.executable, "-c", script, str(daemon.socket)])
    daemon.wait_until(lambda status: status["spans"]["running"] == 1)
    client = SpanClient(daemon.socket)
    with running(client, "living"):
        time.sleep(0.3)
    daemon.wait_until(lambda status: status["spans"]["pending"] == 1)
    dying.kill()
    dying.wait()
    status = daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    assert status["spans"]["running"] == 0


def test_rubbish_is_counted_and_survived(daemon: Daemon) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(os.fspath(daemon.socket))
        for packet in (b"GET / HTTP/1.1\r\n\r\n", b'{"v":1}', b"\x00" * 70_000):
            peer.send(packet)
    status = daemon.wait_until(lambda status: len(status["spans"]["rejected"]) == 3)
    assert status["spans"]["rejected"] == {"not_json": 1, "missing_field": 1, "too_large": 1}
    assert daemon.total(daemon.scrape(), "llmpower_spans_rejected_total") == 3


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"--store": "{0}/none/spans.db"}, "--store"),
        ({"--socket": "{0}/" + "x" * 120}, "--socket"),
        ({"--web.listen-address": "here"}, "web.listen-address"),
        ({"--web.config.file": "{0}/none.yml"}, "--web.config.file"),
        ({"--nvml-library": "{0}/libnone.so"}, "NVML library"),
        ({"--config": "{0}/none.toml"}, "--config"),
        ({"--rate": "0"}, "--rate"),
        ({"--max-read-share": "2"}, "--max-read-share"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(change: dict[str, str], told: str, tmp_path: Path) -> None:
    options = {
        "--backend": "simulated",
        "--store": "{0}/spans.db",
        "--socket": "{0}/s.sock",
        "--web.listen-address": "127.0.0.1:0",
    } | change
    ended = run_forked("daemon", *(f"{name}={value.format(tmp_path)}" for name, value in options.items()))
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(rf"llmpower: error: {re.escape(told)} = [^\n]+\n", ended.stderr), ended.stderr
    assert not (tmp_path / "s.sock").exists()


@pytest.mark.parametrize("option", ["--nvml-library=/none/libnone.so", "--rate=1e9", "--max-read-share=2"])
def test_a_daemon_that_is_refused_for_its_devices_leaves_nothing(option: str, tmp_path: Path) -> None:
    where = (f"--store={tmp_path}/spans.db", f"--socket={tmp_path}/s.sock")
    ended = run_forked("daemon", "--backend=simulated", *where, option)
    assert ended.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_every_option_has_its_environment_variable(tmp_path: Path) -> None:
    environ = {f"LLMPOWER_DAEMON_{name}": "" for name in ("CONFIG", "POWERCAP_ROOT", "NVML_LIBRARY", "RATE")}
    environ |= {
        "LLMPOWER_DAEMON_BACKEND": "simulated",
        "LLMPOWER_DAEMON_STORE": f"{tmp_path}/spans.db",
        "LLMPOWER_DAEMON_SOCKET": f"{tmp_path}/s.sock",
        "LLMPOWER_DAEMON_WEB_LISTEN_ADDRESS": "here",
    }
    ended = run_forked("daemon", env=os.environ | environ)
    assert ended.stderr.startswith("llmpower: error: web.listen-address = here")


def test_an_empty_variable_overrides_nothing_and_an_empty_option_does(tmp_path: Path) -> None:
    settings = tmp_path / "llmpower.toml"
    settings.write_text('powercap-root = "/dev/null/none"\nweb.listen-address = "here"\n')
    environ = os.environ | {"LLMPOWER_DAEMON_POWERCAP_ROOT": ""}
    ended = run_forked("daemon", "--config", str(settings), env=environ)
    assert ended.stderr.startswith("llmpower: error: powercap-root = /dev/null/none")
    ended = run_forked("daemon", "--config", str(settings), "--powercap-root", "", env=environ)
    assert ended.stderr.startswith("llmpower: error: web.listen-address = here")


def test_systemd_hears_ready_only_when_spans_are_taken(start: Callable[..., Daemon], tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(os.fspath(tmp_path / "notify"))
        systemd.settimeout(30)
        daemon = start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="300000")
        assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=SIMULATED, 1 device")
        assert daemon.status()["pid"] == daemon.process.pid
        assert systemd.recv(1000).startswith(b"WATCHDOG=1\nSTATUS=")
        assert systemd.recv(1000).startswith(b"WATCHDOG=1\nSTATUS=")
        assert daemon.end() == 0
        heard = b""
        while heard != b"STOPPING=1":
            heard = systemd.recv(1000)


def test_the_daemon_loads_nothing_heavy() -> None:
    script = (
        "import json, sys; import llmpower.daemon.loop, llmpower.cli.daemon, llmpower.cli.status, llmpower.cli.export; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "pandas", "scipy", "statsmodels", "pyarrow", "altair"}
    assert heavy & set(json.loads(loaded.stdout)) == set()
