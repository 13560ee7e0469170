"""An HTTP server that no peer can hold up: a thread and a deadline for each connection, and this many at most.

A peer that says nothing, or one letter at a time, costs a thread until its deadline and nobody else's time.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
import time
from http.server import ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread
from typing import Any

from llmpower.exceptions import InputError

PEER_TIMEOUT_S = 10.0
"""How long a peer may be silent. It starts over with every byte; the deadline of a connection does not."""

REST_S = 0.2
"""How long nobody is accepted when there is no descriptor for another connection."""


class HttpServer(ThreadingHTTPServer):
    """Listens on ``host:port`` from construction, and serves from :meth:`start` until :meth:`close`.

    Whoever derives from it says in ``finish_request`` what a connection is served with.

    Args:
        host: an address or name of this machine.
        port: where to listen; 0 takes any free one.
        option: whose value the address is, for the error.
        max_connections: served at a time; what comes beyond is refused.
        connection_timeout_s: what a connection may take in all.

    Raises:
        InputError: the address is in use, forbidden, or not of this machine.
    """

    # A thread that still waits for a slow peer must not hold up the daemon's end.
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, *, option: str, max_connections: int, connection_timeout_s: float) -> None:
        self._max_connections = max_connections
        self._connection_timeout_s = connection_timeout_s
        # The socket that is spoken through, which may be another than the one accepted, and until when.
        self._connections: dict[socket.socket, tuple[socket.socket, float]] = {}
        try:
            self.address_family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            super().__init__((str(address[0]), port), BaseRequestHandler)  # finish_request makes the handlers
        except OSError as error:
            raise InputError(option, shown_address(host, port), _advice(error)) from error
        self.host = str(self.server_address[0])
        self.port: int = self.server_address[1]
        self._thread = Thread(target=self.serve_forever, name=f"http-{self.port}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port; may be repeated."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        """Take the address."""
        # HTTPServer asks the resolver for this machine's name here, which can take seconds and serves nothing.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:
            # Out of descriptors: the peer stays in the queue, which would wake us without end.
            time.sleep(REST_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection its thread and its deadline, if there is room."""
        if len(self._connections) >= self._max_connections:
            self.refuse(request)
            self.shutdown_request(request)
            return
        request.settimeout(PEER_TIMEOUT_S)
        self._connections[request] = request, time.monotonic() + self._connection_timeout_s
        super().process_request(request, client_address)

    def refuse(self, request: socket.socket) -> None:
        """A connection is one too many, and is closed after this; it may be told so, without waiting for it."""

    def speak_through(self, secured: socket.socket, request: socket.socket) -> None:
        """From here on this socket stands for the one that was accepted."""
        self._connections[request] = secured, self._connections[request][1]

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        spoken_through, _ = self._connections.pop(request, (request, 0.0))
        self.bid_farewell(spoken_through)
        super().shutdown_request(spoken_through)

    def bid_farewell(self, connection: socket.socket) -> None:
        """The connection is about to be closed."""

    def service_actions(self) -> None:
        """Show out those whose deadline is over; done twice a second."""
        now_s = time.monotonic()
        for connection, deadline_s in list(self._connections.values()):
            if now_s > deadline_s:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what failed in serving a connection."""
        # A peer that went away or fell silent is its own affair; anything else is ours, and is shown.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address, which may be one of IPv4 as a socket of IPv6 shows it."""
    address = ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def shown_address(host: str, port: int) -> str:
    """As people write it: ``127.0.0.1:10450``, ``[::1]:10450``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _advice(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this host name is not known; give one of this machine, or a number such as 127.0.0.1"
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there; stop it, or give another port"
        case errno.EACCES:
            return "no permission to listen there; give a port above 1023"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address; give one that it has, or 0.0.0.0 for all"
        case _:
            return f"cannot listen there ({error.strerror}); give another address"
