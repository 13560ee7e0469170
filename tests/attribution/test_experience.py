from __future__ import annotations

import random
from itertools import pairwise

import pytest

from llmpower.attribution.division import Division
from llmpower.attribution.experience import MAX_REGIMES, Levels, Steadiness
from llmpower.attribution.series import IDLE, Regime

PREFILL, DECODE = Regime("prefill", ("m",)), Regime("busy", ("m",))


def learn(steadiness: Steadiness, powers_w: list[float], timing_var: float = 0.0) -> None:
    for first_w, second_w in pairwise(powers_w):
        steadiness.learn(first_w, second_w, timing_var)


@pytest.mark.parametrize("flicker", [0.005, 0.015, 0.04])
def test_flicker_is_learnt(flicker: float) -> None:
    chance, steadiness = random.Random(1), Steadiness()
    learn(steadiness, [400 * chance.gauss(1, flicker) for _ in range(200)])
    assert steadiness.flicker == pytest.approx(flicker, rel=0.35)
    assert steadiness.step_chance < 0.03


def test_a_square_wave_does_not_pass_for_flicker() -> None:
    chance, steadiness = random.Random(1), Steadiness()
    levels_w = [400.0 if (tick // 4) % 2 else 150.0 for tick in range(200)]
    learn(steadiness, [level_w * chance.gauss(1, 0.01) for level_w in levels_w])
    assert steadiness.flicker == pytest.approx(0.01, rel=0.5)
    assert steadiness.step_chance == pytest.approx(1 / 4 / 2, abs=0.05)


def test_unsure_edges_are_not_flicker() -> None:
    chance, with_timing, without = random.Random(1), Steadiness(), Steadiness()
    powers_w = [400 * chance.gauss(1, 0.02) for _ in range(200)]
    learn(without, powers_w)
    learn(with_timing, powers_w, timing_var=2 * 0.019**2)
    assert with_timing.flicker < 0.6 * without.flicker


def test_steadiness_survives_a_device_that_draws_nothing() -> None:
    steadiness = Steadiness()
    learn(steadiness, [0.0] * 50)
    assert steadiness.flicker == Steadiness().flicker


def test_flicker_that_averages_out_less_than_foretold_makes_power_rougher() -> None:
    surprised, calm = Steadiness(), Steadiness()
    for _ in range(20):
        surprised.judge(Division([], 4.0, None))
        calm.judge(Division([], 0.1, None))
    assert surprised.smoothness < Steadiness().smoothness < calm.smoothness


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
