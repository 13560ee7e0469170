"""Files that are no store, damaged ones, newer ones, and those that somebody may not open: said, and left alone."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from filling import filled

from llmpower.exceptions import StoreError
from llmpower.store import Store, iter_rows, read_measurements
from llmpower.types import Measurement

Make = Callable[..., Measurement]


@pytest.mark.parametrize(
    "content", [b"not a database, just some text in a file\n" * 100, os.urandom(8192)], ids=["text", "noise"]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreError, match="not a database"):
        Store(path)
    with pytest.raises(StoreError, match="not a database"):
        read_measurements(path)
    assert path.read_bytes() == content


def test_a_damaged_database_says_so(path: Path, make_measurement: Make) -> None:
    filled(path, *(make_measurement(number) for number in range(500)))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        read_measurements(path)


def test_another_programs_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE accounts (id)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store(path)
    with pytest.raises(StoreError, match="another program"):
        list(iter_rows(path))
    assert path.read_bytes() == before


def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    with sqlite3.connect(filled(path)) as connection:
        connection.execute("PRAGMA user_version = 1000")
    connection.close()
    before = path.read_bytes()
    for opened in (Store, read_measurements):
        with pytest.raises(StoreError, match=r"newer llmpower \(version 1000"):
            opened(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_store_but_cannot_be_read_as_one(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="there is nothing in it yet"):
        read_measurements(path)
    assert read_measurements(filled(path)).empty


def test_missing_files_and_directories_say_what_to_do(path: Path) -> None:
    with pytest.raises(StoreError, match="no such file; start 'llmpower daemon'"):
        read_measurements(path)
    with pytest.raises(StoreError, match="there is no directory"):
        Store(path.parent / "nowhere" / "spans.db")
    with pytest.raises(StoreError, match="directory"):
        Store(path.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_only_read_the_file_can_read_it(path: Path, make_measurement: Make) -> None:
    for directory in (path.parent, *path.parent.parents[:2]):
        directory.chmod(0o755)

    def read_as_nobody() -> int:
        os.seteuid(65534)
        try:
            return len(list(iter_rows(path)))
        finally:
            os.seteuid(0)

    store = Store(path)
    store.append([make_measurement(1)])
    assert read_as_nobody() == 1
    store.append([make_measurement(2)])
    store.close()
    assert read_as_nobody() == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_write_into_the_directory_leaves_nothing_there_that_keeps_the_daemon_out(path: Path) -> None:
    filled(path)
    for directory in path.parent.parents[:2]:
        directory.chmod(0o755)
    path.parent.chmod(0o777)
    before = set(path.parent.iterdir())
    os.seteuid(65534)
    try:
        assert list(iter_rows(path)) == []
    finally:
        os.seteuid(0)
    assert set(path.parent.iterdir()) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE accounts (id)", "another program"),
        ("PRAGMA user_version = 1000", "newer llmpower"),
        ("", "there is nothing in it yet"),
    ],
    ids=["another program's", "newer", "empty"],
)
def test_what_is_no_store_is_none_to_who_may_only_read_it(path: Path, statement: str, said: str) -> None:
    if said == "newer llmpower":
        filled(path)
    path.touch()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    for directory in (path.parent, *path.parent.parents[:2]):
        directory.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match=said):
            list(iter_rows(path))
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_read_is_told_what_to_do(path: Path) -> None:
    filled(path)
    for directory in path.parent.parents[:2]:
        directory.chmod(0o755)
    path.parent.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="closed to this user; a service's is open to its group"):
            list(iter_rows(path))
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_write_is_told_so(path: Path) -> None:
    filled(path)
    for directory in (path.parent, *path.parent.parents[:2]):
        directory.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError, match="cannot write there"):
            Store(path)
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_reads_without_locks_is_told_when_a_daemon_began_to_write(path: Path, make_measurement: Make) -> None:
    filled(path, *(make_measurement(number) for number in range(500)))
    for directory in (path.parent, *path.parent.parents[:2]):
        directory.chmod(0o755)
    rows = iter_rows(path)
    os.seteuid(65534)
    try:
        next(rows)
    finally:
        os.seteuid(0)
    store = Store(path)
    store.append([make_measurement(1000)])
    with pytest.raises(StoreError, match="a daemon has begun to write to it while it was read; run this again"):
        list(rows)
    store.close()
