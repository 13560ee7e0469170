"""``/metrics`` over HTTP or HTTPS, on threads of its own.

Who asks for OpenMetrics gets it, others the older text format, compressed on request. Each connection has its thread,
in which TLS is negotiated too, and a deadline; there are :data:`MAX_CONNECTIONS` of them at most. So a peer that says
nothing, or one letter at a time, holds up nobody.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry

from llmpower import __version__
from llmpower.exceptions import InputError
from llmpower.metrics.exposition import OPENMETRICS, TEXT, render
from llmpower.metrics.passwords import Passwords
from llmpower.metrics.reloading import ReloadingWebConfig
from llmpower.metrics.web_config import WebConfig

if TYPE_CHECKING:
    from types import TracebackType

OPTION = "--web.listen-address"
MAX_CONNECTIONS = 32
"""Connections served at a time; a scraper needs one. What comes beyond is closed."""

_PEER_TIMEOUT_S = 10.0
_FAREWELL_S = 1.0
_PLAIN = "text/plain; charset=utf-8"
_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>llmpower</title></head>
<body><h1>llmpower {escape(__version__)}</h1><p><a href="metrics">Metrics</a></p></body></html>
"""

logger = logging.getLogger("llmpower.metrics")


class MetricsServer:
    """Serves ``registry`` on ``host:port`` from construction until :meth:`close`; port 0 takes any free one.

    Args:
        host: an address or name of this machine.
        port: where to listen.
        registry: what is served.
        web_config_file: TLS and passwords, see :mod:`~llmpower.metrics.web_config`; followed when it changes.
        on_error: takes a sentence on what is wrong with that file later.
        connection_timeout_s: what a connection may take in all; Prometheus gives up after 10 s.

    Raises:
        InputError: the address is in use, forbidden, or not of this machine, or the file cannot be used.
    """

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        web_config_file: Path | None = None,
        on_error: Callable[[str], None] = logger.error,
        connection_timeout_s: float = 30.0,
    ) -> None:
        self._web = ReloadingWebConfig(web_config_file, on_error)
        self._scheme = "http" if self._web.current().tls is None else "https"
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            server = _Server6 if family == socket.AF_INET6 else _Server
            self._server = server((str(address[0]), port), registry, self._web, connection_timeout_s)
        except OSError as error:
            raise InputError(OPTION, _address(host, port), _advice(error)) from error
        self.host = str(self._server.server_address[0])
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="llmpower-metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where scrapes are answered."""
        return f"{self._scheme}://{_address(self.host, self.port)}/metrics"

    @property
    def open_to_all(self) -> bool:
        """Whether other machines may be answered without showing a password or a certificate."""
        web = self._web.current()
        asks = bool(web.users) or (web.tls is not None and web.tls.verify_mode == ssl.CERT_REQUIRED)
        return not asks and not ip_address(self.host.partition("%")[0]).is_loopback

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    timeout = _PEER_TIMEOUT_S
    server_version = f"llmpower/{__version__}"
    sys_version = ""  # which Python this is, is nobody's business
    server: _Server

    def __init__(self, request: Any, client_address: Any, server: _Server, web: WebConfig) -> None:
        self.web = web
        super().__init__(request, client_address, server)  # which serves

    def do_GET(self) -> None:
        users = self.web.users
        if users and not self.server.passwords.accept(self.headers.get("Authorization"), users):
            # Who asked, and with what, is not logged: a mistyped password is nearly a password.
            self._send(401, _PLAIN, b"Unauthorized\n", WWW_Authenticate='Basic realm="llmpower"')
            return
        try:
            asked = urlsplit(self.path)
        except ValueError:  # such as http://[
            self._send(400, _PLAIN, b"That is no path.\n")
            return
        match asked.path:
            case "/metrics":
                self._send_metrics(parse_qs(asked.query).get("name[]"))
            case "/":
                self._send(200, "text/html; charset=utf-8", _PAGE.encode())
            case _:
                self._send(404, _PLAIN, b"There is only /metrics here.\n")

    def log_message(self, *_: object) -> None:
        """Log nothing: scrapes come every few seconds, and headers hold passwords."""

    def _send_metrics(self, names: list[str] | None) -> None:
        registry = self.server.registry
        openmetrics = "application/openmetrics-text" in self.headers.get("Accept", "")
        families = (registry if names is None else registry.restricted_registry(names)).collect()
        body = render(families, openmetrics)
        coding = {}
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            # The highest level takes longer than all the rest of the scrape, for a quarter fewer bytes.
            body, coding = gzip.compress(body, 1), {"Content-Encoding": "gzip"}
        self._send(200, OPENMETRICS if openmetrics else TEXT, body, **coding)

    def end_headers(self) -> None:
        for name, value in self.web.headers.items():
            self.send_header(name, value)
        super().end_headers()

    def _send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    deadline_s: float


class _Server(ThreadingHTTPServer):
    # A thread that still waits for a slow peer must not hold up the daemon's end.
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        registry: CollectorRegistry,
        web: ReloadingWebConfig,
        connection_timeout_s: float,
    ) -> None:
        self.registry = registry
        self._web = web
        self._connection_timeout_s = connection_timeout_s
        self._connections: dict[socket.socket, _Connection] = {}
        self.passwords = Passwords()
        super().__init__(address, BaseRequestHandler)  # finish_request makes the handlers

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for this machine's name here, which can take seconds and serves nothing.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._connections[request] = _Connection(request, time.monotonic() + self._connection_timeout_s)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        web = self._web.current()
        request.settimeout(_PEER_TIMEOUT_S)
        connection = request if web.tls is None else self._secure(request, web.tls, web.client_sans)
        _Handler(connection, client_address, self, web)

    def _secure(self, request: Any, tls: ssl.SSLContext, client_sans: frozenset[str]) -> ssl.SSLSocket:
        secured = tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        self._connections[request].socket = secured
        secured.do_handshake()
        certificate = secured.getpeercert()
        if client_sans and certificate and client_sans.isdisjoint(_alternative_names(certificate)):
            raise ssl.SSLError("the client's certificate is for none of client_allowed_sans")
        return secured

    def shutdown_request(self, request: Any) -> None:
        connection = self._connections.pop(request, None)
        ending = request if connection is None else connection.socket
        if isinstance(ending, ssl.SSLSocket):
            # TLS has an end of its own; a bare end of the connection could be a truncation by anybody.
            with contextlib.suppress(OSError, ValueError):
                ending.settimeout(_FAREWELL_S)
                ending.unwrap()
        super().shutdown_request(ending)

    def service_actions(self) -> None:
        # Twice a second. A peer's timeout begins anew with every byte; this one does not.
        now_s = time.monotonic()
        for connection in list(self._connections.values()):
            if now_s > connection.deadline_s:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection.socket, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A peer that went away or fell silent is its own affair; anything else is ours, and is shown.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


def _alternative_names(certificate: Mapping[str, Any]) -> Iterator[str]:
    return (value for _, value in certificate.get("subjectAltName", ()))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advice(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this host name is not known; give an address of this machine, such as 127.0.0.1:10450"
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there; stop it, or give another port"
        case errno.EACCES:
            return "no permission to listen there; give a port above 1023"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; give one that it has, or 0.0.0.0 for all"
        case _:
            return f"cannot listen there ({error.strerror}); give another address"
