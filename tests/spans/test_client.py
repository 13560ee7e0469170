from __future__ import annotations

import logging
import os
import resource
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from example_spans import a_span

from llmpower.exceptions import DaemonUnreachableError, InputError
from llmpower.spans import SpanClient, check_socket_path, default_socket_path, request_status
from llmpower.spans.daemon_socket import request_measurement
from llmpower.spans.packets import MAX_PACKET_BYTES
from llmpower.spans.spool import spool_directory
from llmpower.spans.wire import Begin, Cancel, SenderClock, decode


def test_messages_arrive_in_order_and_unchanged(client: SpanClient, receiver: Any) -> None:
    client.begin("a", 1)
    client.finish(a_span("a"))
    client.begin("b", 2)
    client.cancel("b")
    assert receiver.wait(4) == [Begin("a", 1), a_span("a"), Begin("b", 2), Cancel("b")]
    assert (client.sent, client.dropped) == (4, 0)


def test_without_a_daemon_nothing_fails_and_one_line_says_what_to_do(
    nobody: SpanClient, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        nobody.begin(str(number), 1)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "llmpower daemon" in record.getMessage()
    assert str(nobody.socket_path) in record.getMessage()
    assert (nobody.sent, nobody.dropped) == (0, 5)


def test_a_daemon_that_starts_later_is_found(socket_directory: Path, receiver: Any) -> None:
    path = socket_directory / "later.sock"
    client = SpanClient(path, retry_after_s=0)
    client.begin("a", 1)
    receiver.path.rename(path)
    client.begin("b", 2)
    assert receiver.wait(1) == [Begin("b", 2)]


def test_attempts_to_connect_keep_their_distance(socket_directory: Path, receiver: Any) -> None:
    path = socket_directory / "later.sock"
    client = SpanClient(path, retry_after_s=3600)
    client.begin("a", 1)
    receiver.path.rename(path)
    client.begin("b", 2)
    assert client.dropped == 2
    assert receiver.peers == 0


def test_when_the_disk_of_the_spool_fills_up_the_very_next_message_goes_over_the_socket(receiver: Any) -> None:
    directory = spool_directory(receiver.path)
    directory.mkdir()
    client = SpanClient(receiver.path, retry_after_s=3600)
    client.finish(a_span("a"))
    (segment,) = directory.iterdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size, hard))
    try:
        client.begin("b", 1)
        client.finish(a_span("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert receiver.wait(2) == [Begin("b", 1), a_span("b")]
    assert (client.spooled, client.dropped) == (1, 0)
    client.close()


def test_a_restarted_daemon_gets_the_very_next_message(client: SpanClient, receiver: Any) -> None:
    client.begin("a", 1)
    receiver.wait(1)
    receiver.close()
    again = type(receiver)(receiver.path)
    client.begin("b", 2)
    assert again.wait(1) == [Begin("b", 2)]
    assert client.dropped == 0
    again.close()


def test_a_daemon_that_does_not_read_costs_packets_and_no_time(
    socket_directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as deaf:
        deaf.bind(str(socket_directory / "deaf.sock"))
        deaf.listen()
        client = SpanClient(socket_directory / "deaf.sock", retry_after_s=0)
        for number in range(5000):
            client.begin(str(number), 1)
        assert client.sent > 0
        assert client.dropped > 0
        assert client.sent + client.dropped == 5000
        client.close()
    assert [record.getMessage() for record in caplog.records] == [
        "llmpower: the daemon does not keep up and spans are dropped; look at 'llmpower status'"
    ]


def test_a_span_whose_end_was_lost_is_withdrawn_once_the_daemon_reads_again(socket_directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as slow:
        slow.bind(str(socket_directory / "slow.sock"))
        slow.listen()
        client = SpanClient(socket_directory / "slow.sock", retry_after_s=0)
        client.begin("a", 1)
        while not client.dropped:
            client.begin("filler", 1)
        client.finish(a_span("a"))
        peer, _ = slow.accept()
        peer.setblocking(False)
        with peer:
            messages = []
            for _ in range(2):  # empty the queue; let one more message through; and look what came before it
                with suppress(BlockingIOError):
                    while True:
                        messages.append(decode(peer.recv(MAX_PACKET_BYTES)))
                client.begin("b", 2)
        client.close()
    assert isinstance(messages.pop(0), SenderClock)
    assert messages[0] == Begin("a", 1)
    assert messages[-2:] == [Cancel("a"), Begin("b", 2)]


def test_a_daemon_restarted_before_it_was_told_of_a_withdrawal_fails_no_program(
    socket_directory: Path, receiver: Any
) -> None:
    path = socket_directory / "slow.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as slow:
        slow.bind(str(path))
        slow.listen()
        client = SpanClient(path, retry_after_s=0)
        while not client.dropped:
            client.begin("filler", 1)
        client.cancel("a")
    receiver.path.rename(path)
    client.begin("b", 2)
    assert receiver.wait(2)[-1] == Begin("b", 2)
    client.close()


def test_a_span_that_cannot_be_said_is_withdrawn(
    client: SpanClient, receiver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.begin("a", 1)
    client.finish(a_span("a", output_tokens=-1))
    assert receiver.wait(2) == [Begin("a", 1), Cancel("a")]
    assert client.dropped == 1
    assert "output_tokens = -1" in caplog.text


def test_a_forked_child_uses_a_connection_of_its_own(client: SpanClient, receiver: Any) -> None:
    client.begin("parent", 1)
    receiver.wait(1)
    # Held by this process alone: the child must not wait for it.
    with client._lock:
        child = os.fork()
        if child == 0:
            client.begin("child", 2)
            os._exit(0 if client.dropped == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.begin("parent again", 3)
    assert set(receiver.wait(3)) == {Begin("parent", 1), Begin("child", 2), Begin("parent again", 3)}
    assert receiver.peers == 2


def test_threads_share_one_connection_and_lose_nothing(client: SpanClient, receiver: Any) -> None:
    def send(thread: int) -> None:
        for number in range(50):
            client.begin(f"{thread}-{number}", number)

    threads = [threading.Thread(target=send, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.sent + client.dropped == 400
    assert len({message.span_id for message in receiver.wait(client.sent)}) == client.sent
    assert receiver.peers == 1


def test_a_path_too_long_for_a_socket_is_refused_by_name(caplog: pytest.LogCaptureFixture) -> None:
    check_socket_path(Path("/" + "x" * 106))
    with pytest.raises(InputError, match="107 bytes"):
        check_socket_path(Path("/" + "x" * 107))
    SpanClient(Path("/" + "x" * 107)).begin("a", 1)
    assert "107 bytes" in caplog.text


def test_a_socket_closed_to_this_user_is_said_as_such(receiver: Any, caplog: pytest.LogCaptureFixture) -> None:
    receiver.path.chmod(0)
    child = os.fork()
    if child == 0:
        if os.getuid() == 0:
            os.setuid(65534)
        SpanClient(receiver.path).begin("a", 1)
        os._exit(0 if "may not open the daemon's socket" in caplog.text else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_where_the_daemon_is_looked_for(tmp_path: Path) -> None:
    system = tmp_path / "llmpower.sock"
    environ = {"XDG_RUNTIME_DIR": "/run/user/7"}
    assert default_socket_path({"LLMPOWER_SOCKET": "/named"}, system) == Path("/named")
    assert default_socket_path(environ, system) == Path("/run/user/7/llmpower/llmpower.sock")
    assert default_socket_path({}, system) == Path(f"/tmp/llmpower-{os.getuid()}/llmpower.sock")
    system.touch()
    assert default_socket_path(environ, system) == system


def test_a_daemon_of_the_system_that_is_away_is_found_by_its_spool(tmp_path: Path) -> None:
    system, environ = tmp_path / "llmpower.sock", {"XDG_RUNTIME_DIR": str(tmp_path / "user")}
    own = tmp_path / "user" / "llmpower" / "llmpower.sock"
    system.with_suffix(".spool").mkdir()
    assert default_socket_path(environ, system) == system
    own.parent.mkdir(parents=True)
    own.touch()
    assert default_socket_path(environ, system) == own


def test_status_is_what_the_daemon_answers(receiver: Any) -> None:
    receiver.status = {"version": "1", "devices": []}
    assert request_status(receiver.path) == {"version": "1", "devices": []}


def test_a_path_that_is_too_long_for_a_socket_is_refused_whatever_is_asked(make_measurement: Any) -> None:
    path = Path("/tmp") / f"{'x' * 120}.sock"
    with pytest.raises(InputError, match="holds at most 107 bytes"):
        request_status(path)
    with pytest.raises(InputError, match="holds at most 107 bytes"):
        request_measurement(path, make_measurement().span, 0.0)


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan"), -1.0, 1e300])
def test_a_wait_without_end_is_one_of_a_minute(timeout_s: float, receiver: Any, make_measurement: Any) -> None:
    measurement = make_measurement()
    SpanClient(receiver.path, retry_after_s=0).finish(measurement.span)
    receiver.wait_for_spans(1)
    receiver.measured = lambda _: measurement
    assert request_measurement(receiver.path, measurement.span, timeout_s) == measurement


def test_status_without_a_daemon_says_how_to_start_one(socket_directory: Path) -> None:
    with pytest.raises(DaemonUnreachableError, match="llmpower daemon"):
        request_status(socket_directory / "nobody.sock")


@pytest.mark.parametrize(
    ("answer", "advice"),
    [(None, "did not answer"), (b"hello", "not this version"), (b"", "without an answer")],
)
def test_status_of_something_that_is_no_daemon(socket_directory: Path, answer: bytes | None, advice: str) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        if answer:
            connection.send(answer)
        if answer is None:
            asked.wait()
        connection.close()

    asked = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(socket_directory / "other.sock"))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DaemonUnreachableError, match=advice):
            request_status(socket_directory / "other.sock", timeout_s=0.05 if answer is None else 10)
        asked.set()
        thread.join()
