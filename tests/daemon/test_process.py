"""The daemon as its users meet it: a process, its socket, its port, its file, its end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from disks import fill, mounted
from prometheus_client.parser import text_string_to_metric_families

from llmpower.spans.client import SpanClient, request_status
from llmpower.store import Store, iter_rows, read_measurements
from llmpower.types import Span

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

LLMPOWER = [sys.executable, "-m", "llmpower.cli.main"]


class Daemon:
    """A running ``llmpower daemon`` on the simulated card, whose load is a square wave of 100 and 300 W."""

    def __init__(self, directory: Path, *options: str, **environ: str) -> None:
        self.store = directory / "spans.db"
        self.socket = directory / "s.sock"
        self.errors = directory / "stderr"
        self.process = subprocess.Popen(
            [
                *LLMPOWER,
                "daemon",
                "--backend=simulated",
                f"--store={self.store}",
                f"--socket={self.socket}",
                "--web.listen-address=127.0.0.1:0",
                f"--powercap-root={directory / 'powercap'}",
                *options,
            ],
            env={**os.environ, "LLMPOWER_SIM_LOAD": "square:100,300,0.7", **environ},
            stderr=self.errors.open("w"),
            stdout=subprocess.PIPE,
        )
        # The socket of a daemon that was killed may still lie there; the log is this one's own.
        while "metrics http" not in self.log():
            assert self.process.poll() is None, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        return self.errors.read_text()

    def status(self) -> dict[str, Any]:
        return request_status(self.socket, 10.0)

    def scrape(self) -> Samples:
        with urllib.request.urlopen(self.status()["metrics_url"], timeout=10) as response:
            text = response.read().decode()
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def total(self, samples: Samples, name: str, **labels: str) -> float:
        return sum(
            value for (found, of), value in samples.items() if found == name and labels.items() <= dict(of).items()
        )

    def wait_until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline_s = time.monotonic() + 60
        while not condition(status := self.status()):
            assert time.monotonic() < deadline_s, f"in vain: {status}"
            time.sleep(0.05)
        return status

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons, and leaves none behind."""
    started: list[Daemon] = []

    def start(*options: str, **environ: str) -> Daemon:
        started.append(Daemon(tmp_path, *options, **environ))
        return started[-1]

    yield start
    for daemon in started:
        if daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    return start()


@contextlib.contextmanager
def running(client: SpanClient, span_id: str, **fields: Any) -> Iterator[None]:
    """A span around the block, reported as programs report theirs."""
    start_ns = time.monotonic_ns()
    client.begin(span_id, start_ns)
    yield
    end_ns = time.monotonic_ns()
    values: dict[str, Any] = {
        "model_name": "llama",
        "device_uuids": (),
        "first_token_ns": (start_ns + end_ns) // 2,
        "input_tokens": 10,
        "output_tokens": 20,
        "batch_size": 1,
        "hostname": "host",
        "pid": os.getpid(),
    }
    client.finish(Span(span_id=span_id, start_ns=start_ns, end_ns=end_ns, **values | fields))


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
        r"INFO stopped; 1 spans stored in [^\n]*\n",
        daemon.log(),
    )


def test_ctrl_c_is_an_orderly_end(daemon: Daemon) -> None:
    assert daemon.end(signal.SIGINT) == 0
    assert "Traceback" not in daemon.log()


def test_after_kill_9_a_new_daemon_takes_over(start: Callable[..., Daemon]) -> None:
    daemon = start()
    client = SpanClient(daemon.socket, retry_after_s=0.0)
    with running(client, "before"):
        time.sleep(0.3)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    daemon.end(signal.SIGKILL)
    assert daemon.socket.exists()
    second = start()
    # The client notices that its daemon was restarted, and finds the new one.
    with running(client, "after"):
        time.sleep(0.3)
    second.wait_until(lambda status: status["spans"]["stored"] == 1)
    assert second.end() == 0
    assert [row[0] for row in iter_rows(second.store, columns=("span_id",))] == ["before", "after"]
    with contextlib.closing(sqlite3.connect(second.store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


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


def test_a_card_without_counter_is_integrated_and_says_so(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_FAULT="no_energy")
    with running(SpanClient(daemon.socket), "a"):
        time.sleep(1.0)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    assert daemon.end() == 0
    (row,) = read_measurements(daemon.store).to_dict("records")
    assert row["method"] == "power"
    assert row["quality"] == "interpolated"
    assert 90 < row["gpu_energy_j"] / row["runtime_s"] < 320


def test_calibration_goes_on_beside_sampling_and_outlives_the_daemon(start: Callable[..., Daemon]) -> None:
    daemon = start()

    def calibrated(status: dict[str, Any]) -> bool:
        return all(field["period_s"] is not None for field in status["devices"][0]["fields"].values())

    assert not calibrated(daemon.status())
    status = daemon.wait_until(calibrated)
    assert status["devices"][0]["fields"]["energy"]["period_s"] == pytest.approx(0.1, rel=0.05)
    uuid = status["devices"][0]["uuid"]
    period_s = daemon.total(daemon.scrape(), "llmpower_device_update_period_seconds", gpu_uuid=uuid, field="energy")
    assert period_s == pytest.approx(0.1, rel=0.05)
    assert f"INFO calibrated Simulated A100-SXM4-80GB ({uuid}): " in daemon.log()
    assert daemon.end() == 0
    second = start()
    second.wait_until(calibrated)
    assert "calibrated" not in second.log()


def test_a_span_across_a_lost_card_has_no_joules_and_the_next_one_has(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_FAULT="lost:3,1")
    client = SpanClient(daemon.socket)
    with running(client, "across"):
        daemon.wait_until(lambda status: "GPU is lost" in (status["last_error"] or ""))
        daemon.wait_until(lambda _: "is back after a break" in daemon.log())
    time.sleep(0.5)
    with running(client, "after"):
        time.sleep(0.5)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 2)
    assert daemon.total(daemon.scrape(), "llmpower_sampler_read_errors_total", code="15") > 0
    assert daemon.end() == 0
    joules = dict(iter_rows(daemon.store, columns=("span_id", "gpu_energy_j")))
    assert joules["across"] is None
    assert isinstance(joules["after"], float)


def test_a_driver_call_that_hangs_does_not_hang_the_daemon(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_FAULT="hang:2,6")
    status = daemon.wait_until(lambda status: status["devices"][0]["stalled_s"] > 0)
    assert "is stalled: a driver call on it does not return" in status["last_error"]
    assert daemon.total(daemon.scrape(), "llmpower_device_stalled_seconds") >= 3
    daemon.wait_until(lambda status: status["devices"][0]["stalled_s"] == 0)
    assert daemon.log().count("is stalled") == 1
    assert daemon.log().count("answers again") == 1
    assert daemon.end() == 0


def test_cpu_packages_are_measured_beside_the_card(start: Callable[..., Daemon], tmp_path: Path) -> None:
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    for name, text in (("name", "package-0\n"), ("max_energy_range_uj", "65532610987\n"), ("energy_uj", "1000000\n")):
        (zone / name).write_text(text)
    daemon = start()
    client = SpanClient(daemon.socket)
    counter_uj = 1_000_000
    # Written in place and at one length: truncated first, the file would be empty whenever the reader is unlucky.
    counter = os.open(zone / "energy_uj", os.O_WRONLY)

    def draw_ten_watts(seconds: float) -> None:
        nonlocal counter_uj
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            counter_uj += 200_000
            os.pwrite(counter, b"%020d\n" % counter_uj, 0)
            time.sleep(0.02)

    draw_ten_watts(1.0)
    with running(client, "a"):
        before_uj = counter_uj
        draw_ten_watts(1.0)
        drawn_j = (counter_uj - before_uj) / 1e6
    draw_ten_watts(1.0)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    os.close(counter)
    samples = daemon.scrape()
    assert daemon.end() == 0
    ((cpu_j, cpu_std_j),) = iter_rows(daemon.store, columns=("cpu_energy_j", "cpu_energy_std_j"))
    assert isinstance(cpu_j, float)
    assert isinstance(cpu_std_j, float)
    # The counter moves in steps of 0.2 J, and one each may fall to either side of the span's ends.
    assert cpu_j == pytest.approx(drawn_j, abs=0.5)
    assert daemon.total(samples, "llmpower_cpu_energy_joules_total", zone="intel-rapl:0") >= cpu_j
    assert daemon.total(samples, "llmpower_inference_energy_joules_total", device_kind="cpu") == pytest.approx(cpu_j)


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
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(change: dict[str, str], told: str, tmp_path: Path) -> None:
    options = {
        "--backend": "simulated",
        "--store": "{0}/spans.db",
        "--socket": "{0}/s.sock",
        "--web.listen-address": "127.0.0.1:0",
    } | change
    command = [*LLMPOWER, "daemon", *(f"{name}={value.format(tmp_path)}" for name, value in options.items())]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(rf"llmpower: error: {re.escape(told)} = [^\n]+\n", ended.stderr), ended.stderr
    assert not (tmp_path / "s.sock").exists()


def test_every_option_has_its_environment_variable(tmp_path: Path) -> None:
    environ = {f"LLMPOWER_DAEMON_{name}": "" for name in ("CONFIG", "POWERCAP_ROOT", "NVML_LIBRARY", "RATE")}
    environ |= {
        "LLMPOWER_DAEMON_BACKEND": "simulated",
        "LLMPOWER_DAEMON_STORE": f"{tmp_path}/spans.db",
        "LLMPOWER_DAEMON_SOCKET": f"{tmp_path}/s.sock",
        "LLMPOWER_DAEMON_WEB_LISTEN_ADDRESS": "here",
    }
    command = [*LLMPOWER, "daemon"]
    ended = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr.startswith("llmpower: error: web.listen-address = here")


def test_a_second_daemon_on_the_same_store_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    command = [*LLMPOWER, "daemon", "--backend=simulated", f"--store={daemon.store}", f"--socket={tmp_path}/t.sock"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"another daemon (pid {daemon.process.pid}) writes to it" in ended.stderr


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
    heavy = {"torch", "transformers", "pandas", "scipy", "statsmodels", "pyarrow", "matplotlib"}
    assert heavy & set(json.loads(loaded.stdout)) == set()


def test_a_full_disk_delays_spans_and_everybody_is_told(start: Callable[..., Daemon], tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        daemon = start(f"--store={disk / 'spans.db'}")
        client = SpanClient(daemon.socket)
        with running(client, "before"):
            time.sleep(0.3)
        daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
        ballast = fill(disk)
        # Large enough to need more than the log has taken from the disk already.
        attributes = {str(number): "x" * 250 for number in range(30)}
        sent = 1
        for number in range(80):
            dropped = client.dropped
            with running(client, f"span-{number}", attributes=attributes):
                time.sleep(0.005)
            # On a busy machine the socket may have no room for one or another.
            sent += client.dropped == dropped
        status = daemon.wait_until(lambda status: status["store"]["errors"] > 1)
        assert status["last_error"].endswith("the disk is full; make room")
        assert status["store"]["waiting"] > 0
        assert daemon.total(daemon.scrape(), "llmpower_store_errors_total") > 1
        assert "the disk is full; make room" in daemon.log()
        ballast.unlink()
        status = daemon.wait_until(
            lambda status: (
                status["spans"]["stored"] >= sent and not status["spans"]["pending"] + status["store"]["waiting"]
            )
        )
        assert status["store"]["lost"] == 0
        assert "the store works again after" in daemon.log()
        assert daemon.end() == 0
        assert len(list(iter_rows(disk / "spans.db"))) == status["spans"]["stored"]
        client.close()


def test_a_damaged_store_is_kept_and_a_new_one_begun(start: Callable[..., Daemon], tmp_path: Path) -> None:
    store = tmp_path / "spans.db"
    assert start().end() == 0
    damaged = store.read_bytes()[:4096] + b"\xa5" * 40_960
    store.write_bytes(damaged)
    daemon = start()
    status = daemon.status()
    (aside,) = tmp_path.glob("spans.db.corrupt-*Z")
    assert aside.read_bytes() == damaged
    assert str(aside) in status["last_error"]
    assert status["store"]["corruptions"] == 1
    assert daemon.total(daemon.scrape(), "llmpower_store_corruptions_total") == 1
    assert f"ERROR {status['last_error']}" in daemon.log()
    client = SpanClient(daemon.socket)
    with running(client, "after"):
        time.sleep(0.3)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    client.close()


def test_retention_deletes_what_is_too_old(start: Callable[..., Daemon], make_measurement: Callable[..., Any]) -> None:
    daemon = start("--retention.time=1h")
    daemon.end()
    store = Store(daemon.store)
    store.append([make_measurement(number, started_at=datetime(2020, 1, 1, tzinfo=UTC)) for number in range(500)])
    store.close()
    daemon = start("--retention.time=1h")
    status = daemon.wait_until(lambda status: status["store"]["deleted"] == 500)
    assert status["last_error"] is None
    assert daemon.total(daemon.scrape(), "llmpower_store_deleted_spans_total", reason="age") == 500
    assert list(iter_rows(daemon.store)) == []


def test_after_a_rest_a_span_is_measured_as_before(start: Callable[..., Daemon]) -> None:
    daemon = start(LLMPOWER_SIM_LOAD="square:200,200,1")
    daemon.wait_until(lambda status: status["sampler"]["effective_hz"]["gpu_energy"] == 25.0)
    client = SpanClient(daemon.socket)
    start_ns = time.monotonic_ns()
    with running(client, "first"):
        daemon.wait_until(lambda status: status["sampler"]["effective_hz"]["gpu_energy"] == 100.0)
        time.sleep(1.5)
    runtime_s = (time.monotonic_ns() - start_ns) / 1e9
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    ((joules, quality),) = iter_rows(daemon.store, columns=("gpu_energy_j", "quality"))
    assert quality in ("measured", "interpolated")
    assert joules == pytest.approx(200 * runtime_s, rel=0.1)
    client.close()


_LOAD = """
import sys, time
from pathlib import Path
from llmpower.spans import SpanClient
from llmpower.types import Span
client = SpanClient(Path(sys.argv[1]), retry_after_s=0.1)
number = 0
while True:
    span_id, start_ns = f"{sys.argv[2]}-{number}", time.monotonic_ns()
    client.begin(span_id, start_ns)
    time.sleep(0.001)
    spooled = client.spooled
    client.finish(Span(span_id, "llama", None, start_ns, None, time.monotonic_ns(), 8, 4, 1, "host", 1))
    if client.spooled > spooled:
        print(span_id, flush=True)
    number += 1
"""


def test_what_was_acknowledged_is_stored_though_daemon_and_programs_are_killed_under_load(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = start()
    outputs = [tmp_path / f"acknowledged-{name}" for name in "ab"]
    programs = [
        subprocess.Popen([sys.executable, "-c", _LOAD, str(daemon.socket), output.name[-1]], stdout=output.open("w"))
        for output in outputs
    ]
    for _ in range(2):
        daemon.wait_until(lambda status: status["spans"]["stored"] > 200)
        daemon.process.kill()
        daemon.process.wait()
        time.sleep(0.3)
        daemon = start()
    daemon.wait_until(lambda status: status["spans"]["stored"] > 200)
    daemon.process.kill()
    daemon.process.wait()
    for program in programs:
        program.kill()
        program.wait()
    acknowledged = [line for output in outputs for line in output.read_text().split("\n")[:-1]]
    assert len(acknowledged) > 600
    daemon = start()
    spool = daemon.socket.with_suffix(".spool")
    deadline_s = time.monotonic() + 60
    while any(spool.iterdir()):
        assert time.monotonic() < deadline_s, "what is stored is not removed"
        time.sleep(0.1)
    assert daemon.status()["spans"]["rejected"] == {}
    assert daemon.end() == 0
    rows = [*iter_rows(daemon.store, columns=("span_id", "gpu_energy_j", "quality", "uid"))]
    stored = {span_id for span_id, *_ in rows}
    assert set(acknowledged) - stored == set()
    assert len(rows) == len(stored)
    assert {uid for *_, uid in rows} == {os.getuid()}
    assert any(energy_j is None and quality == "unavailable" for _, energy_j, quality, _ in rows)
    assert sum(energy_j is not None for _, energy_j, *_ in rows) > 100


def test_while_the_daemon_is_away_spans_wait_for_it_and_are_kept_without_joules(
    start: Callable[..., Daemon], caplog: pytest.LogCaptureFixture
) -> None:
    daemon = start()
    daemon.end()
    client = SpanClient(daemon.socket)
    began = datetime.now(UTC)
    for number in range(300):
        with running(client, f"away-{number}"):
            pass
    assert client.spooled == 300
    (said,) = [record.getMessage() for record in caplog.records]
    assert f"spans wait in {daemon.socket.with_suffix('.spool')} and will have no joules" in said
    daemon = start()
    status = daemon.wait_until(lambda status: status["spans"]["stored"] == 300)
    assert status["spans"]["rejected"] == {}
    with running(client, "there"):
        time.sleep(0.5)
    daemon.wait_until(lambda status: status["spans"]["stored"] == 301)
    frame = read_measurements(daemon.store).set_index("span_id")
    there = frame.loc["there"]
    away = frame.drop(index="there")
    assert there["gpu_energy_j"] > 0
    assert away["gpu_energy_j"].isna().all()
    assert away["cpu_energy_j"].isna().all()
    assert set(away["quality"]) == {"unavailable"}
    starts = [datetime.fromisoformat(text) for text in away["started_at"]]
    assert all(began <= moment <= datetime.now(UTC) for moment in starts)
    client.close()
    deadline_s = time.monotonic() + 30
    while any(daemon.socket.with_suffix(".spool").iterdir()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
