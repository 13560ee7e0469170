"""Hostile datagrams against the real receiver: nothing crashes, nothing grows, every refusal is counted by its reason.

``make fuzz`` sends 100,000; the tests of every day send a few thousand.
"""

from __future__ import annotations

import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from hostile import Sender, packets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpower.daemon.accounting.admission import MAX_OPEN_OF_USER
from llmpower.daemon.accounting.engine import Engine
from llmpower.daemon.receiving.answers import Answers
from llmpower.daemon.receiving.receiver import Receiver
from llmpower.metrics.accounts import MAX_MODEL_NAMES
from llmpower.sampling import SAMPLE_DTYPE, SamplerStatistics
from llmpower.spans import request_status
from llmpower.spans.packets import WireError
from llmpower.spans.spool import SpoolWriter, spool_directory
from llmpower.spans.wire import Begin, Cancel, MeasurementRequest, SenderClock, StatusRequest, decode, encode
from llmpower.store import Appended
from llmpower.types import Measurement, Span

DATAGRAMS = int(os.environ.get("LLMPOWER_FUZZ_DATAGRAMS", "2000"))
A_BATCH = 10

CODEC_REASONS = {"not_json", "too_large", "version", "type", "missing_field", "bad_value"}
MEANING_REASONS = {"duplicate", "in_the_future", "too_many_open", "overloaded", "abandoned", "unstorable"}


def told(packet: bytes) -> str:
    """What is to become of it: a reason, or the message's name."""
    try:
        return type(decode(packet)).__name__
    except WireError as error:
        return error.reason


_STATISTICS = SamplerStatistics(
    samples_total=0,
    dropped_total=0,
    ticks_total=0,
    missed_ticks_total=0,
    lateness_bounds_s=(),
    lateness_counts=(0,),
    lateness_sum_s=0.0,
    read_errors={},
    effective_hz={},
    read_time_s=0.0,
    running_time_s=0.0,
    cpu_time_s=0.0,
)


QUESTIONS = (StatusRequest.__name__, MeasurementRequest.__name__, SenderClock.__name__)
"""Which nobody is there to be answered in a file."""


def read_answers(peer: socket.socket) -> None:
    """Take what has come: who asks and does not read is dropped."""
    while select.select([peer], [], [], 0)[0]:
        assert peer.recv(1 << 17), "the peer was sent away"


class Station:
    """The real receiver and the real books, in this process, where every allocation can be seen."""

    def __init__(self, path: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.engine = Engine((), self._append, backend="simulated")
        self.receiver = Receiver(path, self.selector, self.engine, dict, Answers())
        self.path = path
        self.peer = self.connect()

    def _append(self, measurements: Sequence[Measurement]) -> Future[Appended]:
        future: Future[Appended] = Future()
        future.set_result(Appended(len(measurements)))
        return future

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(self.path))
        return peer

    def send(self, packet: bytes) -> None:
        self.peer.send(packet)
        self.serve()
        read_answers(self.peer)

    def serve(self) -> None:
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()

    def step(self) -> None:
        self.receiver.resume()
        self.serve()
        self.receiver.release(lambda _: True)
        self.engine.step(np.zeros(0, SAMPLE_DTYPE), _STATISTICS, 0, settle_delay_s=0.0)

    @property
    def rejected(self) -> Counter[str]:
        return Counter(self.engine._rejected)

    def close(self) -> None:
        self.peer.close()
        self.receiver.close()
        self.selector.close()


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    station = Station(tmp_path_factory.mktemp("fuzz") / "s.sock")
    yield station
    station.close()


@pytest.mark.timeout(1800)
@given(batch=st.lists(packets, min_size=A_BATCH, max_size=A_BATCH))
@settings(
    max_examples=max(DATAGRAMS // 4 // A_BATCH, 10),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
def test_whatever_hypothesis_thinks_of_is_counted_by_reason(batch: list[bytes], station: Station) -> None:
    before = station.rejected
    for packet in batch:
        station.send(packet)
    station.step()
    expected = Counter(outcome for outcome in map(told, batch) if outcome in CODEC_REASONS)
    grown = station.rejected - before
    assert {reason: count for reason, count in grown.items() if reason in CODEC_REASONS} == expected
    assert set(grown) <= CODEC_REASONS | MEANING_REASONS


def test_what_hostile_packets_leave_behind_is_bounded(station: Station) -> None:
    sender = Sender(1, time.monotonic_ns)
    taken: list[int] = []
    # Names are kept up to a hundred. They are given first: a table that is still filling is no growth without bound.
    now_ns = time.monotonic_ns()
    for number in range(MAX_MODEL_NAMES):
        span = Span(f"full-{number}", f"model-{number}", (), now_ns - 2000, None, now_ns - 1000, 1, 1, 1, "h", 1)
        station.send(encode(span))
    station.step()
    assert len(station.engine.snapshot.models) >= MAX_MODEL_NAMES
    tracemalloc.start()
    try:
        for number in range(max(DATAGRAMS // 4, 1000)):
            station.send(sender.packet())
            if number % 250 == 249:
                # Half of a minute later, in effect: whatever runs has been given up, what has ended is settled.
                station.peer.close()
                station.peer = station.connect()
                station.step()
                station.step()
                taken.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    snapshot = station.engine.snapshot
    assert (snapshot.spans_running, snapshot.spans_pending) == (0, 0)
    assert taken[-1] - taken[len(taken) // 2] < 100_000, taken


class Daemon:
    """A whole one, to which rubbish comes by both ways."""

    def __init__(self, directory: Path) -> None:
        self.socket, self.log = directory / "s.sock", directory / "log"
        command = [sys.executable, "-m", "llmpower.cli.main", "daemon", "--backend=simulated"]
        places = [f"--store={directory / 'spans.db'}", f"--socket={self.socket}", f"--powercap-root={directory}"]
        self.process = subprocess.Popen(
            [*command, *places, "--web.listen-address=127.0.0.1:0"], stderr=self.log.open("w")
        )
        while "metrics http" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def rejected(self) -> Counter[str]:
        return Counter(request_status(self.socket, 30.0)["spans"]["rejected"])

    def resident_bytes(self) -> int:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(text.split("VmRSS:")[1].split()[0])

    def settle(self) -> Counter[str]:
        """Wait until nothing more is counted, which is told four times a second."""
        readings = [self.rejected()]
        while len(readings) < 4 or readings[-1] != readings[-3]:
            time.sleep(0.6)
            readings.append(self.rejected())
        return readings[-1]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    if daemon.process.poll() is None:
        daemon.process.kill()
    daemon.process.wait()


@pytest.mark.timeout(1800)
def test_a_daemon_under_fire_serves_on_counts_all_and_does_not_grow(daemon: Daemon) -> None:
    sender = Sender(2, time.monotonic_ns)
    expected: Counter[str] = Counter()
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(60)
    peer.connect(os.fspath(daemon.socket))
    writer = SpoolWriter(spool_directory(daemon.socket))
    resident: list[int] = []
    for number in range(DATAGRAMS // 4):  # by each of two ways
        packet = sender.packet()
        outcome = told(packet)
        peer.send(packet)
        expected[outcome] += 1
        read_answers(peer)
        # A newline ends a line: what is one packet to the socket may be several lines to the spool.
        line = sender.packet().replace(b"\n", b" ")
        if writer.append(line):
            reason = told(line)
            expected["type" if reason in QUESTIONS else reason] += 1
        if number % max(DATAGRAMS // 40, 1) == 0:
            resident.append(daemon.resident_bytes())
    writer.close()
    rejected = daemon.settle()
    peer.close()
    assert daemon.process.poll() is None, daemon.log.read_text()
    assert "Traceback" not in daemon.log.read_text()
    counted = {reason: count for reason, count in rejected.items() if reason in CODEC_REASONS}
    assert counted == {reason: count for reason, count in expected.items() if reason in CODEC_REASONS}
    assert set(rejected) <= CODEC_REASONS | MEANING_REASONS
    assert expected[Span.__name__] > 0
    assert expected[Begin.__name__] > 0
    assert expected[Cancel.__name__] > 0
    assert expected[MeasurementRequest.__name__] > 0
    # What a few thousand spans on their way take is no growth; what comes after is.
    assert resident[-1] - resident[len(resident) // 2] < 12 << 20, resident
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0


def test_who_floods_with_beginnings_is_refused_and_forgotten(daemon: Daemon) -> None:
    peers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(4)]
    for peer in peers:
        peer.settimeout(60)
        peer.connect(os.fspath(daemon.socket))
    for number in range(MAX_OPEN_OF_USER // 4 + 500):
        for which, peer in enumerate(peers):
            peer.send(encode(Begin(f"{which}-{number}", time.monotonic_ns())))
    rejected = daemon.settle()
    assert rejected["too_many_open"] == 4 * (MAX_OPEN_OF_USER // 4 + 500) - MAX_OPEN_OF_USER
    for peer in peers:
        peer.close()
    deadline_s = time.monotonic() + 30
    while request_status(daemon.socket, 30.0)["spans"]["running"]:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert daemon.process.poll() is None
