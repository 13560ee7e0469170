"""``POST /v1/traces`` over HTTP, on threads of its own: OTLP/HTTP in protobuf, as the specification has it.

Whoever reaches the port can send bytes, and none of it may cost the loop's time: each connection has its thread and its
deadline (:mod:`llmpower.serving`), a body its bound, before and after it is unpacked, and one body at a time is
unpacked and decoded. A request that cannot be taken is answered before it is closed, since a sender that is cut off
does not learn why.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import Any

from llmpower import __version__
from llmpower.daemon.clock import WallClock
from llmpower.daemon.config import OTLP_LISTEN_ADDRESS, Config
from llmpower.daemon.otlp.senders import Senders
from llmpower.daemon.otlp.servers import Servers
from llmpower.daemon.otlp.spans import RETRY_S, Answer, OtlpReceiver
from llmpower.exceptions import InputError, LlmpowerError
from llmpower.serving import PEER_TIMEOUT_S, HttpServer, is_loopback, shown_address
from llmpower.spans.spool import spool_directory

OPTION = "--otlp.listen-address"
PATH = "/v1/traces"
CONTENT_TYPE = "application/x-protobuf"
MAX_CONNECTIONS = 16
"""Served at a time. A sender makes one every few seconds, for some milliseconds."""

CONNECTION_TIMEOUT_S = 30.0
MAX_BODY_BYTES = 8 << 20
"""As it is sent."""

MAX_UNPACKED_BYTES = 16 << 20
_MAX_CHUNK_LINE_BYTES = 1024
_MAX_CHUNKS = 65_536
_READ_BYTES = 64 << 10
_FAREWELL_S = 1.0

# The codes of gRPC that stand for those of HTTP in a google.rpc.Status.
_GRPC_CODES = {403: 7, 404: 5, 405: 12, 408: 4, 413: 8, 431: 8, 501: 12, 503: 14}
_INVALID_ARGUMENT = 3

logger = logging.getLogger("llmpower.daemon")


class OtlpServer(HttpServer):
    """Hands what is posted to ``receiver``, from :meth:`start` until :meth:`close`; port 0 takes any free one.

    Raises:
        InputError: the address is in use, forbidden, or not of this machine.
    """

    def __init__(
        self,
        host: str,
        port: int,
        receiver: OtlpReceiver,
        senders: Senders,
        *,
        connection_timeout_s: float = CONNECTION_TIMEOUT_S,
    ) -> None:
        self.receiver = receiver
        self.unpacking = Lock()
        self._senders = senders
        super().__init__(
            host, port, option=OPTION, max_connections=MAX_CONNECTIONS, connection_timeout_s=connection_timeout_s
        )

    @property
    def url(self) -> str:
        """Where spans are taken."""
        return f"http://{shown_address(self.host, self.port)}{PATH}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve who may send; tell anybody else why not."""
        sender = self._senders.look_at(request)
        if sender.refusal is not None:
            # Before a byte is read: an outsider must not keep a thread that others wait for.
            self._tell(request, _error(403, sender.refusal))
            _drain(request)
            return
        _Handler(request, client_address, self, sender.uid)

    def refuse(self, request: socket.socket) -> None:
        """Have who is one too many come again, as far as that can be said at once."""
        with contextlib.suppress(OSError):
            request.setblocking(False)
            self._tell(request, _error(503, "too many connections; send again", RETRY_S))
            request.recv(_READ_BYTES)

    def _tell(self, connection: socket.socket, answer: Answer) -> None:
        self.receiver.count(answer.status)
        connection.sendall(_response(answer))


@contextlib.contextmanager
def receiving(config: Config, clock: WallClock, servers: Servers) -> Iterator[OtlpServer | None]:
    """Take spans while the block lasts, if anywhere; a default address that is taken is no reason not to start.

    ``servers`` says on which GPUs those compute that do not say so themselves.

    Raises:
        InputError: an address that was asked for is in use, forbidden, or not of this machine.
    """
    otlp = config.otlp
    if otlp.listen_address is None:
        yield None
        return
    receiver = OtlpReceiver(
        spool_directory(config.socket),
        clock,
        hold_s=otlp.hold_s,
        default_model_name=otlp.model_name,
        count_calls=otlp.count_calls,
        servers=servers,
    )
    try:
        server = OtlpServer(*otlp.listen_address, receiver, Senders(config.socket, anyone=otlp.any_user))
    except InputError as error:
        if shown_address(*otlp.listen_address) != OTLP_LISTEN_ADDRESS:
            raise
        logger.warning("spans of OpenTelemetry are not taken: %s", error)
        yield None
        return
    if not is_loopback(server.host):
        logger.warning("whoever reaches %s may send spans, and so take joules from others' requests", server.url)
    server.start()
    try:
        yield server
    finally:
        server.close()
        receiver.close()


class _RefusedError(LlmpowerError):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class _Handler(BaseHTTPRequestHandler):
    timeout = PEER_TIMEOUT_S
    protocol_version = "HTTP/1.1"  # who waits for "100 Continue" is told so
    server: OtlpServer

    def __init__(self, request: Any, client_address: Any, server: OtlpServer, uid: int | None) -> None:
        self._uid = uid
        super().__init__(request, client_address, server)  # which serves

    def do_POST(self) -> None:
        try:
            self._check()
            body = self._read_body()
        except _RefusedError as error:
            self._answer(_error(error.status, str(error)))
            _drain(self.connection)
            return
        with self.server.unpacking:
            try:
                body = self._unpack(body)
            except _RefusedError as error:
                answer = _error(error.status, str(error))
            else:
                answer = self.server.receiver.take(body, self._uid)
        self._answer(answer)

    def _not_allowed(self) -> None:
        self._answer(_error(405, f"spans are posted to {PATH}"), Allow="POST")
        _drain(self.connection)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = _not_allowed  # noqa: N815 (http.server's names)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the standard library could not read."""
        reason = message or explain or HTTPStatus(code).phrase
        self._answer(_error(code, reason))
        _drain(self.connection)

    def log_message(self, *_: object) -> None:
        """Log nothing: what comes in is counted."""

    def _check(self) -> None:
        if self.path.partition("?")[0] != PATH:
            raise _RefusedError(404, f"there is only {PATH} here; metrics and logs are not taken")
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != CONTENT_TYPE:
            advice = f"send {CONTENT_TYPE} (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf)"
            raise _RefusedError(415, f"Content-Type {ascii(kind)[:80]} is not taken; {advice}")
        if self._coding() not in ("identity", "gzip"):
            raise _RefusedError(415, f"Content-Encoding {ascii(self._coding())[:80]} is not taken; use gzip or none")

    def _coding(self) -> str:
        return self.headers.get("Content-Encoding", "identity").strip().lower()

    def _read_body(self) -> bytes:
        lengths, codings = self.headers.get_all("Content-Length", []), self.headers.get_all("Transfer-Encoding", [])
        try:
            if codings:
                if lengths or [coding.strip().lower() for coding in codings] != ["chunked"]:
                    raise _RefusedError(400, "a body is either of a Content-Length or chunked, and nothing else")
                return self._read_chunks()
            if not lengths:
                raise _RefusedError(411, "say how long the body is: Content-Length")
            if len(set(lengths)) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()) or len(lengths[0]) > 18:
                raise _RefusedError(400, f"Content-Length {ascii(lengths[0])[:80]} is not a length")
            return self._read_exactly(int(lengths[0]), 0)
        except TimeoutError:
            raise _RefusedError(408, f"nothing came for {self.timeout:g} s") from None

    def _read_chunks(self) -> bytes:
        body = bytearray()
        for _ in range(_MAX_CHUNKS):
            line = self.rfile.readline(_MAX_CHUNK_LINE_BYTES)
            digits = line.partition(b";")[0].strip()
            # int() would take "0x1_0" and blanks too.
            if not line.endswith(b"\n") or not digits or digits.strip(b"0123456789abcdefABCDEF") or len(digits) > 16:
                raise _RefusedError(400, "a chunk does not begin with its length")
            size = int(digits, 16)
            if size == 0:
                while self.rfile.readline(_MAX_CHUNK_LINE_BYTES) not in (b"\r\n", b"\n", b""):
                    pass  # trailers, which say nothing here
                return bytes(body)
            body += self._read_exactly(size, len(body))
            if self.rfile.readline(3) not in (b"\r\n", b"\n"):
                raise _RefusedError(400, "a chunk is longer than its length")
        raise _RefusedError(413, f"up to {_MAX_CHUNKS} chunks are taken; send larger ones")

    def _read_exactly(self, size: int, before: int) -> bytes:
        if before + size > MAX_BODY_BYTES:
            raise _RefusedError(413, f"up to {MAX_BODY_BYTES} bytes are taken; send smaller batches")
        body = self.rfile.read(size)
        if len(body) < size:
            raise _RefusedError(400, f"the body ended after {before + len(body)} bytes")
        return body

    def _unpack(self, body: bytes) -> bytes:
        if self._coding() == "identity":
            return body
        unpacker = zlib.decompressobj(wbits=31)
        try:
            unpacked = unpacker.decompress(body, MAX_UNPACKED_BYTES + 1)
        except zlib.error as error:
            raise _RefusedError(400, f"the body is not in gzip: {error}") from error
        if len(unpacked) > MAX_UNPACKED_BYTES:
            raise _RefusedError(413, f"up to {MAX_UNPACKED_BYTES} bytes are unpacked; send smaller batches")
        if not unpacker.eof or unpacker.unused_data:
            raise _RefusedError(400, "the body is not one whole gzip")
        return unpacked

    def _answer(self, answer: Answer, **headers: str) -> None:
        self.close_connection = True
        self.server.receiver.count(answer.status)
        self.wfile.write(_response(answer, **headers))


def _error(status: int, message: str, retry_after_s: int | None = None) -> Answer:
    from llmpower.spans.otlp.wire import encode_error

    return Answer(status, encode_error(_GRPC_CODES.get(status, _INVALID_ARGUMENT), message), retry_after_s)


def _response(answer: Answer, **headers: str) -> bytes:
    if answer.retry_after_s is not None:
        headers["Retry-After"] = str(answer.retry_after_s)
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Server: llmpower/{__version__}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(answer.body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join((*lines, "", "")).encode("ascii") + answer.body


def _drain(connection: socket.socket) -> None:
    """Take what still comes, for a moment: closing before would take the answer away from who has not read it yet."""
    deadline_s = time.monotonic() + _FAREWELL_S
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
        while (left_s := deadline_s - time.monotonic()) > 0:
            connection.settimeout(left_s)
            if not connection.recv(_READ_BYTES):
                return
