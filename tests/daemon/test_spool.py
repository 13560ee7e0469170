"""The daemon's end of the spool: everything that can be read is taken once, and nothing that lies there does harm."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.daemon.spool import MAX_LINES_A_STEP, MAX_SEGMENT_BYTES, MAX_SEGMENTS_OF_USER, Key, Spool
from llmpower.exceptions import InputError, StoreError
from llmpower.spans.spool import SpoolWriter, boot_id
from llmpower.spans.wire import MAX_PACKET_BYTES, Begin, Cancel, SpoolHead, encode, encode_head
from llmpower.types import Span

BEGAN_NS = 1000
OFFSET_NS = 5_000_000
UID = os.getuid()
NOBODY = 65534


def a_span(span_id: str = "a", **fields: Any) -> Span:
    values: dict[str, Any] = {
        "model_name": "llama",
        "device_uuids": (),
        "start_ns": 2000,
        "first_token_ns": None,
        "end_ns": 3000,
        "input_tokens": 3,
        "output_tokens": 4,
        "batch_size": 1,
        "hostname": "host",
        "pid": os.getpid(),
        "uid": UID,
    }
    return Span(span_id, **(values | fields))


class Book:
    """An inbox that writes down what it gets, and a store that answers when it is told to."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.running: dict[str, tuple[int, int]] = {}
        self.rejected: Counter[str] = Counter()
        self.failed: list[str] = []
        self.rooms: dict[int, int] = {}
        self.takes = True
        self.in_store: set[Key] = set()
        self.questions: list[tuple[Sequence[Key], Future[set[Key]]]] = []

    def begin(self, span_id: str, start_ns: int, uid: int) -> bool:
        self.running[span_id] = start_ns, uid
        return True

    def cancel(self, span_id: str, uid: int) -> None:
        if span_id in self.running:
            assert self.running.pop(span_id)[1] == uid

    def finish(self, span: Span) -> bool:
        self.running.pop(span.span_id, None)
        self.spans.append(span)
        self.rooms[span.uid or 0] = self.room(span.uid or 0) - 1
        return self.takes

    def room(self, uid: int) -> int:
        return self.rooms.get(uid, 1_000_000)

    def reject(self, reason: str) -> None:
        self.rejected[reason] += 1

    def fail(self, error: str) -> None:
        self.failed.append(error)

    def known(self, spans: Sequence[Key]) -> Future[set[Key]]:
        self.questions.append((spans, Future()))
        return self.questions[-1][1]

    def answer(self) -> None:
        spans, future = self.questions.pop()
        future.set_result(self.in_store & set(spans))

    @property
    def ids(self) -> list[str]:
        return [span.span_id for span in self.spans]


class Station:
    """A spool, its directory, and programs that write there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.book = Book()
        self.writers: list[SpoolWriter] = []
        self.spool = self.open()

    def open(self) -> Spool:
        return Spool(self.directory, self.book, self.book.known, began_ns=BEGAN_NS, utc_offset_ns=lambda: OFFSET_NS)

    def write(self, *spans: Span) -> SpoolWriter:
        """A program has finished these, and goes on."""
        writer = SpoolWriter(self.directory)
        for span in spans:
            assert writer.append(encode(span))
        self.writers.append(writer)
        return writer

    def lay(self, *lines: bytes, name: str = "left-00000001.spans", head: bytes | None = None) -> Path:
        """A file that a program has left, with such lines."""
        path = self.directory / name
        first = encode_head(SpoolHead(boot_id(), OFFSET_NS)) if head is None else head
        path.write_bytes(b"\n".join((first, *lines)) + b"\n")
        return path

    def step(self, **options: Any) -> None:
        self.spool.look()
        self.spool.read(**options)

    def files(self) -> list[Path]:
        return sorted(self.directory.iterdir())


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s.spool")
    yield station
    for writer in station.writers:
        writer.close()
    station.spool.close()


def test_spans_are_taken_as_they_are_written_and_the_file_goes_when_all_are_stored(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.step()
    writer.append(encode(a_span("b")))
    station.step()
    assert station.book.spans == [a_span("a"), a_span("b")]
    station.spool.stored([a_span("b")])
    station.step()
    writer.close()
    station.step()
    assert len(station.files()) == 1, "a is not stored"
    station.spool.stored([a_span("a")])
    station.step()
    assert station.files() == []
    assert station.book.rejected == {}


def test_a_file_that_is_being_written_stays_though_all_is_stored(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.step()
    station.spool.stored([a_span("a")])
    for _ in range(3):
        station.step()
    assert writer.append(encode(a_span("b")))
    station.step()
    assert station.book.ids == ["a", "b"]


def test_what_is_written_after_the_look_waits_for_the_next(station: Station) -> None:
    writer = station.write(a_span("a"))
    station.spool.look()
    writer.append(encode(a_span("b")))
    assert not station.spool.is_read(UID)
    station.spool.read()
    assert station.book.ids == ["a"]
    assert station.spool.is_read(UID)
    station.step()
    assert station.book.ids == ["a", "b"]


def test_a_span_that_is_refused_is_not_waited_for(station: Station) -> None:
    station.book.takes = False
    station.write(a_span("a")).close()
    station.step()
    assert station.book.ids == ["a"]
    assert station.files() == []


def test_nothing_is_read_for_which_there_is_no_room_and_nothing_is_lost(station: Station) -> None:
    station.write(*(a_span(str(number)) for number in range(100)))
    station.book.rooms[UID] = 30
    station.step()
    station.step()
    assert len(station.book.spans) == 30
    waiting = station.spool.waiting_bytes
    assert waiting > 0
    assert not station.spool.is_read(UID)
    station.book.rooms[UID] = 1000
    station.step(held_up=lambda uid: uid == UID)
    assert len(station.book.spans) == 30, "his packets come first"
    station.step()
    assert station.book.ids == [str(number) for number in range(100)]
    assert station.spool.waiting_bytes == 0


def test_one_step_takes_so_many_and_no_more(station: Station) -> None:
    for number in range(12):
        station.write(*(a_span(f"{number}-{each}") for each in range(600)))
    station.step()
    assert len(station.book.spans) == MAX_LINES_A_STEP
    station.step()
    assert len(set(station.book.ids)) == 7200


def test_a_span_runs_from_its_beginning_until_it_ends_or_fails(station: Station) -> None:
    writer = station.write()
    for span_id in "abc":
        writer.append(encode(Begin(span_id, 1500)))
    station.step()
    assert station.book.running == dict.fromkeys("abc", (1500, UID))
    writer.append(encode(a_span("a")))
    writer.append(encode(Cancel("b")))
    station.step()
    assert (station.book.ids, list(station.book.running)) == (["a"], ["c"])


def test_a_program_that_goes_takes_what_it_had_begun(station: Station) -> None:
    leaving, staying = station.write(), station.write()
    leaving.append(encode(Begin("a", 1500)))
    leaving.append(encode(Begin("finished", 1500)))
    staying.append(encode(Begin("b", 1500)))
    leaving.append(encode(a_span("finished")))
    leaving.close()
    station.step()
    assert list(station.book.running) == ["b"], "though what has ended is not stored"
    assert len(station.files()) == 2


def test_a_program_that_goes_on_in_another_file_keeps_what_it_had_begun(station: Station) -> None:
    writer = station.write()
    writer.append(encode(Begin("a", 1500)))
    while writer.segments < 3:
        writer.append(encode(Cancel("nothing")))
    for _ in range(5):
        station.step()
    assert station.spool.waiting_bytes == 0
    assert list(station.book.running) == ["a"]
    assert len(station.files()) == 1, "what is read of those before is done with"
    writer.append(encode(a_span("a")))
    station.step()
    assert (station.book.ids, station.book.running) == (["a"], {})


def test_a_program_cannot_cancel_what_another_began(station: Station) -> None:
    owner, other = station.write(), station.write()
    owner.append(encode(Begin("a", 1500)))
    station.step()
    other.append(encode(Cancel("a")))
    station.step()
    assert list(station.book.running) == ["a"]


def test_what_was_stored_before_a_crash_does_not_run_on(station: Station) -> None:
    writer = station.write()
    writer.append(encode(Begin("old", 1)))
    writer.append(encode(a_span("old", start_ns=1, end_ns=2)))
    station.book.in_store = {("old", UID)}
    station.step()
    station.book.answer()
    station.step()
    assert (station.book.ids, station.book.running) == ([], {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_writes_much_delays_nobody_and_each_is_who_he_is(station: Station) -> None:
    station.directory.chmod(0o1777)
    for directory in station.directory.parents[:3]:
        directory.chmod(0o755)
    for number in range(10):
        station.write(*(a_span(f"{number}-{each}") for each in range(600)))
    os.seteuid(NOBODY)
    try:
        # He says that it is root's.
        line = encode(a_span("quiet")).replace(b'"type":"span"', b'"type":"span","uid":0')
        writer = SpoolWriter(station.directory)
        assert writer.append(line)
        station.writers.append(writer)
    finally:
        os.seteuid(0)
    station.step()
    (quiet,) = [span for span in station.book.spans if span.span_id == "quiet"]
    assert quiet.uid == NOBODY
    assert len(station.book.spans) == MAX_LINES_A_STEP


def test_after_a_crash_what_the_store_has_is_not_taken_again(station: Station) -> None:
    old = [a_span(f"old-{number}", start_ns=1, end_ns=BEGAN_NS - 1) for number in range(3)]
    station.write(*old, a_span("new")).close()
    station.book.in_store = {("old-0", UID), ("old-2", UID + 1)}
    station.step()
    assert station.book.ids == ["new"]
    assert station.book.questions[0][0] == [(span.span_id, UID) for span in old]
    station.step()
    assert len(station.files()) == 1
    station.book.answer()
    station.step()
    assert station.book.ids == ["new", "old-1", "old-2"]
    station.spool.stored(station.book.spans)
    station.step()
    assert station.files() == []


def test_a_store_that_cannot_answer_is_asked_again(station: Station) -> None:
    station.write(a_span(start_ns=1, end_ns=2)).close()
    station.step()
    station.book.questions.pop()[1].set_exception(StoreError("--store", "spans.db", "the disk is gone"))
    station.step()
    station.book.answer()
    station.step()
    assert station.book.ids == ["a"]


def test_the_next_daemon_finds_what_this_one_had_not_stored(station: Station) -> None:
    writer = station.write(a_span("a"), a_span("b"))
    station.step()
    station.spool.stored([a_span("a")])
    station.spool.close()
    writer.close()
    station.book.spans.clear()
    station.spool = station.open()
    station.step()
    assert station.book.ids == ["a", "b"]


def test_spans_of_another_boot_keep_their_time_of_day(station: Station) -> None:
    # Its clock stood at 7000 when UTC less it was 5_000_000 - 9000: by this boot's clock that was at -2000.
    head = encode_head(SpoolHead("another", OFFSET_NS - 9000))
    station.lay(encode(a_span(start_ns=6000, first_token_ns=6500, end_ns=7000)), head=head)
    station.step()
    station.book.answer()
    station.step()
    assert station.book.spans == [a_span(start_ns=-3000, first_token_ns=-2500, end_ns=-2000)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"v":1,"type":"status"}', "type"),
        (encode(a_span())[:-10], "not_json"),
        (encode(a_span()).replace(b'"batch_size":1', b'"batch_size":0'), "bad_value"),
        (b" " * (MAX_PACKET_BYTES + 1), "too_large"),
        (b"x" * (3 * MAX_PACKET_BYTES), "too_large"),
    ],
)
def test_a_line_that_is_no_span_is_counted_and_the_next_one_taken(line: bytes, reason: str, station: Station) -> None:
    station.lay(encode(a_span("before")), line, encode(a_span("after")))
    station.step()
    assert station.book.ids == ["before", "after"]
    assert station.book.rejected == {reason: 1}


@given(lines=st.lists(st.binary(max_size=300).filter(lambda line: b"\n" not in line), max_size=20))
@settings(max_examples=50, deadline=None)
def test_no_bytes_bring_it_down(lines: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> None:
    station = Station(tmp_path_factory.mktemp("spool") / "s.spool")
    station.lay(*lines, encode(a_span("after")))
    station.step()
    assert station.book.ids == ["after"]
    assert station.book.rejected.total() == len(lines)
    station.spool.stored(station.book.spans)
    station.step()
    assert station.files() == []
    station.spool.close()


def test_a_torn_line_is_waited_for_and_counted_when_nobody_is_left_to_end_it(station: Station) -> None:
    path = station.lay(encode(a_span("a")))
    whole = encode(a_span("b")) + b"\n"
    with path.open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(whole[:100])
        station.step()
        assert station.book.ids == ["a"]
        file.write(whole[100:])
        station.step()
        assert station.book.ids == ["a", "b"]
        file.write(whole[:100])
    station.step()
    station.spool.stored(station.book.spans)
    station.step()
    assert station.files() == []
    assert station.book.rejected == {"torn_line": 1}


@pytest.mark.parametrize("head", [b"{}", b"", b'{"v":1,"type":"spool","boot_id":"x"}', encode(a_span())])
def test_a_file_without_a_head_is_removed(head: bytes, station: Station) -> None:
    station.lay(encode(a_span()), head=head)
    station.step()
    assert station.files() == []
    assert station.book.ids == []
    assert station.book.rejected["spool_file"] == 1


def test_a_file_of_a_program_that_died_before_it_wrote_is_removed(station: Station) -> None:
    (station.directory / "empty-00000001.spans").touch()
    station.step()
    assert station.files() == []
    assert station.book.rejected == {}


def test_what_is_no_file_of_spans_is_removed_or_named(station: Station, tmp_path: Path) -> None:
    precious = tmp_path / "precious.spans"
    precious.write_text("data")
    (station.directory / "link-00000001.spans").symlink_to(precious)
    os.mkfifo(station.directory / "fifo-00000001.spans")
    (station.directory / "text.txt").write_text("x")
    (station.directory / "empty").mkdir()
    (station.directory / "full").mkdir()
    (station.directory / "full" / "file").touch()
    for _ in range(3):
        station.step()
    assert [path.name for path in station.files()] == ["full"]
    assert precious.read_text() == "data"
    assert station.book.rejected == {"spool_file": 5}
    assert len(station.book.failed) == 1
    assert "cannot be removed (Directory not empty)" in station.book.failed[0]


def test_a_file_that_is_cut_while_it_is_read_does_no_harm(station: Station) -> None:
    path = station.lay(*(encode(a_span(str(number))) for number in range(500)))
    station.spool.look()
    os.truncate(path, 1000)
    station.spool.read()
    station.step()
    before = station.book.ids
    assert before == [str(number) for number in range(len(before))]
    assert 0 < len(before) < 10
    station.lay(encode(a_span("after")), name="other-00000001.spans")
    station.step()
    assert station.book.ids[-1] == "after"


def test_a_file_too_large_is_removed_unread(station: Station) -> None:
    path = station.lay(encode(a_span("large")))
    os.truncate(path, MAX_SEGMENT_BYTES + 1)
    station.lay(encode(a_span("small")), name="other-00000001.spans")
    station.step()
    assert station.book.ids == ["small"]
    assert station.book.rejected == {"spool_size": 1}
    assert not path.exists()


def test_a_user_leaves_so_many_files_and_no_more(station: Station) -> None:
    for number in range(MAX_SEGMENTS_OF_USER + 5):
        station.lay(encode(a_span(str(number))), name=f"p{number}-00000001.spans")
    station.step()
    assert station.book.rejected == {"spool_quota": 5}
    assert len(station.book.spans) == MAX_SEGMENTS_OF_USER
    assert len(station.files()) == MAX_SEGMENTS_OF_USER
    station.spool.stored(station.book.spans)
    station.step()
    assert station.files() == []


def test_the_directory_is_for_owner_and_group_and_nobody_removes_anothers(station: Station) -> None:
    assert stat.S_IMODE(station.directory.stat().st_mode) == 0o1770
    station.directory.chmod(0o777)
    station.open().close()
    assert stat.S_IMODE(station.directory.stat().st_mode) == 0o1770


def test_a_directory_that_is_removed_is_made_again(station: Station) -> None:
    station.directory.rmdir()
    station.step()
    assert "cannot be read" in station.book.failed[0]
    station.write(a_span("a"))
    station.step()
    assert station.book.ids == ["a"]


def test_what_is_in_its_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.spool"
    path.write_text("data")
    with pytest.raises(InputError, match="it is not ours; move it away"):
        Station(path)
    path.unlink()
    path.symlink_to(tmp_path)
    with pytest.raises(InputError, match="it is not ours; move it away"):
        Station(path)
    with pytest.raises(InputError, match=r"cannot be made beside it \(No such file or directory\)"):
        Station(tmp_path / "none" / "s.spool")


def test_a_user_namespace_is_no_way_to_become_another(station: Station) -> None:
    """Root inside of a namespace is still nobody to the kernel's file systems."""
    script = f"echo x > {station.directory}/forged.spans"
    station.directory.chmod(0o1777)
    for directory in station.directory.parents[:3]:
        directory.chmod(0o755)
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "unshare", "--map-root-user"]
    done = subprocess.run([*command, "sh", "-c", script], capture_output=True, check=False, timeout=60)
    if done.returncode:
        pytest.skip(f"no user namespaces here: {done.stderr.decode().strip()}")
    assert (station.directory / "forged.spans").stat().st_uid == NOBODY


def test_a_line_is_taken_once_however_the_reads_fall(station: Station, make_lines: Callable[[int], list[Span]]) -> None:
    spans = make_lines(1500)
    writer = station.write()
    deadline_s = time.monotonic() + 30
    for start in range(0, 1500, 7):
        for span in spans[start : start + 7]:
            assert writer.append(encode(span))
        station.step()
        assert time.monotonic() < deadline_s
    assert station.book.spans == spans


@pytest.fixture
def make_lines() -> Callable[[int], list[Span]]:
    """Spans whose lines are of many lengths."""
    return lambda count: [
        replace(a_span(str(number)), attributes={"x": "é" * (number * 37 % 250)}) for number in range(count)
    ]
