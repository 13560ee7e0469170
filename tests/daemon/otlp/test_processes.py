"""Processes as the kernel shows them: real ones, containers' among them, and whatever else may stand in /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from shown_processes import show

from llmpower.daemon.otlp.processes import Process, counts_as_the_machine, is_within, processes_called, read_process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_this_process_and_its_child(child: subprocess.Popen[bytes]) -> None:
    own, theirs = read_process(os.getpid()), read_process(child.pid)
    assert own is not None
    assert theirs is not None
    assert (own.pid, own.parent, own.uid) == (os.getpid(), os.getppid(), os.getuid())
    assert (theirs.pid, theirs.parent) == (child.pid, own.pid)
    # To a hundredth of a second, which is how the kernel tells it.
    assert own.started_ns <= theirs.started_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert is_within(child.pid, own.pid)
    assert is_within(own.pid, own.pid)
    assert not is_within(own.pid, child.pid)


def test_one_that_has_ended_is_none(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    assert read_process(child.pid) is None
    assert not is_within(child.pid, os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a pid namespace")
def test_a_container_s_first_process_calls_itself_as_the_machine_s_does() -> None:
    with subprocess.Popen(["unshare", "--pid", "--fork", "sh", "-c", "echo; exec sleep 60"], stdout=-1) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = processes_called(1, 0)
        (inner,) = [each for each in found if is_within(each.pid, process.pid)]
        assert inner.own_pid == 1
        assert 1 not in [each.pid for each in found], "the machine's own is no server"
        assert processes_called(inner.pid, 0) == [], "it does not know itself by the machine's number"
        os.kill(inner.pid, signal.SIGKILL)


def test_threads_of_the_kernel_are_nobody_s(tmp_path: Path) -> None:
    for pid, parent in ((2, 0), (77, 2), (78, 1)):
        show(tmp_path, pid, parent=parent)
    assert [pid for pid in (2, 77, 78) if processes_called(pid, 1000, tmp_path)] == [78]


def test_a_name_may_hold_anything(tmp_path: Path) -> None:
    show(tmp_path, 5, name=") S 1 2 3\nUid:\t0")
    process = read_process(5, tmp_path)
    assert process is not None
    assert (process.parent, process.started_ns) == (1, 4_000_000_000)


def test_what_is_not_shown_is_not_there(tmp_path: Path) -> None:
    assert processes_called(1, 0, tmp_path / "nothing") == []
    assert not counts_as_the_machine(tmp_path)
    (tmp_path / "12").mkdir()
    (tmp_path / "uptime").write_text("1 2")
    assert processes_called(12, 0, tmp_path) == []


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    show(tmp_path, 8, parent=9)
    show(tmp_path, 9, parent=8)
    assert not is_within(8, 3, tmp_path)


@given(status=st.binary(max_size=200), stat=st.binary(max_size=200))
@example(status=b"NSpid:\nPPid:\t1\nUid:\t0\n", stat=b") " + b"1 " * 20)
@example(status=b"NSpid:\t9\nPPid:\t1\nUid:\t\n", stat=b") " + b"1 " * 20)
@example(status=b"PPid:\t1\nUid:\t0\n", stat=b") " + b"9" * 5000)
def test_no_text_stops_the_daemon(status: bytes, stat: bytes) -> None:
    with TemporaryDirectory() as directory:
        folder = Path(directory) / "6"
        folder.mkdir()
        (folder / "status").write_bytes(status)
        (folder / "stat").write_bytes(stat)
        assert isinstance(read_process(6, Path(directory)), Process | None)
