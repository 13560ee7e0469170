"""What work draws, before and after a card has shown some."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.attribution.readings.draws import FULL, UNSEEN, UNSEEN_STD, Draws
from llmpower.attribution.readings.sensor import Sensor
from llmpower.attribution.series import IDLE, Regime

IDLE_W, WORK_W = 60.0, 150.0
OTHER = Regime("busy", ("other",))


def test_work_draws_more_than_idling_until_the_card_has_shown_what_it_draws() -> None:
    draws = Draws(Sensor(0.01, 0.005))

    def learn(regime: Regime, power_w: float, start_s: float) -> None:
        shown_s = np.arange(start_s + 0.2, start_s + 2.0, 0.1)
        bounds_s, kinds = np.array([start_s, start_s + 2.0]), np.zeros(1, np.int64)
        draws.learn(bounds_s, kinds, [regime], shown_s, np.zeros(18), np.full(18, power_w), 0)

    def unseen(most_w: float) -> tuple[float, float]:
        bounds_s, kinds = np.array([2.0, 2.1]), np.zeros(1, np.int64)
        known = draws.known(bounds_s, kinds, [OTHER], most_w, np.array([2.05]), np.array([most_w]), 0.1)
        return float(known.mean_w[0]), float(known.common_w2[0]) ** 0.5

    learn(IDLE, IDLE_W, 0.0)
    assert unseen(IDLE_W) == pytest.approx((UNSEEN * FULL * IDLE_W, UNSEEN_STD * FULL * IDLE_W), rel=0.01)
    learn(Regime("busy", ("m",)), WORK_W, 2.0)
    assert unseen(WORK_W) == pytest.approx((UNSEEN * WORK_W, UNSEEN_STD * WORK_W))
