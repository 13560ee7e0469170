"""A real socket, and whatever may come through it: each is answered as the protocol says, and harms nobody else."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from otlp_messages import S, a_body, a_span

from llmpower.daemon.clock import WallClock
from llmpower.daemon.otlp.endpoint import MAX_BODY_BYTES, MAX_CONNECTIONS, MAX_UNPACKED_BYTES, OtlpServer
from llmpower.daemon.otlp.senders import Senders
from llmpower.daemon.otlp.spans import OtlpReceiver
from llmpower.spans.spool import spool_directory
from llmpower.spans.wire import decode

PROTOBUF = {"Content-Type": "application/x-protobuf"}


class Desk:
    """A server on a port of its own, and what it has written."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.socket_path = directory / "s.sock"
        self.socket_path.touch(0o660)
        self.spool = spool_directory(self.socket_path)
        self.spool.mkdir(exist_ok=True)
        self.receiver = OtlpReceiver(self.spool, WallClock(), hold_s=60.0)
        senders = options.pop("senders", None) or Senders(self.socket_path)
        self.server = OtlpServer("127.0.0.1", 0, self.receiver, senders, **options)
        self.server.start()

    def post(self, body: Any, path: str = "/v1/traces", method: str = "POST", **headers: str) -> tuple[int, bytes, Any]:
        """Status, body and headers of the answer."""
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=20)
        given = PROTOBUF | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given, encode_chunked="Transfer-Encoding" in given)
        response = connection.getresponse()
        answer = response.status, response.read(), response.headers
        connection.close()
        return answer

    def send(self, data: bytes) -> bytes:
        """What comes back when these bytes are all that is said."""
        received = b""
        with self.connect() as peer, contextlib.suppress(OSError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            while part := peer.recv(65536):
                received += part
        return received

    def connect(self) -> socket.socket:
        return socket.create_connection((self.server.host, self.server.port), 20)

    def close(self) -> None:
        self.server.close()
        self.receiver.close()

    @property
    def spans(self) -> int:
        files = self.spool.iterdir()
        return sum(1 for file in files for line in file.read_bytes().splitlines()[1:] if decode(line))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.fixture(scope="module")
def open_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One for many tests, since it takes half a second to close."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    yield desk
    desk.close()


def a_good_body(count: int = 1) -> bytes:
    now_ns = time.time_ns()
    return a_body(*(a_span(now_ns - S, now_ns) for _ in range(count)))


def test_a_batch_is_accepted(desk: Desk) -> None:
    status, body, headers = desk.post(a_good_body(200))
    assert (status, body, headers["Content-Type"]) == (200, b"", "application/x-protobuf")
    assert desk.spans == 200


def test_gzip_and_chunks_are_taken(desk: Desk) -> None:
    assert desk.post(gzip.compress(a_good_body()), Content_Encoding="gzip")[0] == 200
    body = a_good_body()
    assert desk.post(iter([body[:10], body[10:]]), Transfer_Encoding="chunked")[0] == 200
    packed = gzip.compress(a_good_body())
    assert desk.post(iter([packed]), Transfer_Encoding="chunked", Content_Encoding="gzip")[0] == 200
    assert desk.spans == 3


def test_who_waits_to_be_told_to_go_on_is(desk: Desk) -> None:
    body = a_good_body()
    head = f"POST /v1/traces HTTP/1.1\r\nContent-Type: application/x-protobuf\r\nContent-Length: {len(body)}\r\n"
    with desk.connect() as peer:
        peer.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert peer.recv(100).startswith(b"HTTP/1.1 100")
        peer.sendall(body)
        assert peer.recv(1000).startswith(b"HTTP/1.1 200")
    assert desk.spans == 1


@pytest.mark.parametrize(
    ("wanted", "body", "options"),
    [
        pytest.param(400, b"garbage", {}, id="no protobuf"),
        pytest.param(400, b"\x0a\x05", {}, id="protobuf cut short"),
        pytest.param(400, b"not gzip", {"Content_Encoding": "gzip"}, id="no gzip"),
        pytest.param(400, gzip.compress(b"x" * 100)[:-9], {"Content_Encoding": "gzip"}, id="gzip cut short"),
        pytest.param(400, gzip.compress(b"") + b"more", {"Content_Encoding": "gzip"}, id="more than one gzip"),
        pytest.param(
            413, gzip.compress(bytes(MAX_UNPACKED_BYTES + 1)), {"Content_Encoding": "gzip"}, id="a byte too many"
        ),
        pytest.param(413, gzip.compress(bytes(200 << 20), 9), {"Content_Encoding": "gzip"}, id="a gzip bomb"),
        pytest.param(413, bytes(MAX_BODY_BYTES + 1), {}, id="too long a body"),
        pytest.param(413, b"\x0a\x04\x12\x02\x12\x00" * 30_000, {}, id="too many spans"),
        pytest.param(415, b"{}", {"Content_Type": "application/json"}, id="JSON"),
        pytest.param(415, b"", {"Content_Type": "text/plain"}, id="text"),
        pytest.param(415, b"", {"Content_Encoding": "br"}, id="brotli"),
        pytest.param(404, b"", {"path": "/v1/metrics"}, id="metrics"),
        pytest.param(404, b"", {"path": "/"}, id="no path"),
        pytest.param(405, None, {"method": "GET"}, id="GET"),
        pytest.param(405, b"", {"method": "PUT"}, id="PUT"),
    ],
)
def test_what_cannot_be_taken_is_answered_as_the_protocol_says(
    open_desk: Desk, wanted: int, body: bytes | None, options: dict[str, str]
) -> None:
    desk, spans, answers = open_desk, open_desk.spans, Counter(open_desk.receiver.state().answers)
    status, answer, headers = desk.post(body, **options)
    assert status == wanted
    assert headers["Content-Type"] == "application/x-protobuf"
    told = Status.FromString(answer)
    assert told.code > 0
    assert told.message
    # And what comes next is taken.
    assert desk.post(a_good_body())[0] == 200
    assert desk.spans == spans + 1
    assert Counter(desk.receiver.state().answers) - answers == {wanted: 1, 200: 1}


HEAD = b"POST /v1/traces HTTP/1.1\r\nContent-Type: application/x-protobuf\r\n"


@pytest.mark.parametrize(
    ("wanted", "request_bytes"),
    [
        (411, HEAD + b"\r\n"),
        (400, HEAD + b"Content-Length: -1\r\n\r\n"),
        (400, HEAD + b"Content-Length: 1_0\r\n\r\n"),
        (400, HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        (400, HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (400, HEAD + b"Content-Length: 50\r\n\r\nthe rest never comes"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x10\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n"),
        (400, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 2000),
        (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"),
        (413, HEAD + b"Content-Length: 999999999999\r\n\r\n"),
        (413, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 70_000),
        (200, HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nTrailer: x\r\n\r\n"),
        (200, HEAD + b"Content-Length: 0\r\n\r\n"),
        (431, HEAD + b"X: y\r\n" * 200 + b"\r\n"),
        (501, b"BREW /v1/traces HTTP/1.1\r\n\r\n"),
        (400, b"nonsense\r\n\r\n"),
    ],
)
def test_http_that_is_none_is_answered(open_desk: Desk, wanted: int, request_bytes: bytes) -> None:
    spans = open_desk.spans
    assert open_desk.send(request_bytes).startswith(f"HTTP/1.1 {wanted}".encode())
    assert open_desk.spans == spans


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"", HEAD, HEAD + b"Content-Encoding: gzip\r\n", HEAD + b"Transfer-Encoding: chunked\r\n"]),
    more=st.binary(max_size=40) | st.sampled_from([b"Content-Length: 20\r\n", b"Content-Length: 0\r\n"]),
    body=st.binary(max_size=60)
    | st.integers(0, 200).map(lambda size: a_good_body()[:size])
    | st.binary(max_size=60).map(gzip.compress)
    | st.binary(max_size=60).map(zlib.compress),
)
@example(head=b"", more=b"", body=b"")
def test_whatever_a_peer_sends_ends_in_an_answer_or_nothing_and_in_no_log(
    head: bytes, more: bytes, body: bytes, open_desk: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = open_desk.send(head + more + b"\r\n" + body)
    assert answer == b"" or answer[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ")
    assert "".join(capfd.readouterr()) == ""


def wait_for_connections(desk: Desk, count: int) -> None:
    deadline_s = time.monotonic() + 20
    while len(desk.server._connections) != count:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_peers_that_say_little_hold_up_nobody_and_are_shown_out(tmp_path: Path) -> None:
    desk = Desk(tmp_path, connection_timeout_s=8.0)
    try:
        slow = [desk.connect() for _ in range(MAX_CONNECTIONS - 1)]
        for peer in slow:
            peer.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n")
        assert desk.post(a_good_body())[0] == 200, "one place is left"
        wait_for_connections(desk, MAX_CONNECTIONS - 1)
        slow.append(desk.connect())
        wait_for_connections(desk, MAX_CONNECTIONS)
        with desk.connect() as beyond:
            assert beyond.recv(1000).startswith(b"HTTP/1.1 503")
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.1):
                for peer in slow:
                    with contextlib.suppress(OSError):
                        peer.send(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        deadline_s = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if desk.post(a_good_body())[0] == 200:
                    break
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        stop.set()
        thread.join()
        for peer in slow:
            peer.close()
        assert desk.spans == 2
    finally:
        desk.close()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_real_stranger_is_told_why_and_nothing_of_his_is_taken(desk: Desk) -> None:
    desk.socket_path.parent.chmod(0o755)
    program = f"""
import encodings.idna, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
peer = socket.create_connection(("127.0.0.1", {desk.server.port}), 20)
peer.sendall(sys.stdin.buffer.read())
while part := peer.recv(65536):
    sys.stdout.buffer.write(part)
"""
    body = a_good_body(5000)
    said = HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    ran = subprocess.run([sys.executable, "-c", program], input=said, capture_output=True, timeout=60)
    assert ran.returncode == 0, ran.stderr.decode()
    head, _, answer = ran.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403")
    assert "user nobody may not send spans to this daemon; add it to the group" in Status.FromString(answer).message
    assert desk.spans == 0
    assert desk.receiver.state().answers == {403: 1}


def test_partial_success_names_what_was_refused(desk: Desk) -> None:
    now_ns = time.time_ns()
    body = a_body(a_span(now_ns - S, now_ns), a_span(now_ns, now_ns + 3600 * S), a_span(now_ns, now_ns - S))
    status, answer, _ = desk.post(body)
    partial = ExportTraceServiceResponse.FromString(answer).partial_success
    assert (status, partial.rejected_spans) == (200, 2)
    assert "in_the_future" in partial.error_message
    assert "bad_value" in partial.error_message
    assert desk.spans == 1


def test_no_room_is_503_with_a_time_to_come_again(desk: Desk) -> None:
    desk.spool.rmdir()
    status, answer, headers = desk.post(a_good_body())
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "send again" in Status.FromString(answer).message
