"""``/metrics`` over HTTP, on threads of its own.

prometheus_client's handler speaks the text and the OpenMetrics format and compresses on request; this adds a place to
stand. Each connection has its thread and a deadline, so a peer that says nothing holds up nobody.
"""

from __future__ import annotations

import errno
import socket
import sys
from html import escape
from http.server import ThreadingHTTPServer
from socketserver import TCPServer
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from llmpower import __version__
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from types import TracebackType

OPTION = "--web.listen-address"
_PEER_TIMEOUT_S = 10.0
_PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>llmpower</title></head>
<body><h1>llmpower {escape(__version__)}</h1><p><a href="metrics">Metrics</a></p></body></html>
"""


class MetricsServer:
    """Serves ``registry`` on ``host:port`` from construction until :meth:`close`; port 0 takes any free one.

    Raises:
        InputError: the address is in use, forbidden, or not of this machine.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            server = _Server6 if family == socket.AF_INET6 else _Server
            self._server = server((str(address[0]), port), _Handler.factory(registry))
        except OSError as error:
            raise InputError(OPTION, _address(host, port), _advice(error)) from error
        self.host = str(self._server.server_address[0])
        self.port: int = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, name="llmpower-metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where scrapes are answered."""
        return f"http://{_address(self.host, self.port)}/metrics"

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


class _Handler(MetricsHandler):
    timeout = _PEER_TIMEOUT_S

    def do_GET(self) -> None:  # noqa: N802 (http.server's name)
        match urlsplit(self.path).path:
            case "/metrics":
                super().do_GET()
            case "/":
                self._send(200, "text/html", _PAGE)
            case _:
                self._send(404, "text/plain", "There is only /metrics here.\n")

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    # A thread that still waits for a slow peer must not hold up the daemon's end.
    daemon_threads = True
    block_on_close = False

    def server_bind(self) -> None:
        # HTTPServer asks the resolver for this machine's name here, which can take seconds and serves nothing.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A peer that went away or fell silent is its own affair; anything else is ours, and is shown.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Server6(_Server):
    address_family = socket.AF_INET6


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
