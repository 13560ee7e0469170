"""The program's end of the spool: what is in it outlives whoever wrote it, and it never grows without end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from example_spans import a_span

from llmpower.spans import SpanClient
from llmpower.spans.clocks import boot_id
from llmpower.spans.spool import SEGMENT_BYTES, SpoolWriter, spool_directory
from llmpower.spans.wire import decode, decode_head
from llmpower.types import Span


@pytest.fixture
def directory(socket_directory: Path) -> Path:
    directory = spool_directory(socket_directory / "s.sock")
    directory.mkdir()
    return directory


@pytest.fixture
def client(socket_directory: Path) -> SpanClient:
    return SpanClient(socket_directory / "s.sock", retry_after_s=0)


def spans(directory: Path) -> list[str]:
    found = []
    for path in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        # A program that is killed may leave a line without its end, which was not acknowledged.
        head, *lines, _ = path.read_bytes().split(b"\n")
        assert decode_head(head).boot_id == boot_id()
        found += [message.span_id for message in map(decode, lines) if isinstance(message, Span)]
    return found


def test_a_span_is_in_the_spool_when_the_call_has_returned(client: SpanClient, directory: Path) -> None:
    for number in range(3):
        client.finish(a_span(str(number)))
        assert spans(directory) == [str(each) for each in range(number + 1)]
    assert (client.sent, client.spooled, client.dropped) == (3, 3, 0)
    (path,) = directory.iterdir()
    _, line, *_ = path.read_bytes().splitlines()
    assert decode(line) == a_span("0")
    assert time.time_ns() - time.monotonic_ns() == pytest.approx(
        decode_head(path.read_bytes().splitlines()[0]).utc_offset_ns, abs=10**9
    )


def test_the_daemon_may_read_it_whatever_the_programs_umask(client: SpanClient, directory: Path) -> None:
    before = os.umask(0o077)
    try:
        client.finish(a_span())
    finally:
        os.umask(before)
    (path,) = directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "the directory lets nobody in but the daemon and its group"


def test_without_a_directory_nothing_is_kept_and_nothing_made(client: SpanClient, socket_directory: Path) -> None:
    client.finish(a_span())
    assert (client.spooled, client.dropped) == (0, 2), "the span, and word that it is withdrawn"
    assert list(socket_directory.iterdir()) == []


def test_a_spool_that_comes_later_is_found(client: SpanClient, socket_directory: Path) -> None:
    client.finish(a_span("lost"))
    spool_directory(socket_directory / "s.sock").mkdir()
    client.finish(a_span("kept"))
    assert spans(spool_directory(socket_directory / "s.sock")) == ["kept"]


_WRITING = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from example_spans import a_span
from llmpower.spans import SpanClient
client = SpanClient(Path(sys.argv[1]))
number = 0
while True:
    client.finish(a_span(str(number)))
    print(number, flush=True)
    number += 1
"""


def test_a_program_that_is_killed_leaves_what_it_had_finished(directory: Path) -> None:
    path = directory.with_suffix(".sock")
    command = [sys.executable, "-c", _WRITING, str(path), str(Path(__file__).parent)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    for _ in range(1500):
        program.stdout.readline()
    program.send_signal(signal.SIGKILL)
    finished = program.stdout.read().splitlines()
    program.wait()
    last = int(finished[-1]) if finished else 1499
    found = [int(span_id) for span_id in spans(directory)]
    assert found[: last + 1] == list(range(last + 1))
    assert len(found) <= last + 2
    for segment in directory.iterdir():
        with segment.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_segments_are_small_and_locked_while_they_are_written(client: SpanClient, directory: Path) -> None:
    while len(list(directory.iterdir())) < 3:
        client.finish(a_span())
    sizes = sorted(path.stat().st_size for path in directory.iterdir())
    assert all(SEGMENT_BYTES - 1000 < size <= SEGMENT_BYTES for size in sizes[1:])
    locked = 0
    for path in directory.iterdir():
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                locked += 1
    assert locked == 1
    client.close()


def test_one_program_fills_so_much_and_no_more(directory: Path) -> None:
    writer = SpoolWriter(directory, max_segments=3)
    kept = 0
    while writer.append(b"x" * 1000):
        kept += 1
    assert len(list(directory.iterdir())) == 3
    assert kept == 3 * (SEGMENT_BYTES // 1001)
    assert not writer.append(b"x" * 1000)
    # What the daemon removes makes room.
    next(directory.iterdir()).unlink()
    assert writer.append(b"x" * 1000)
    writer.close()


def test_all_together_fill_so_much_and_no_more(directory: Path) -> None:
    others = directory / "anothers.spans"
    others.write_bytes(b"x" * 1001)
    writer = SpoolWriter(directory, max_bytes=1000)
    assert not writer.append(b"{}")
    assert list(directory.iterdir()) == [others]
    others.unlink()
    assert writer.append(b"{}")
    writer.close()


def test_a_forked_child_has_a_segment_of_its_own(client: SpanClient, directory: Path) -> None:
    client.finish(a_span("parent"))
    child = os.fork()
    if child == 0:
        client.finish(a_span("child"))
        os._exit(0)
    os.waitpid(child, 0)
    client.finish(a_span("parent again"))
    assert len(list(directory.iterdir())) == 2
    assert set(spans(directory)) == {"parent", "child", "parent again"}


def test_a_segment_that_the_daemon_takes_for_a_left_one_is_made_anew(directory: Path) -> None:
    ended = threading.Event()

    def tidy() -> None:
        """Remove what is locked by nobody and empty, as fast as can be."""
        while not ended.is_set():
            for path in directory.iterdir():
                with contextlib.suppress(OSError), path.open() as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if not os.fstat(file.fileno()).st_size:
                        path.unlink()

    tidying = threading.Thread(target=tidy)
    tidying.start()
    writers = [SpoolWriter(directory) for _ in range(200)]
    kept = sum(writer.append(b"{}") for writer in writers)
    ended.set()
    tidying.join()
    assert sum(path.read_bytes().endswith(b"\n{}\n") for path in directory.iterdir()) == kept
    for writer in writers:
        writer.close()


def test_a_disk_without_room_leaves_no_half_line(directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(directory)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    kept = int(done.stdout)
    (path,) = directory.iterdir()
    assert 0 < kept < 100
    assert path.read_bytes().count(b"\n") == kept + 1
    assert path.read_bytes().endswith(b"\n")


_LIMITED = """
import resource, signal, sys
from pathlib import Path
from llmpower.spans.spool import SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
writer = SpoolWriter(Path(sys.argv[1]))
kept = 0
while writer.append(b"x" * 90):
    kept += 1
print(kept)
"""
