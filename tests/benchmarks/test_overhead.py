"""The benchmark of the overhead: turns that are taken, figures that can be checked by hand, bars that can fail."""

from __future__ import annotations

import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest


def test_calls_take_turns_at_every_token_in_an_order_that_turns_round(lockstep: ModuleType) -> None:
    ran = []

    def call(arm: str) -> Any:
        def generate(stop: Any) -> None:
            ran.append(arm)
            for _ in range(3):
                assert stop(None, "scores") == "scores"
                ran.append(arm)

        return generate

    pieces = lockstep.run_round({arm: call(arm) for arm in "abc"}, list("abc"))
    assert "".join(ran) == "abccbaabccba"
    assert {arm: found.shape for arm, found in pieces.items()} == dict.fromkeys("abc", (2, 4))
    assert all((found >= 0).all() for found in pieces.values())


def test_rounds_are_kept_by_clock_and_arm_without_the_first(lockstep: ModuleType) -> None:
    rounds = []
    calls = {arm: lambda stop: stop(None, None) for arm in ("one", "other")}
    found = lockstep.run_rounds(calls, 0.0, random.Random(1), between=lambda: rounds.append(None))
    assert found.keys() == {"wall", "processor"}
    assert len(rounds) == 2
    assert all(found["wall"][arm].shape == (1, 2) for arm in calls)


def test_a_stall_in_a_piece_of_a_call_changes_nothing(lockstep: ModuleType) -> None:
    rounds = np.full((9, 4), 2.0)
    rounds[3, 1] = 1000.0
    assert lockstep.undisturbed_s(rounds) == 8.0
    found = lockstep.estimate_s(rounds)
    assert (found.value, found.low, found.high) == (8.0, 8.0, 8.0)


def test_the_interval_holds_what_the_median_of_others_would_be(lockstep: ModuleType) -> None:
    # Of a hundred, about the 40th and the 61st: what tables of the binomial give for 95 %.
    found = lockstep.median(np.arange(1.0, 101.0))
    assert found.value == 50.5
    assert (found.low, found.high) == pytest.approx((40.5, 60.5), abs=2.5)


@pytest.mark.parametrize(
    ("short_us", "usual_us", "path_us", "noise_us", "failing", "unresolved"),
    [
        (50, 100, 900, 10, [], []),
        (100, 500, 100, 10, ["token_us"], []),
        (100, 500, 100, 600, [], []),  # calls do not tell what a token costs: the path does
        (100, 100, 400, 600, ["token_us"], []),
        (1000, 1100, 100, 10, ["share_percent"], []),
        (100, 100, 100, 1500, [], ["share_percent"]),
    ],
)
def test_the_bars_are_those_of_a_call_of_64_tokens(
    overhead: ModuleType,
    short_us: float,
    usual_us: float,
    path_us: float,
    noise_us: float,
    failing: list[str],
    unresolved: list[str],
) -> None:
    rows = []
    for tokens, extra_us in ((1, short_us), (64, usual_us)):
        plain = np.full((9, 4), 0.1 / 4)
        seconds = {
            "plain": plain,
            "plain again": plain + (noise_us if tokens == 64 else 0.0) / 4e6,
            "llmpower": plain + extra_us / 4e6,
        }
        rows += overhead.summarise({"wall": seconds, "processor": seconds}, tokens)
    own_path = {"tokens": 64, "after_a_call": {"all_us": {"value": path_us, "interval": [path_us, path_us]}}}
    judged = overhead.judge(rows, own_path)
    assert [name for name, verdict in judged.items() if not verdict["holds"]] == failing
    assert [name for name, verdict in judged.items() if not verdict["resolved"]] == unresolved
