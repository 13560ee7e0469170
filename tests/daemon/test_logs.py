from __future__ import annotations

import logging
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.daemon.logs import JournalHandler, _encode, about, set_up

logger = logging.getLogger("llmpower.test")

SetUp = Callable[..., logging.Handler]


def fields(datagram: bytes) -> dict[str, str]:
    """What journald reads in one datagram."""
    found = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", datagram[:8])
            value, datagram = datagram[8 : 8 + length], datagram[8 + length + 1 :]
        found[name.decode()] = value.decode()
    return found


@pytest.fixture
def journal(socket_directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(socket_directory / "journal"))
        journal.settimeout(10)
        yield journal


@pytest.fixture
def start(tmp_path: Path) -> Iterator[SetUp]:
    """Sets logging up on a file, named as the journal's unless told otherwise, and undoes it."""
    root = logging.getLogger()
    level, started = root.level, []
    with (tmp_path / "stderr").open("w") as stream:

        def start(journal: Path, stream_is_journal: bool = True) -> logging.Handler:
            found = os.fstat(stream.fileno())
            named = f"{found.st_dev}:{found.st_ino}" if stream_is_journal else "1:1"
            started.append(set_up(stream, environ={"JOURNAL_STREAM": named}, journal=journal))
            return started[-1]

        yield start
        for handler in started:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def test_the_journal_gets_fields(journal: socket.socket, start: SetUp, socket_directory: Path, tmp_path: Path) -> None:
    start(socket_directory / "journal")
    logger.error("%s is stalled", "card", extra=about("GPU-1"))
    found = fields(journal.recv(65536))
    assert found["MESSAGE"] == "card is stalled"
    assert found["PRIORITY"] == "3"
    assert found["SYSLOG_IDENTIFIER"] == "llmpower"
    assert found["LLMPOWER_DEVICE"] == "GPU-1"
    assert found["CODE_FILE"] == __file__
    assert found["CODE_FUNC"] == "test_the_journal_gets_fields"
    assert (tmp_path / "stderr").read_text() == ""


@pytest.mark.parametrize(
    ("level", "priority"), [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", None)]
)
def test_levels_are_syslogs_priorities(
    level: str, priority: str | None, journal: socket.socket, start: SetUp, socket_directory: Path
) -> None:
    start(socket_directory / "journal")
    getattr(logger, level)("word")
    logger.info("end")
    first = fields(journal.recv(65536))
    assert (first["PRIORITY"] if first["MESSAGE"] == "word" else None) == priority


def test_a_traceback_arrives_whole(journal: socket.socket, start: SetUp, socket_directory: Path) -> None:
    start(socket_directory / "journal")
    try:
        raise ValueError("what went wrong")
    except ValueError:
        logger.exception("in the loop")
    message = fields(journal.recv(65536))["MESSAGE"]
    assert message.startswith("in the loop\nTraceback")
    assert message.endswith("ValueError: what went wrong")


@given(st.text())
def test_any_message_arrives_as_it_is(message: str) -> None:
    shown = message.encode(errors="backslashreplace").decode()
    assert fields(_encode("MESSAGE", message) + _encode("PRIORITY", "6")) == {"MESSAGE": shown, "PRIORITY": "6"}


def test_without_the_journals_socket_lines_have_prefixes(start: SetUp, tmp_path: Path) -> None:
    start(tmp_path / "none")
    logger.warning("one\ntwo")
    logger.info("three")
    assert (tmp_path / "stderr").read_text() == "<4>one\n<4>two\n<6>three\n"


def test_what_the_journal_does_not_take_is_not_lost(
    journal: socket.socket, start: SetUp, socket_directory: Path, tmp_path: Path
) -> None:
    handler = start(socket_directory / "journal")
    assert isinstance(handler, JournalHandler)
    logger.info("before")
    assert fields(journal.recv(65536))["MESSAGE"] == "before"
    journal.close()
    logger.error("after")
    assert (tmp_path / "stderr").read_text() == "<3>after\n"


def test_a_stream_that_is_not_the_journals_gets_plain_lines(
    journal: socket.socket, start: SetUp, socket_directory: Path, tmp_path: Path
) -> None:
    start(socket_directory / "journal", stream_is_journal=False)
    logger.error("read by people", extra=about("GPU-1"))
    assert (tmp_path / "stderr").read_text() == "ERROR read by people\n"
    journal.setblocking(False)
    with pytest.raises(BlockingIOError):
        journal.recv(1)


def test_a_service_that_cannot_start_says_so_as_an_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "llmpower.cli.main", "daemon", "--rate=0", f"--store={tmp_path}/spans.db"]
    command += [f"--socket={tmp_path}/s.sock", "--backend=simulated"]
    with (tmp_path / "stderr").open("w") as stream:
        found = os.fstat(stream.fileno())
        environ = os.environ | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert subprocess.run(command, env=environ, stderr=stream, timeout=60, check=False).returncode == 2
    assert (tmp_path / "stderr").read_text().startswith("<3>llmpower: error: --rate = 0")


def test_a_stream_without_a_file_is_no_journal() -> None:
    handler = set_up(sys.stdout, environ={})
    logging.getLogger().removeHandler(handler)
    assert not isinstance(handler, JournalHandler)
