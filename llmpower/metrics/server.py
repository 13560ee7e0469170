"""``/metrics`` over HTTP or HTTPS, on threads of its own.

Who asks for OpenMetrics gets it, others the older text format, compressed on request. Each connection has its thread,
in which TLS is negotiated too, and its deadline (:mod:`llmpower.serving`), so that no peer holds up another.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from html import escape
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry

from llmpower import __version__
from llmpower.metrics.exposition import OPENMETRICS, TEXT, render
from llmpower.metrics.passwords import Passwords
from llmpower.metrics.reloading import ReloadingWebConfig
from llmpower.metrics.web_config import WebConfig
from llmpower.serving import PEER_TIMEOUT_S, HttpServer, is_loopback, shown_address

if TYPE_CHECKING:
    from types import TracebackType

OPTION = "--web.listen-address"
MAX_CONNECTIONS = 32
"""Connections served at a time; a scraper needs one. What comes beyond is closed."""

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
        self._server = _Server(host, port, registry, self._web, connection_timeout_s)
        self.host = self._server.host
        self.port = self._server.port
        self._server.start()

    @property
    def url(self) -> str:
        """Where scrapes are answered."""
        return f"{self._scheme}://{shown_address(self.host, self.port)}/metrics"

    @property
    def open_to_all(self) -> bool:
        """Whether other machines may be answered without showing a password or a certificate."""
        web = self._web.current()
        asks = bool(web.users) or (web.tls is not None and web.tls.verify_mode == ssl.CERT_REQUIRED)
        return not asks and not is_loopback(self.host)

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.close()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Handler(BaseHTTPRequestHandler):
    timeout = PEER_TIMEOUT_S
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
            self._send(400, _PLAIN, b"That is not a path.\n")
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


class _Server(HttpServer):
    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        web: ReloadingWebConfig,
        connection_timeout_s: float,
    ) -> None:
        self.registry = registry
        self.passwords = Passwords()
        self._web = web
        super().__init__(
            host,
            port,
            option=OPTION,
            max_connections=MAX_CONNECTIONS,
            connection_timeout_s=connection_timeout_s,
        )

    def finish_request(self, request: Any, client_address: Any) -> None:
        web = self._web.current()
        connection = request if web.tls is None else self._secure(request, web.tls, web.client_sans)
        _Handler(connection, client_address, self, web)

    def _secure(self, request: Any, tls: ssl.SSLContext, client_sans: frozenset[str]) -> ssl.SSLSocket:
        secured = tls.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        self.speak_through(secured, request)
        secured.do_handshake()
        certificate = secured.getpeercert()
        if client_sans and certificate and client_sans.isdisjoint(_alternative_names(certificate)):
            raise ssl.SSLError("the client's certificate is for none of client_allowed_sans")
        return secured

    def bid_farewell(self, connection: socket.socket) -> None:
        if isinstance(connection, ssl.SSLSocket):
            # TLS has an end of its own; a bare end of the connection could be a truncation by anybody.
            with contextlib.suppress(OSError, ValueError):
                connection.settimeout(_FAREWELL_S)
                connection.unwrap()


def _alternative_names(certificate: Mapping[str, Any]) -> Iterator[str]:
    return (value for _, value in certificate.get("subjectAltName", ()))
