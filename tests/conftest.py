"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from msgspec import structs

from llmpower.spans.packets import MAX_PACKET_BYTES
from llmpower.spans.replies import encode_measurement, encode_status
from llmpower.spans.wire import MeasurementRequest, Message, SenderClock, StatusRequest, decode
from llmpower.types import Measurement, Span

ROOT = Path(__file__).parents[1]

# Helper modules of several folders: tests are collected without packages.
sys.path.insert(0, str(Path(__file__).parent))

# No test depends on how fast the machine is.
hypothesis.settings.register_profile("llmpower", deadline=None)
hypothesis.settings.load_profile("llmpower")


@pytest.fixture(scope="session", autouse=True)
def _others_may_enter(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Some tests go on as another user. Where several processes share the tests, each has a directory of its own."""
    base = tmp_path_factory.getbasetemp()
    for directory in (base, *base.parents):
        if directory == Path(tempfile.gettempdir()):
            break
        directory.chmod(0o755)


@pytest.fixture(scope="session", autouse=True)
def _interrupts_reach_programs() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so do programs that are started from there."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def paper_data() -> Path:
    """The reference measurements (paper/, azure/): published data that is not part of this repository."""
    directory = Path(os.environ.get("LLMPOWER_REFERENCE_DATA", ROOT.parent / "shared" / "data"))
    if not (directory / "paper" / "grid.csv").is_file():
        pytest.skip(f"no reference data in {directory}; set LLMPOWER_REFERENCE_DATA to run this test")
    return directory


@pytest.fixture(scope="session")
def make_measurement() -> Callable[..., Measurement]:
    """A measurement of a span of 2 s that began ``number`` minutes into 2026; keywords of Span or Measurement."""

    def make(number: int = 0, **fields: Any) -> Measurement:
        start_ns = number * 60_000_000_000
        span = Span(
            span_id=f"span-{number}",
            model_name="llama",
            device_uuids=("GPU-1",),
            start_ns=start_ns,
            first_token_ns=start_ns + 500_000_000,
            end_ns=start_ns + 2_000_000_000,
            input_tokens=10,
            output_tokens=20,
            batch_size=1,
            hostname="host",
            pid=7,
            attributes={"request": "one"},
        )
        measurement = Measurement(
            span=span,
            system="1× card",
            started_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=number),
            gpu_energy_j=100.0,
            gpu_energy_std_j=1.0,
            cpu_energy_j=None,
            cpu_energy_std_j=None,
            prefill_energy_j=30.0,
            decode_energy_j=70.0,
            quality="measured",
            method="counter",
            allocated=False,
            simulated=True,
        )
        of_span = {name: value for name, value in fields.items() if name in Span.__slots__}
        of_measurement = {name: value for name, value in fields.items() if name not in Span.__slots__}
        return structs.replace(measurement, span=structs.replace(span, **of_span), **of_measurement)

    return make


class SpanReceiver:
    """A real socket that takes real packets and keeps the messages.

    It answers a status request with ``status``, and a question for a span's joules with what ``measured`` makes of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[Message] = []
        self.clocks: list[SenderClock] = []
        self.status: dict[str, Any] = {"version": "0", "simulated": False}
        self.measured: Callable[[Span], Measurement | None] = lambda _: None
        self.peers = 0
        self._arrived = threading.Condition()
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def spans(self) -> list[Span]:
        """The finished spans so far."""
        return [message for message in self.messages if isinstance(message, Span)]

    def wait(self, count: int) -> list[Message]:
        """The messages, once there are ``count``."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.messages) >= count, timeout=20), self.messages
            return list(self.messages)

    def wait_for_spans(self, count: int) -> list[Span]:
        """The finished spans, once there are ``count``."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.spans) >= count, timeout=20), self.messages
            return self.spans

    def close(self) -> None:
        """Go away as a daemon that stops does: its socket's file removed, its connections closed."""
        self.path.unlink(missing_ok=True)
        for open_socket in [self._listener, *self._connections]:
            with suppress(OSError):  # the peer may have been faster
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.peers += 1
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        while True:
            try:
                packet = connection.recv(MAX_PACKET_BYTES + 1)
            except OSError:
                return
            if not packet:
                return
            message = decode(packet)
            if isinstance(message, StatusRequest):
                connection.send(encode_status(self.status))
                continue
            if isinstance(message, MeasurementRequest):
                found = [self.measured(span) for span in self.spans if span.span_id == message.span_id]
                connection.send(encode_measurement(found[0] if found else None))
                continue
            if isinstance(message, SenderClock):
                self.clocks.append(message)
                continue
            with self._arrived:
                self.messages.append(message)
                self._arrived.notify_all()


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """A directory whose name is short enough for sockets, which tmp_path's need not be."""
    with tempfile.TemporaryDirectory(prefix="llmpower-") as directory:
        yield Path(directory)


@pytest.fixture
def receiver(socket_directory: Path) -> Iterator[SpanReceiver]:
    """Where spans arrive, in place of the daemon."""
    receiver = SpanReceiver(socket_directory / "llmpower.sock")
    yield receiver
    receiver.close()


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Any]]:
    """Starts programs on terminals (:class:`terminal.Terminal`), and leaves none behind."""
    from terminal import Terminal

    started: list[Terminal] = []

    def start(*command: object, **options: Any) -> Terminal:
        started.append(Terminal(*command, **options))
        return started[-1]

    yield start
    for terminal in started:
        terminal.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts servers of OpenAI's API (:class:`openai_server.Server`), which end with the test."""
    from openai_server import Server

    servers: list[Server] = []

    def start(**settings: Any) -> Server:
        servers.append(Server(**settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def tiny_llama() -> Any:
    """A random Llama of two layers: a millisecond or two a token, 128 ids of which 1 begins and 2 ends a sequence."""
    from llmpower.profiling.samples import TINY, random_llama

    return random_llama(TINY)


@pytest.fixture
def tiny_llama_directory(tiny_llama: Any, tmp_path: Path) -> Path:
    """The same model, saved."""
    directory = tmp_path / "tiny-llama"
    tiny_llama.save_pretrained(directory)
    return directory
