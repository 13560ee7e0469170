from __future__ import annotations

import random
from itertools import pairwise

import pytest

from llmpower.attribution.ticks.division import Division
from llmpower.attribution.ticks.steadiness import Steadiness
from llmpower.attribution.ticks.tick import Shown

FLICKER = Steadiness().flicker


def learn(steadiness: Steadiness, powers_w: list[float], timing_var: float = 0.0) -> None:
    for first_w, second_w in pairwise(powers_w):
        steadiness.learn(Shown(first_w), Shown(second_w), timing_var * ((first_w + second_w) / 2) ** 2)


@pytest.mark.parametrize("flicker", [0.005, 0.015, 0.04])
def test_flicker_is_learnt(flicker: float) -> None:
    chance, steadiness = random.Random(1), Steadiness()
    learn(steadiness, [400 * chance.gauss(1, flicker) for _ in range(200)])
    assert steadiness.flicker == pytest.approx(flicker, rel=0.35)
    assert steadiness.step_chance < 0.03


def test_flicker_that_averages_out_is_less_in_a_longer_tick() -> None:
    chance, steadiness = random.Random(1), Steadiness(white=True)
    # At rest every second update is seen, in ticks of 0.2 s; under work they last 0.1 s again.
    ticks = [Shown(60 * chance.gauss(1, 0.01), duration_s=0.2) for _ in range(200)]
    for first, second in pairwise(ticks):
        steadiness.learn(first, second, 0.0)
    assert steadiness.flicker == pytest.approx(0.01 * 2**0.5, rel=0.35)
    level = steadiness.level(ticks[:3], Shown(60, duration_s=0.2))
    assert level is not None
    assert level.flicker_w == pytest.approx(0.01 * 60, rel=0.35)


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


def test_one_tick_that_was_foretold_badly_says_no_more_than_one_foretold_less_well() -> None:
    badly, less_well = Steadiness(), Steadiness()
    badly.judge(Division([], 1000.0, None))
    less_well.judge(Division([], 4.0, None))
    assert badly.smoothness == less_well.smoothness < Steadiness().smoothness


def shown(*powers_w: float) -> list[Shown]:
    return [Shown(power_w) for power_w in powers_w]


def test_ticks_in_a_row_that_are_alike_make_a_sharp_level() -> None:
    level = Steadiness().level(shown(400, 402, 398), Shown(300))
    assert level is not None
    assert level.power_w == pytest.approx(400)
    assert level.std_w == pytest.approx(FLICKER * 400 / 3**0.5)


def test_a_tick_whose_edges_are_unsure_weighs_less() -> None:
    level = Steadiness().level([Shown(440, timing_w=40), Shown(400), Shown(400)], Shown(400))
    assert level is not None
    assert level.power_w == pytest.approx(400, rel=0.005)


def test_the_first_tick_behind_a_step_is_a_level_and_the_one_with_the_step_is_none() -> None:
    behind, within = (
        Steadiness().level(shown(150, 270, 400), Shown(150)),
        Steadiness().level(shown(270, 400), Shown(150)),
    )
    assert behind is not None
    assert within is not None
    assert behind.std_w < 0.02 * 150
    assert within.std_w > 100


def test_one_tick_alone_is_believed_if_it_is_like_ours() -> None:
    like, unlike = Steadiness().level(shown(300), Shown(301)), Steadiness().level(shown(300), Shown(150))
    assert like is not None
    assert unlike is not None
    assert like.std_w < 0.05 * 300
    assert unlike.std_w > 140


@pytest.mark.parametrize(
    ("before_w", "tick_w", "after_w", "is_flat"),
    [
        ((400, 401), 399, (400, 400), True),
        ((270, 400), 150, (151, 150), True),  # the step was in the tick before
        ((150, 150), 150, (270, 400), True),  # and here it is in the one after
        ((400, 400), 153, (150, 150), False),  # it may be at our beginning
        ((150, 150), 153, (400, 400), False),  # or at our end
        ((150, 150), 270, (400, 400), False),
        ((), 150, (150, 150), False),  # nothing is known of what was before
    ],
)
def test_a_tick_is_flat_where_no_step_can_be(
    before_w: tuple[float, ...], tick_w: float, after_w: tuple[float, ...], is_flat: bool
) -> None:
    level = Steadiness().flat(shown(*before_w), Shown(tick_w), shown(*after_w))
    assert (level is not None) is is_flat
    if level:
        assert level.power_w == tick_w
        assert level.flicker_w == pytest.approx(FLICKER * tick_w)
