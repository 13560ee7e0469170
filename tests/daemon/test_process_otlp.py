"""OpenTelemetry's own exporter, and what it sends, against a real daemon."""

from __future__ import annotations

import contextlib
import gzip
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from daemon_process import LLMPOWER, Daemon, running
from otlp_messages import S, a_body, a_span

from llmpower.spans.client import SpanClient

Start = Callable[..., Daemon]


def post(daemon: Daemon, *spans: object, **resource: object) -> int:
    request = urllib.request.Request(
        daemon.status()["otlp"]["url"], a_body(*spans, **resource), {"Content-Type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return int(response.status)


def introduce(daemon: Daemon) -> None:
    """Do as vLLM does when it starts: from then on the daemon knows that there is a sender."""
    none = {"gen_ai.usage.prompt_tokens": None, "gen_ai.usage.completion_tokens": None}
    now_ns = time.time_ns()
    assert post(daemon, a_span(now_ns - S, now_ns, attributes=none)) == 200
    daemon.wait_until(lambda status: status["settle_delay_s"] >= 5)


def rows(daemon: Daemon) -> list[tuple[str, float | None]]:
    with sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True) as database:
        return database.execute("SELECT span_id, gpu_energy_j FROM measurements ORDER BY id").fetchall()


def test_a_request_that_is_told_of_late_has_its_joules_and_the_books_balance(start: Start) -> None:
    daemon = start("--otlp.hold=6")
    introduce(daemon)
    began_ns = time.time_ns()
    time.sleep(1.0)
    ended_ns = time.time_ns()
    time.sleep(1.5)
    assert post(daemon, a_span(began_ns, ended_ns, attributes={"gen_ai.latency.time_to_first_token": 0.25})) == 200
    daemon.wait_until(lambda status: status["spans"]["stored"] == 1)
    ((_, energy_j),) = rows(daemon)
    assert energy_j is not None
    assert 100 < energy_j < 400, "the card draws 100 or 300 W, for about a second"
    daemon.wait_until(lambda status: status["devices"][0]["inference_j"] > energy_j * (1 - 1e-9))
    (card,) = daemon.status()["devices"]
    assert card["inference_j"] == pytest.approx(energy_j)
    assert card["energy_j"] == pytest.approx(card["inference_j"] + card["idle_j"] + card["unattributed_j"])
    scraped = daemon.scrape()
    assert daemon.total(scraped, "llmpower_otlp_spans_total", fate="no_request") == 1
    assert daemon.total(scraped, "llmpower_otlp_requests_total", code="200") == 2
    assert daemon.total(scraped, "llmpower_spans_late_total") == 0
    assert daemon.end() == 0


def test_what_was_acknowledged_survives_kill_9_and_a_repeat_changes_nothing(start: Start) -> None:
    daemon = start("--otlp.hold=60")
    introduce(daemon)
    now_ns = time.time_ns()
    spans = [a_span(now_ns, now_ns) for _ in range(300)]
    assert post(daemon, *spans[:200]) == 200
    assert post(daemon, *spans[200:]) == 200
    daemon.end(signal.SIGKILL)
    assert rows(daemon) == []
    daemon = start("--otlp.hold=4")
    assert daemon.status()["settle_delay_s"] >= 4, "who sent to the one before will send to this one"
    # The sender has not seen the last answer.
    assert post(daemon, *spans[200:]) == 200
    daemon.wait_until(lambda status: status["spans"]["stored"] == 300)
    assert len({span_id for span_id, _ in rows(daemon)}) == 300
    daemon.end(signal.SIGKILL)
    daemon = start()
    daemon.wait_until(lambda status: status["spans"]["spooled_bytes"] == 0)
    assert daemon.end() == 0
    assert len(rows(daemon)) == 300


@pytest.fixture
def engine() -> Iterator[int]:
    """A child of this process; its pid."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as process:
        yield process.pid
        process.kill()


def test_a_servers_requests_are_measured_on_the_gpus_of_its_processes(
    start: Start, engine: int, tmp_path: Path
) -> None:
    # This process is the server, and its engine computes on the second of two GPUs.
    listed = tmp_path / "processes"
    listed.write_text(f"1 {engine}\n0 1\n")
    daemon = start("--otlp.hold=6", LLMPOWER_SIM_GPUS="2", LLMPOWER_SIM_PROCESSES=str(listed))
    introduce(daemon)
    began_ns = time.time_ns()
    time.sleep(0.5)
    for resource in ({"process__pid": os.getpid()}, {"vllm__process_id": str(engine)}, {"process__pid": 1}):
        assert post(daemon, a_span(began_ns, time.time_ns()), **resource) == 200
    daemon.wait_until(lambda status: status["spans"]["stored"] == 3)
    gpus = [device["uuid"] for device in daemon.status()["devices"]]
    assert daemon.end() == 0
    with sqlite3.connect(f"file:{daemon.store}?mode=ro", uri=True) as database:
        found = dict(database.execute("SELECT pid, device_uuids FROM measurements"))
    # Where it is not known, simulated cards stand for the machine; the tests of Servers say why it is not.
    assert found == {os.getpid(): gpus[1], engine: gpus[1], 1: ";".join(gpus)}


def test_an_end_in_order_measures_what_was_accepted(start: Start) -> None:
    daemon = start("--otlp.hold=60")
    introduce(daemon)
    began_ns = time.time_ns()
    time.sleep(0.5)
    assert post(daemon, a_span(began_ns, time.time_ns())) == 200
    assert daemon.end() == 0
    ((_, energy_j),) = rows(daemon)
    assert energy_j is not None


def test_an_address_in_use_is_named_and_the_default_one_is_no_reason_not_to_start(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        ended = subprocess.run(
            [*LLMPOWER, "daemon", f"--otlp.listen-address={address}", "--backend=simulated", "--store=s", "--socket=t"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 2
        assert f"--otlp.listen-address = {address}: another program listens there" in ended.stderr
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a daemon of this machine may have it, which serves as well
            stack.enter_context(socket.create_server(("127.0.0.1", 10451)))
        daemon = start("--otlp.listen-address=127.0.0.1:10451")
        assert "spans of OpenTelemetry are not taken" in daemon.log()
        assert daemon.status()["otlp"]["url"] is None
        assert daemon.end() == 0


def test_hostile_peers_cost_the_others_nothing(start: Start) -> None:
    daemon = start("--otlp.hold=6")
    introduce(daemon)
    address = urlsplit(daemon.status()["otlp"]["url"])
    assert address.hostname is not None
    assert address.port is not None
    host, port = address.hostname, address.port
    head = "POST /v1/traces HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Encoding: {}\r\n"
    bodies = {
        "gzip": gzip.compress(bytes(64 << 20)),
        "identity": b"\x0a\x04\x12\x02\x12\x00" * 50_000,
        "GZIP": gzip.compress(b"\x0a" * 1000)[:-3],
        "br": b"garbage",
    }
    hostile = [
        head.format(coding).encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
        for coding, body in bodies.items()
    ]
    stop = threading.Event()

    def attack(number: int) -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError), socket.create_connection((host, port), 10) as peer:
                peer.sendall(hostile[number % len(hostile)])
                peer.recv(1000)

    attackers = [threading.Thread(target=attack, args=(number,)) for number in range(4)]
    silent = [socket.create_connection((host, port), 10) for _ in range(5)]
    for attacker in attackers:
        attacker.start()
    client = SpanClient(daemon.socket)
    try:
        for number in range(20):
            with running(client, f"own {number}"):
                now_ns = time.time_ns()
                assert post(daemon, a_span(now_ns - S // 100, now_ns)) == 200
    finally:
        stop.set()
        for attacker in attackers:
            attacker.join()
        for peer in silent:
            peer.close()
        client.close()
    status = daemon.wait_until(lambda status: status["spans"]["stored"] == 40)
    assert status["spans"]["late"] == 0
    assert {"400", "413", "415", "200"} <= status["otlp"]["answers"].keys()
    assert all(energy_j is not None for _, energy_j in rows(daemon))
    assert daemon.end() == 0


def test_nowhere_is_an_address_too(start: Start) -> None:
    daemon = start("--otlp.listen-address=")
    assert "OpenTelemetry nowhere" in daemon.log()
    assert daemon.status()["otlp"]["url"] is None
    assert daemon.end() == 0
