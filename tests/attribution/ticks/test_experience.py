from __future__ import annotations

import random

import pytest

from llmpower.attribution.series import IDLE, Regime
from llmpower.attribution.ticks.experience import MAX_REGIMES, Levels

PREFILL, DECODE = Regime("prefill", ("m",)), Regime("busy", ("m",))


def test_levels_of_work_that_no_tick_shows_alone_are_found() -> None:
    chance, levels = random.Random(1), Levels()
    levels.learn({IDLE: 1.0}, 50.0, 0.1, 0.5)
    levels.learn({DECODE: 1.0}, 200.0, 0.1, 0.5)
    for _ in range(300):
        prefill = chance.uniform(0.05, 0.3)
        mean_w = (prefill * 350 + (1 - prefill) * 200) * chance.gauss(1, 0.01)
        levels.learn({PREFILL: prefill, DECODE: 1 - prefill}, mean_w, 0.5, 0.5)
    prompt, decode = levels.get(PREFILL), levels.get(DECODE)
    assert prompt is not None
    assert decode is not None
    assert prompt.power_w == pytest.approx(350, rel=0.03)
    assert decode.power_w == pytest.approx(200, rel=0.01)
    assert decode.flicker_w < 0.03 * 200


def test_work_without_a_power_of_its_own_has_no_level() -> None:
    chance, levels = random.Random(1), Levels()
    for _ in range(100):
        levels.learn({DECODE: 1.0}, chance.choice([150.0, 380.0]), 0.1, 0.5)
    assert levels.get(DECODE) is None


def test_kinds_of_work_are_forgotten_when_too_many() -> None:
    levels = Levels()
    for number in range(MAX_REGIMES + 1):
        for _ in range(60):
            levels.learn({Regime("busy", (str(number),)): 1.0}, 100.0, 0.1, 0.5)
    assert levels.get(Regime("busy", ("0",))) is None
    assert levels.get(Regime("busy", ("1",))) is not None
