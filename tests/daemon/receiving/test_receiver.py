from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from receiver_station import Station, span

from llmpower.daemon.receiving.receiver import MAX_OPEN_SPANS, MAX_PEERS_OF_USER, PACKETS_A_STEP_OF_USER
from llmpower.spans.client import SpanClient
from llmpower.spans.packets import MAX_PACKET_BYTES
from llmpower.spans.wire import Begin, Cancel, encode
from llmpower.types import Span


def test_messages_arrive_in_order(socket_station: Station) -> None:
    client = SpanClient(socket_station.path)
    client.begin("a", 1)
    client.finish(span("a"))
    client.begin("b", 9)
    client.cancel("b")
    socket_station.turn()
    assert socket_station.book.heard == [("begin", "a", 1), span("a"), ("begin", "b", 9), ("cancel", "b")]
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
def test_a_packet_that_is_no_message_is_counted_and_told_of_and_the_next_one_served(
    packet: bytes, reason: str, socket_station: Station
) -> None:
    with socket_station.connect() as peer:
        peer.send(packet)
        peer.send(encode(Begin("a", 1)))
        socket_station.turn()
        assert socket_station.book.rejected == {reason: 1}
        assert socket_station.book.heard == [("begin", "a", 1)]
        (failure,) = socket_station.book.failed
        assert failure.startswith(f"spans of user {os.getuid()} are refused as {reason}: ")


@given(packets=st.lists(st.binary(min_size=1, max_size=200), max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_bytes_bring_it_down(packets: list[bytes]) -> None:
    path = Path(f"/tmp/llmpower-test-{os.getpid()}.sock")
    socket_station = Station(path)
    with socket_station.connect() as peer:
        for packet in packets:
            peer.send(packet)
        peer.send(encode(Cancel("nothing")))
        socket_station.turn()
        assert socket_station.book.rejected.total() == len(packets)
        assert socket_station.book.heard == []
    socket_station.close()


def test_what_a_peer_had_open_is_given_up_however_long_it_takes_to_read_what_it_left(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
    while ready := socket_station.selector.select(0):
        for key, _ in ready:
            key.data()
    for _ in range(3):
        socket_station.receiver.resume()
        socket_station.receiver.release(lambda _: False)
    assert socket_station.book.heard == [("begin", "a", 1)]
    socket_station.receiver.release(lambda _: True)
    assert socket_station.book.heard == [("begin", "a", 1), ("cancel", "a")]


def test_an_empty_packet_ends_that_peer_alone(socket_station: Station) -> None:
    with socket_station.connect() as first, socket_station.connect() as second:
        first.send(b"")
        socket_station.turn()
        with pytest.raises(BrokenPipeError):
            first.send(b"{}")
        second.send(encode(Begin("b", 1)))
        socket_station.turn()
        assert socket_station.book.heard == [("begin", "b", 1)]


def test_a_peer_that_goes_takes_what_it_had_open(socket_station: Station) -> None:
    with socket_station.connect() as staying:
        staying.send(encode(Begin("kept", 1)))
        with socket_station.connect() as leaving:
            for span_id in ("finished", "open", "cancelled"):
                leaving.send(encode(Begin(span_id, 1)))
            leaving.send(encode(span("finished")))
            leaving.send(encode(Cancel("cancelled")))
        socket_station.turn()
        assert [entry for entry in socket_station.book.heard if isinstance(entry, tuple) and entry[0] == "cancel"] == [
            ("cancel", "cancelled"),
            ("cancel", "open"),
        ]


def test_a_peer_cannot_cancel_what_another_began(socket_station: Station) -> None:
    with socket_station.connect() as owner, socket_station.connect() as other:
        owner.send(encode(Begin("a", 1)))
        socket_station.turn()
        other.send(encode(Cancel("a")))
        socket_station.turn()
        assert socket_station.book.heard == [("begin", "a", 1)]


def test_a_begin_that_was_refused_is_not_cancelled_later(socket_station: Station) -> None:
    socket_station.book.opens = False
    with socket_station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
    socket_station.turn()
    assert socket_station.book.heard == [("begin", "a", 1)]


def test_one_peer_opens_so_many_spans_and_no_more(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        for number in range(MAX_OPEN_SPANS + 10):
            peer.send(encode(Begin(str(number), 1)))
            socket_station.turn()
        assert socket_station.book.rejected == {"too_many_open": 10}
        assert len(socket_station.book.heard) == MAX_OPEN_SPANS
        peer.send(encode(Cancel("0")))
        peer.send(encode(Begin("again", 1)))
        socket_station.turn()
        assert socket_station.book.heard[-1] == ("begin", "again", 1)


def test_a_flood_waits_in_its_own_buffer_while_others_are_served(socket_station: Station) -> None:
    with socket_station.connect() as flood, socket_station.connect() as quiet:
        socket_station.turn()
        flood.setblocking(False)
        sent = 0
        with suppress(BlockingIOError):
            while flood.send(encode(Begin(f"flood-{sent}", 1))):
                sent += 1
        quiet.send(encode(Begin("quiet", 1)))
        for key, _ in socket_station.selector.select(0):
            key.data()
        heard = len(socket_station.book.heard)
        assert ("begin", "quiet", 1) in socket_station.book.heard
        assert heard < sent, "one turn emptied the flood: it would have held up everyone"
        socket_station.turn()
        assert len(socket_station.book.heard) == sent + 1


def test_too_many_peers_of_a_user_are_turned_away_and_those_there_stay(socket_station: Station) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * MAX_PEERS_OF_USER)), hard))
    peers = []
    for _ in range(MAX_PEERS_OF_USER + 3):
        peers.append(socket_station.connect())
        socket_station.turn()
    assert socket_station.book.rejected == {"too_many_peers": 3}
    assert peers[-1].recv(10) == b""
    peers[0].send(encode(Begin("a", 1)))
    peers[1].close()
    socket_station.turn()
    peers.append(socket_station.connect())
    peers[-1].send(encode(Begin("b", 1)))
    socket_station.turn()
    assert socket_station.book.heard == [("begin", "a", 1), ("begin", "b", 1)]
    for peer in peers:
        peer.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_who_floods_waits_for_the_next_step_and_loses_nothing(socket_station: Station) -> None:
    with socket_station.connect() as flood:
        flood.settimeout(10)
        socket_station.turn()

        def send() -> None:
            for number in range(PACKETS_A_STEP_OF_USER + 500):
                flood.send(encode(Cancel(str(number))))
            flood.send(encode(Begin("last", 1)))

        sending = Thread(target=send)
        sending.start()
        served = 0
        while not socket_station.receiver.is_behind(os.getuid()):
            for key, _ in socket_station.selector.select(1.0):
                key.data()
                served += 1
        assert not socket_station.book.heard
        assert not socket_station.selector.select(0), "a peer that waits wakes nobody"
        while sending.is_alive():
            socket_station.turn()
        socket_station.turn()
        assert not socket_station.receiver.is_behind(os.getuid())
        assert socket_station.book.heard == [("begin", "last", 1)]


def test_a_span_that_ended_by_another_way_is_not_cancelled_with_its_peer(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
        peer.send(encode(Begin("b", 1)))
        socket_station.turn()
    while ready := socket_station.selector.select(0):
        for key, _ in ready:
            key.data()
    socket_station.receiver.resume()
    socket_station.receiver.release(lambda _: False)
    assert ("cancel", "b") not in socket_station.book.heard, "it may have ended, in what is not read yet"
    socket_station.receiver.ended(span("a"))
    socket_station.receiver.release(lambda _: True)
    assert socket_station.book.heard[2:] == [("cancel", "b")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_span_is_its_senders_by_the_kernels_word(socket_station: Station) -> None:
    socket_station.path.chmod(0o666)
    for directory in (socket_station.path.parent, *socket_station.path.parent.parents[:2]):
        directory.chmod(0o755)
    with socket_station.connect() as root:
        packet = encode(span("a")).replace(b'"type":"span"', b'"type":"span","uid":0')
        os.seteuid(65534)
        try:
            nobody = socket_station.connect()
        finally:
            os.seteuid(0)
        nobody.send(packet)
        root.send(packet)
        socket_station.turn()
        assert {heard.uid for heard in socket_station.book.heard if isinstance(heard, Span)} == {0, 65534}
        nobody.close()


def test_out_of_descriptors_it_rests_and_resumes(socket_station: Station) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket_station.connect() as peer:
        peer.send(encode(Begin("a", 1)))
        lowest_free = os.dup(0)
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            socket_station.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert socket_station.book.rejected == {"no_descriptors": 1}
        socket_station.receiver.resume()
        socket_station.turn()
        assert socket_station.book.heard == [("begin", "a", 1)]
