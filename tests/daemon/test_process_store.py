"""What the daemon keeps: through kills, full and damaged disks, and its own absence."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from daemon_process import LLMPOWER, Daemon, running
from disks import fill, mounted

from llmpower.spans.client import SpanClient
from llmpower.store import Store, iter_rows, read_measurements


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


def test_a_second_daemon_on_the_same_store_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    command = [*LLMPOWER, "daemon", "--backend=simulated", f"--store={daemon.store}", f"--socket={tmp_path}/t.sock"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert f"another daemon (pid {daemon.process.pid}) writes to it" in ended.stderr


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
