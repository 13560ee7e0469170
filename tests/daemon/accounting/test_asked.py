"""What only a driver knows is asked for while somebody watches, and never waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llmpower.daemon.accounting.asked import Asked
from llmpower.exceptions import LlmpowerError
from llmpower.types import Device

EVERY_S, KEPT_S = 10.0, 300.0
CARDS = [Device(f"GPU-{number}", number, "card", "gpu", False, True, True, "550") for number in range(2)]
PACKAGE = Device("intel-rapl:0", 2, "package-0", "cpu_package", False, True, False, "")


class Driver:
    """Tells a limit of the first card and none of the second, and how often it was asked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.asked: list[str] = []
        self.begun = 0
        self.go = threading.Event()
        self.go.set()
        self.limits = Asked([*CARDS, PACKAGE], self.limit_w, EVERY_S, KEPT_S, lambda: self.now_s)

    def limit_w(self, device: Device) -> float | None:
        self.begun += 1
        assert self.go.wait(30)
        self.asked.append(device.uuid)
        return 300.0 if device.index == 0 else None


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_they_are_known_soon_after_somebody_asked_and_asked_for_again_when_old() -> None:
    driver = Driver()
    driver.go.clear()
    assert driver.limits.look() == {}
    assert driver.asked == []
    driver.go.set()
    wait_until(lambda: bool(driver.limits.look()))
    assert driver.limits.look() == {"GPU-0": 300.0, "GPU-1": None}
    assert driver.asked == ["GPU-0", "GPU-1"]
    driver.now_s = EVERY_S
    driver.limits.look()
    wait_until(lambda: len(driver.asked) == 4)


def test_a_driver_that_hangs_is_asked_once_and_waited_for_by_nobody() -> None:
    driver = Driver()
    driver.go.clear()
    for second in range(100):
        driver.now_s = float(second)
        assert driver.limits.look() == {}
    wait_until(lambda: driver.begun > 0)
    assert driver.begun == 1
    driver.go.set()
    wait_until(lambda: bool(driver.limits.look()))
    assert driver.asked[:2] == ["GPU-0", "GPU-1"]


def test_what_has_grown_old_is_not_told() -> None:
    driver = Driver()
    driver.limits.look()
    wait_until(lambda: bool(driver.limits.look()))
    driver.go.clear()
    driver.now_s = KEPT_S
    assert driver.limits.look() == {"GPU-0": 300.0, "GPU-1": None}
    driver.now_s = KEPT_S + 1
    assert driver.limits.look() == {}
    driver.go.set()


def test_a_sampler_that_was_closed_meanwhile_is_no_failure() -> None:
    def closed(_: Device) -> float:
        raise LlmpowerError("this sampler is closed")

    failures: list[object] = []
    before, threading.excepthook = threading.excepthook, failures.append
    try:
        limits = Asked(CARDS, closed, EVERY_S)
        limits.look()
        wait_until(lambda: not any(thread.name == "llmpower-asked" for thread in threading.enumerate()))
    finally:
        threading.excepthook = before
    assert failures == []
