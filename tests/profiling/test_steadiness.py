from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llmpower.exceptions import DaemonUnreachableError
from llmpower.profiling import Meter, Settled, idle_power_w, warm


def gpu(power_w: float | None, temperature_c: float | None = None, uuid: str = "GPU-0") -> dict[str, Any]:
    return {"kind": "gpu", "uuid": uuid, "power_w": power_w, "temperature_c": temperature_c}


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


def warmed(
    *temperatures_c: tuple[float | None, ...], power_w: float | None = 250.0, most_s: float = 60.0
) -> list[Settled]:
    """Warming up two cards that are so warm in one window after the other, drift being looked for over two windows."""
    window = 0

    def status() -> dict[str, Any]:
        at_c = temperatures_c[min(window, len(temperatures_c) - 1)]
        return {"devices": [gpu(power_w, each_c, f"GPU-{number}") for number, each_c in enumerate(at_c)]}

    found = []
    # One window of 40 ms is shorter than the drift's time, on a busy machine too; two are not.
    for settled in warm(Meter(status, period_s=0.005), lambda: time.sleep(0.02), most_s, window_s=0.04, drift_s=0.075):
        window += 1
        found.append(settled)
    return found


def test_work_goes_on_until_no_card_grows_warmer() -> None:
    found = warmed((40.0, 30.0), (45.0, 33.0), (48.0, 34.0), (50.0, 34.0), (50.0, 35.0), (51.0, 35.0))
    assert [each.temperature_c for each in found] == [40.0, 45.0, 48.0, 50.0, 50.0, 51.0]
    # Power has been steady from the second window on; degrees are whole, so one of them is no drift.
    assert [each.is_steady for each in found] == [False] * 5 + [True]
    assert found[0].drift_c is None
    assert found[-1].drift_c == 1.0


def test_a_card_that_tells_no_temperature_is_not_waited_for() -> None:
    found = warmed((40.0, None))
    assert (found[-1].is_steady, found[-1].temperature_c, found[-1].drift_c) == (True, 40.0, 0.0)
    found = warmed((None, None))
    assert (len(found), found[-1].is_steady, found[-1].temperature_c, found[-1].drift_c) == (2, True, None, None)


def test_temperature_alone_is_enough_where_power_is_not_known() -> None:
    assert warmed((40.0,), power_w=None)[-1].is_steady


def test_a_card_that_grows_warmer_all_the_time_ends_with_the_time_given() -> None:
    found = warmed(*[(40.0 + 2 * n,) for n in range(1000)], most_s=0.3)
    assert not any(each.is_steady for each in found)
    assert found[-1].drift_c is not None


def test_a_card_that_tells_its_temperature_late_is_watched_from_then_on() -> None:
    found = warmed((None,), (None,), (50.0,), power_w=None, most_s=5.0)
    assert [each.is_steady for each in found[:4]] == [False] * 4
    assert found[-1].is_steady
