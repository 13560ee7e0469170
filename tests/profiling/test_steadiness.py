from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llmpower.exceptions import DaemonUnreachableError
from llmpower.profiling import Meter, idle_power_w, warm


def gpu(power_w: float | None) -> dict[str, Any]:
    return {"kind": "gpu", "power_w": power_w}


def a_meter(*powers_w: float | None) -> Meter:
    devices = [*map(gpu, powers_w), {"kind": "cpu_package", "power_w": None}]
    return Meter(lambda: {"devices": devices}, period_s=0.005)


def test_idle_power_is_that_of_all_gpus() -> None:
    assert idle_power_w(a_meter(61.0, 59.0), 0.05) == 120.0


def test_no_idle_power_is_measured_where_none_is_asked_for() -> None:
    started_s = time.monotonic()
    assert idle_power_w(a_meter(61.0), 0.0) is None
    assert time.monotonic() - started_s < 1


@pytest.mark.parametrize("powers_w", [(), (None,), (61.0, None)])
def test_power_that_is_not_known_is_none(powers_w: tuple[float | None, ...]) -> None:
    assert a_meter(*powers_w).power_w(lambda: time.sleep(0.02)) is None


def test_it_reads_while_something_is_done_and_no_longer() -> None:
    readings: Iterator[float] = itertools.count(100.0, 1.0)
    meter = Meter(lambda: {"devices": [gpu(next(readings))]}, period_s=0.005)
    power_w = meter.power_w(lambda: time.sleep(0.1))
    last_w = next(readings)
    assert power_w == pytest.approx((100.0 + last_w - 1) / 2)
    time.sleep(0.03)
    assert next(readings) == last_w + 1


def test_a_daemon_that_went_away_is_said() -> None:
    def status() -> dict[str, Any]:
        raise DaemonUnreachableError("--socket", "s", "gone")

    with pytest.raises(DaemonUnreachableError):
        Meter(status).power_w(lambda: time.sleep(0.02))


def test_what_fails_meanwhile_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        a_meter(61.0).power_w(lambda: 1 / 0)


class Card:
    """Draws what the list says, one window after the other."""

    def __init__(self, *powers_w: float | None) -> None:
        self._powers_w = powers_w
        self.windows = 0

    def work(self) -> None:
        time.sleep(0.02)

    def status(self) -> dict[str, Any]:
        return {"devices": [gpu(self._powers_w[min(self.windows, len(self._powers_w) - 1)])]}


def settle(card: Card, most_s: float) -> list[tuple[float | None, bool]]:
    found = []
    for settled in warm(Meter(card.status, period_s=0.005), card.work, most_s, window_s=0.04):
        card.windows += 1
        found.append((settled.power_w, settled.is_steady))
    return found


def test_work_goes_on_until_two_windows_draw_the_same() -> None:
    assert settle(Card(240.0, 270.0, 290.0, 295.0, 296.0), 60.0) == [
        (240.0, False),
        (270.0, False),
        (290.0, False),
        (295.0, True),
    ]


def test_power_that_never_settles_ends_with_the_time_given() -> None:
    found = settle(Card(*[100.0 + 10 * n for n in range(1000)]), 0.3)
    assert 1 < len(found) <= 8
    assert not any(is_steady for _, is_steady in found)
    assert settle(Card(100.0), 0.0) == []


def test_work_whose_power_is_not_known_goes_on_for_the_time_given() -> None:
    assert {power_w for power_w, _ in settle(Card(None), 0.2)} == {None}
