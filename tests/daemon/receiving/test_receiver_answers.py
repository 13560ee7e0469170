"""What peers are answered: the daemon's status, what came of a span, and why a clock is refused."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from receiver_station import Station, span

from llmpower.spans.clocks import boot_id
from llmpower.spans.daemon_socket import request_status
from llmpower.spans.packets import MAX_PACKET_BYTES
from llmpower.spans.replies import decode_measurement, decode_status
from llmpower.spans.wire import Begin, Cancel, MeasurementRequest, SenderClock, StatusRequest, encode
from llmpower.types import Measurement


def test_an_answer_that_fits_in_no_packet_ends_that_connection_and_nothing_else(tmp_path: Path) -> None:
    socket_station = Station(tmp_path / "s.sock", lambda: {"name": "x" * MAX_PACKET_BYTES})
    with socket_station.connect() as asking, socket_station.connect() as other:
        asking.send(encode(StatusRequest()))
        other.send(encode(Begin("a", 1)))
        socket_station.turn()
        assert asking.recv(1) == b""
    assert ("begin", "a", 1) in socket_station.book.heard
    (failure,) = socket_station.book.failed
    assert failure.startswith("a request cannot be answered: ")
    socket_station.close()


def test_status_is_answered_on_the_same_connection(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        peer.send(encode(StatusRequest()))
        socket_station.turn()
        assert decode_status(peer.recv(MAX_PACKET_BYTES)) == {"spans_stored": 7}


def test_the_clients_own_question_is_answered(socket_station: Station) -> None:
    answers: list[dict[str, Any]] = []
    asking = Thread(target=lambda: answers.append(request_status(socket_station.path, 10.0)))
    asking.start()
    while asking.is_alive():
        for key, _ in socket_station.selector.select(0.01):
            key.data()
    assert answers == [{"spans_stored": 7}]


def test_who_asks_and_never_reads_is_dropped(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        peer.setblocking(False)
        asked = 0
        with suppress(BrokenPipeError):
            while peer.send(encode(StatusRequest())) and asked < 100_000:
                socket_station.turn()
                asked += 1
        assert asked < 100_000, "its answers pile up without end"


def test_times_by_another_clock_are_brought_to_ours(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        peer.send(encode(SenderClock(boot_id(), -(10**12), 10**12)))
        peer.send(encode(Begin("a", 10**12 + 1)))
        peer.send(encode(span(start_ns=10**12 + 1, first_token_ns=10**12 + 2, end_ns=10**12 + 2)))
        socket_station.turn()
        assert socket_station.book.heard == [("begin", "a", 1), span(first_token_ns=2)]


def test_a_peer_whose_clock_cannot_be_brought_to_ours_is_sent_away_with_the_reason(socket_station: Station) -> None:
    with socket_station.connect() as peer:
        peer.send(encode(SenderClock(boot_id(), -(10**12))))
        peer.send(encode(Begin("a", 1)))
        socket_station.turn()
        assert socket_station.book.rejected == {"other_clock": 1}
        (said,) = socket_station.book.failed
        assert "-1000.000 s from ours" in said
        with pytest.raises(ConnectionError):
            peer.send(b"{}", socket.MSG_NOSIGNAL)


def test_who_asks_what_came_of_a_span_is_told_once_it_is_measured(
    socket_station: Station, make_measurement: Callable[..., Measurement]
) -> None:
    measured = make_measurement(uid=os.getuid())
    request = encode(MeasurementRequest(measured.span.span_id, 60_000))
    with socket_station.connect() as early, socket_station.connect() as late:
        early.send(request)
        socket_station.turn()
        early.setblocking(False)
        with pytest.raises(BlockingIOError):
            early.recv(MAX_PACKET_BYTES)
        socket_station.answers.measured(make_measurement(uid=os.getuid() + 1, gpu_energy_j=7.0))
        socket_station.answers.measured(measured)
        late.send(request)
        socket_station.turn()
        for peer in (early, late):
            assert decode_measurement(peer.recv(MAX_PACKET_BYTES), measured.span) == measured


def test_who_does_not_read_the_answers_is_dropped(
    socket_station: Station, make_measurement: Callable[..., Measurement]
) -> None:
    socket_station.answers.measured(make_measurement(uid=os.getuid(), system="x" * 50_000))
    with socket_station.connect() as peer:
        for _ in range(100):
            with suppress(BlockingIOError, BrokenPipeError):
                peer.send(encode(MeasurementRequest("span-0", 0)), socket.MSG_DONTWAIT)
            socket_station.turn()
        with pytest.raises(BrokenPipeError):
            peer.send(encode(Cancel("a")), socket.MSG_NOSIGNAL)
    socket_station.turn()
    assert socket_station.book.heard == []


def test_an_answer_to_one_that_is_gone_disturbs_nobody(
    socket_station: Station, make_measurement: Callable[..., Measurement]
) -> None:
    with socket_station.connect() as peer:
        peer.send(encode(MeasurementRequest("span-0", 60_000)))
        socket_station.turn()
    socket_station.answers.measured(make_measurement(uid=os.getuid()))
    socket_station.turn()
    assert socket_station.book.heard == []
