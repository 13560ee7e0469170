"""What an untrusted program may leave in the spool: no line and no file of its brings the daemon down."""

from __future__ import annotations

import fcntl
import os
import resource
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spool_station import NOBODY, Station, a_span

from llmpower.daemon.receiving.segments import MAX_SEGMENT_BYTES, MAX_SEGMENTS_OF_USER
from llmpower.exceptions import InputError
from llmpower.spans.packets import MAX_PACKET_BYTES
from llmpower.spans.wire import encode


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
def test_a_line_that_is_no_span_is_counted_and_told_of_and_the_next_one_taken(
    line: bytes, reason: str, station: Station
) -> None:
    station.lay(encode(a_span("before")), line, encode(a_span("after")))
    station.step()
    assert station.book.ids == ["before", "after"]
    assert station.book.rejected == {reason: 1}
    (failure,) = station.book.failed
    assert failure.startswith(f"spans of user {os.getuid()} are refused as {reason}: ")


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
    station.lay(encode(a_span("later")), name="later-00000001.spans")
    station.step()
    assert station.book.ids[-1] == "later", "what is stored makes room"


def test_the_directory_is_for_owner_and_group_and_nobody_removes_anothers(station: Station) -> None:
    assert stat.S_IMODE(station.directory.stat().st_mode) == 0o1770
    station.directory.chmod(0o777)
    station.open().close()
    assert stat.S_IMODE(station.directory.stat().st_mode) == 0o1770


def test_a_directory_that_is_removed_is_made_again(station: Station) -> None:
    station.directory.rmdir()
    station.step()
    assert station.book.failed[0].endswith("cannot be read (No such file or directory); spans may be lost")
    station.write(a_span("a"))
    station.step()
    assert station.book.ids == ["a"]


def test_out_of_descriptors_what_is_there_waits(station: Station) -> None:
    station.write(a_span("a"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        station.step()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "(Too many open files); what is in it waits" in station.book.failed[0]
    station.step()
    assert station.book.ids == ["a"]
    assert not station.book.rejected


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
