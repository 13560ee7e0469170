from __future__ import annotations

import os
import resource
import selectors
import socket
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.daemon.answers import Answers
from llmpower.daemon.receiver import MAX_OPEN_SPANS, MAX_PEERS_OF_USER, PACKETS_A_STEP_OF_USER, Receiver
from llmpower.exceptions import InputError
from llmpower.spans.client import SpanClient
from llmpower.spans.clocks import boot_id
from llmpower.spans.daemon_socket import request_status
from llmpower.spans.replies import decode_measurement, decode_status
from llmpower.spans.wire import (
    MAX_PACKET_BYTES,
    Begin,
    Cancel,
    MeasurementRequest,
    SenderClock,
    StatusRequest,
    encode,
)
from llmpower.types import Measurement, Span


def span(span_id: str = "a", **fields: Any) -> Span:
    values: dict[str, Any] = {
        "model_name": "llama",
        "device_uuids": None,
        "start_ns": 1,
        "first_token_ns": None,
        "end_ns": 2,
        "input_tokens": 3,
        "output_tokens": 4,
        "batch_size": 1,
        "hostname": "host",
        "pid": 5,
        "uid": os.getuid(),
    }
    return Span(span_id=span_id, **values | fields)


class Book:
    """An inbox that writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.rejected: Counter[str] = Counter()
        self.opens = True

    def begin(self, span_id: str, start_ns: int, uid: int) -> bool:
        assert uid == os.getuid()
        self.heard.append(("begin", span_id, start_ns))
        return self.opens

    def finish(self, span: Span) -> bool:
        self.heard.append(span)
        return True

    def cancel(self, span_id: str, uid: int) -> None:
        assert uid == os.getuid()
        self.heard.append(("cancel", span_id))

    def reject(self, reason: str) -> None:
        self.rejected[reason] += 1

    def fail(self, error: str) -> None:
        self.heard.append(("fail", error))


def status() -> Mapping[str, object]:
    return {"spans_stored": 7}


class Station:
    """A receiver with its selector and the peers of a test."""

    def __init__(self, path: Path, answer: Callable[[], Mapping[str, object]] = status) -> None:
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.book = Book()
        self.answers = Answers()
        self.clock = SenderClock(boot_id(), 0, 0)
        self.receiver = Receiver(path, self.selector, self.book, answer, self.answers, lambda: self.clock)

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(os.fspath(self.path))
        return peer

    def turn(self) -> None:
        """A step: serve until nothing more is waiting, or allowed; who is gone has left nothing elsewhere."""
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()
        self.receiver.resume()
        self.receiver.release(lambda _: True)

    def close(self) -> None:
        self.receiver.close()
        self.selector.close()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s.sock")
    yield station
    station.close()


def test_messages_arrive_in_order(station: Station) -> None:
    client = SpanClient(station.path)
    client.begin("a", 1)
    client.finish(span("a"))
    client.begin("b", 9)
    client.cancel("b")
    station.turn()
    assert station.book.heard == [("begin", "a", 1), span("a"), ("begin", "b", 9), ("cancel", "b")]
    client.close()


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"\xff\xfe", "not_json"),
        (b"[" * 60_000, "not_json"),
        (b'"begin"', "not_json"),
        (b"{}", "missing_field"),
        (b'{"v":2,"type":"begin"}', "version"),
        (b'{"v":1,"type":"beg"}', "type"),
        (b'{"v":1,"type":"begin","span_id":"a","start_ns":-1}', "bad_value"),
        (b" " * (MAX_PACKET_BYTES + 1000), "too_large"),
    ],
)
def test_a_packet_that_is_no_message_is_counted_and_the_next_one_served(
    packet: bytes, reason: str, station: Station
) -> None:
    with station.connect() as peer:
        peer.send(packet)
        peer.send(encode(Begin("a", 1)))
        station.turn()
        assert station.book.rejected == {reason: 1}
        assert station.book.heard == [("begin", "a", 1)]


@given(packets=st.lists(st.binary(min_size=1, max_size=200), max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_bytes_bring_it_down(packets: list[bytes]) -> None:
    path = Path(f"/tmp/llmpower-test-{os.getpid()}.sock")
    station = Station(path)
    with station.connect() as peer:
        for packet in packets:
            peer.send(packet)
        peer.send(encode(Cancel("nothing")))
        station.turn()
        assert station.book.rejected.total() == len(packets)
        assert station.book.heard == []
    station.close()


def test_an_empty_packet_ends_that_peer_alone(station: Station) -> None:
    with station.connect() as first, station.connect() as second:
        first.send(b"")
        station.turn()
        with pytest.raises(BrokenPipeError):
            first.send(b"{}")
        second.send(encode(Begin("b", 1)))
        station.turn()
        assert station.book.heard == [("begin", "b", 1)]


def test_a_peer_that_goes_takes_what_it_had_open(station: Station) -> None:
    with station.connect() as staying:
        staying.send(encode(Begin("kept", 1)))
        with station.connect() as leaving:
            for span_id in ("finished", "open", "cancelled"):
                leaving.send(encode(Begin(span_id, 1)))
            leaving.send(encode(span("finished")))
            leaving.send(encode(Cancel("cancelled")))
        station.turn()
        assert [entry for entry in station.book.heard if isinstance(entry, tuple) and entry[0] == "cancel"] == [
            ("cancel", "cancelled"),
            ("cancel", "open"),
        ]


def test_a_peer_cannot_cancel_what_another_began(station: Station) -> None:
    with station.connect() as owner, station.connect() as other:
        owner.send(encode(Begin("a", 1)))
        station.turn()
        other.send(encode(Cancel("a")))
        station.turn()
        assert station.book.heard == [("begin", "a", 1)]


def test_a_begin_that_was_refused_is_not_cancelled_later(station: Station) -> None:
    station.book.opens = False
    with station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
    station.turn()
    assert station.book.heard == [("begin", "a", 1)]


def test_one_peer_opens_so_many_spans_and_no_more(station: Station) -> None:
    with station.connect() as peer:
        for number in range(MAX_OPEN_SPANS + 10):
            peer.send(encode(Begin(str(number), 1)))
            station.turn()
        assert station.book.rejected == {"too_many_open": 10}
        assert len(station.book.heard) == MAX_OPEN_SPANS
        peer.send(encode(Cancel("0")))
        peer.send(encode(Begin("again", 1)))
        station.turn()
        assert station.book.heard[-1] == ("begin", "again", 1)


def test_a_flood_waits_in_its_own_buffer_while_others_are_served(station: Station) -> None:
    with station.connect() as flood, station.connect() as quiet:
        station.turn()
        flood.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while flood.send(encode(Begin(f"flood-{sent}", 1))):
                sent += 1
        quiet.send(encode(Begin("quiet", 1)))
        for key, _ in station.selector.select(0):
            key.data()
        heard = len(station.book.heard)
        assert ("begin", "quiet", 1) in station.book.heard
        assert heard < sent, "one turn emptied the flood: it would have held up everyone"
        station.turn()
        assert len(station.book.heard) == sent + 1


def test_too_many_peers_of_a_user_are_turned_away_and_those_there_stay(station: Station) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * MAX_PEERS_OF_USER)), hard))
    peers = []
    for _ in range(MAX_PEERS_OF_USER + 3):
        peers.append(station.connect())
        station.turn()
    assert station.book.rejected == {"too_many_peers": 3}
    assert peers[-1].recv(10) == b""
    peers[0].send(encode(Begin("a", 1)))
    peers[1].close()
    station.turn()
    peers.append(station.connect())
    peers[-1].send(encode(Begin("b", 1)))
    station.turn()
    assert station.book.heard == [("begin", "a", 1), ("begin", "b", 1)]
    for peer in peers:
        peer.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_floods_waits_for_the_next_step_and_loses_nothing(station: Station) -> None:
    with station.connect() as flood:
        flood.settimeout(10)
        station.turn()

        def send() -> None:
            for number in range(PACKETS_A_STEP_OF_USER + 500):
                flood.send(encode(Cancel(str(number))))
            flood.send(encode(Begin("last", 1)))

        sending = Thread(target=send)
        sending.start()
        served = 0
        while not station.receiver.is_behind(os.getuid()):
            for key, _ in station.selector.select(1.0):
                key.data()
                served += 1
        assert not station.book.heard
        assert not station.selector.select(0), "a peer that waits wakes nobody"
        while sending.is_alive():
            station.turn()
        station.turn()
        assert not station.receiver.is_behind(os.getuid())
        assert station.book.heard == [("begin", "last", 1)]


def test_a_span_that_ended_by_another_way_is_not_cancelled_with_its_peer(station: Station) -> None:
    with station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
        peer.send(encode(Begin("b", 1)))
        station.turn()
    while ready := station.selector.select(0):
        for key, _ in ready:
            key.data()
    station.receiver.resume()
    station.receiver.release(lambda _: False)
    assert ("cancel", "b") not in station.book.heard, "it may have ended, in what is not read yet"
    station.receiver.ended(span("a"))
    station.receiver.release(lambda _: True)
    assert station.book.heard[2:] == [("cancel", "b")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_span_is_its_senders_by_the_kernels_word(station: Station) -> None:
    station.path.chmod(0o666)
    for directory in (station.path.parent, *station.path.parent.parents[:2]):
        directory.chmod(0o755)
    with station.connect() as root:
        packet = encode(span("a")).replace(b'"type":"span"', b'"type":"span","uid":0')
        os.seteuid(65534)
        try:
            nobody = station.connect()
        finally:
            os.seteuid(0)
        nobody.send(packet)
        root.send(packet)
        station.turn()
        assert {heard.uid for heard in station.book.heard if isinstance(heard, Span)} == {0, 65534}
        nobody.close()


def test_out_of_descriptors_it_rests_and_resumes(station: Station) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            station.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert station.book.rejected == {"no_descriptors": 1}
        station.receiver.resume()
        station.turn()
        assert station.book.heard == [("begin", "a", 1)]


def test_an_answer_that_fits_in_no_packet_ends_that_connection_and_nothing_else(tmp_path: Path) -> None:
    station = Station(tmp_path / "s.sock", lambda: {"name": "x" * MAX_PACKET_BYTES})
    with station.connect() as asking, station.connect() as other:
        asking.send(encode(StatusRequest()))
        other.send(encode(Begin("a", 1)))
        station.turn()
        assert asking.recv(1) == b""
    assert ("begin", "a", 1) in station.book.heard
    (failure,) = [heard for heard in station.book.heard if isinstance(heard, tuple) and heard[0] == "fail"]
    assert failure[1].startswith("a request cannot be answered: ")
    station.close()


def test_status_is_answered_on_the_same_connection(station: Station) -> None:
    with station.connect() as peer:
        peer.send(encode(StatusRequest()))
        station.turn()
        assert decode_status(peer.recv(MAX_PACKET_BYTES)) == {"spans_stored": 7}


def test_the_clients_own_question_is_answered(station: Station) -> None:
    answers: list[dict[str, Any]] = []
    asking = Thread(target=lambda: answers.append(request_status(station.path, 10.0)))
    asking.start()
    while asking.is_alive():
        for key, _ in station.selector.select(0.01):
            key.data()
    assert answers == [{"spans_stored": 7}]


def test_who_asks_and_never_reads_is_dropped(station: Station) -> None:
    with station.connect() as peer:
        peer.setblocking(False)
        asked = 0
        with suppress(BrokenPipeError):
            while peer.send(encode(StatusRequest())) and asked < 100_000:
                station.turn()
                asked += 1
        assert asked < 100_000, "its answers pile up without end"


def test_the_socket_is_for_owner_and_group(station: Station) -> None:
    assert stat.S_IMODE(station.path.stat().st_mode) == 0o660


def test_a_live_daemon_is_not_displaced(station: Station) -> None:
    with pytest.raises(InputError, match="another daemon answers there"):
        Receiver(station.path, selectors.DefaultSelector(), Book(), status, Answers())
    station.connect().close()


def test_the_socket_of_a_dead_daemon_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(os.fspath(path))
        dead.listen()
    assert path.exists()
    station = Station(path)
    station.connect().close()
    station.close()
    assert not path.exists()


def test_closing_leaves_a_successors_socket_alone(tmp_path: Path) -> None:
    first = Station(tmp_path / "s.sock")
    first.path.unlink()
    second = Station(first.path)
    first.close()
    second.connect().close()
    second.close()


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(InputError, match="file of another kind"):
        Receiver(path, selectors.DefaultSelector(), Book(), status, Answers())
    assert path.read_text() == "data"


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    selector = selectors.DefaultSelector()
    with pytest.raises(InputError, match="at most 107 bytes"):
        Receiver(tmp_path / ("x" * 108), selector, Book(), status, Answers())
    with pytest.raises(InputError, match=r"no socket can be made there \(No such file or directory\)"):
        Receiver(tmp_path / "none" / "s", selector, Book(), status, Answers())


def test_times_by_another_clock_are_brought_to_ours(station: Station) -> None:
    with station.connect() as peer:
        peer.send(encode(SenderClock(boot_id(), -(10**12), 10**12)))
        peer.send(encode(Begin("a", 10**12 + 1)))
        peer.send(encode(span(start_ns=10**12 + 1, first_token_ns=10**12 + 2, end_ns=10**12 + 2)))
        station.turn()
        assert station.book.heard == [("begin", "a", 1), span(first_token_ns=2)]


def test_a_peer_whose_clock_cannot_be_brought_to_ours_is_sent_away_with_the_reason(station: Station) -> None:
    with station.connect() as peer:
        peer.send(encode(SenderClock(boot_id(), -(10**12))))
        peer.send(encode(Begin("a", 1)))
        station.turn()
        assert station.book.rejected == {"other_clock": 1}
        ((_, said),) = station.book.heard
        assert "-1000.000 s from ours" in said
        with pytest.raises(ConnectionError):
            peer.send(b"{}", socket.MSG_NOSIGNAL)


def test_who_asks_what_came_of_a_span_is_told_once_it_is_measured(
    station: Station, make_measurement: Callable[..., Measurement]
) -> None:
    measured = make_measurement(uid=os.getuid())
    request = encode(MeasurementRequest(measured.span.span_id, 60_000))
    with station.connect() as early, station.connect() as late:
        early.send(request)
        station.turn()
        early.setblocking(False)
        with pytest.raises(BlockingIOError):
            early.recv(MAX_PACKET_BYTES)
        station.answers.measured(make_measurement(uid=os.getuid() + 1, gpu_energy_j=7.0))
        station.answers.measured(measured)
        late.send(request)
        station.turn()
        for peer in (early, late):
            assert decode_measurement(peer.recv(MAX_PACKET_BYTES), measured.span) == measured


def test_who_does_not_read_the_answers_is_dropped(
    station: Station, make_measurement: Callable[..., Measurement]
) -> None:
    station.answers.measured(make_measurement(uid=os.getuid(), system="x" * 50_000))
    with station.connect() as peer:
        for _ in range(100):
            with suppress(BlockingIOError, BrokenPipeError):
                peer.send(encode(MeasurementRequest("span-0", 0)), socket.MSG_DONTWAIT)
            station.turn()
        with pytest.raises(BrokenPipeError):
            peer.send(encode(Cancel("a")), socket.MSG_NOSIGNAL)
    station.turn()
    assert station.book.heard == []


def test_an_answer_to_one_that_is_gone_disturbs_nobody(
    station: Station, make_measurement: Callable[..., Measurement]
) -> None:
    with station.connect() as peer:
        peer.send(encode(MeasurementRequest("span-0", 60_000)))
        station.turn()
    station.answers.measured(make_measurement(uid=os.getuid()))
    station.turn()
    assert station.book.heard == []
