from __future__ import annotations

import os
import resource
import socket
from pathlib import Path

import pytest

from llmpower.daemon.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True])
def test_what_systemd_hears(abstract: bool, tmp_path: Path) -> None:
    address = f"@llmpower-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        notifier = Notifier({"NOTIFY_SOCKET": address})
        notifier.ready("two cards")
        notifier.alive("300 W")
        notifier.stopping()
        heard = [systemd.recv(1000).decode() for _ in range(3)]
    assert heard == ["READY=1\nSTATUS=two cards", "WATCHDOG=1\nSTATUS=300 W", "STOPPING=1"]


def test_a_path_that_is_not_utf_8_is_no_reason_to_end(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}).alive(f"{os.fsdecode(bytes([0xFC]))}.db is full")
        assert systemd.recv(1000) == b"WATCHDOG=1\nSTATUS=\\udcfc.db is full"


def test_without_a_descriptor_left_nothing_is_said_and_nothing_ends(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        notifier.alive("300 W")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_systemd_or_with_a_deaf_one_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready("")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).stopping()


@pytest.mark.parametrize("text", ["soon", "-1", "0", "1e6", " 1", "٣", "9" * 5000], ids=lambda text: text[:5])
def test_a_watchdog_that_is_none_is_said_and_no_reason_not_to_measure(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert Notifier({"WATCHDOG_USEC": text}).watchdog_s == 0
    assert f"WATCHDOG_USEC = {text} is not a number of microseconds" in caplog.text
    caplog.clear()
    assert Notifier({"WATCHDOG_USEC": text, "WATCHDOG_PID": "1"}).watchdog_s == 0
    assert caplog.text == "", "it is another's"


def test_the_watchdog_of_this_process_only() -> None:
    assert Notifier({}).watchdog_s == 0
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_s == 30
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}).watchdog_s == 30
    assert Notifier({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}).watchdog_s == 0
