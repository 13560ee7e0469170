"""The benchmark of the overhead: medians with intervals that can be checked by hand, bars that can fail."""

from __future__ import annotations

from types import ModuleType

import pytest


def test_the_median_of_few_has_all_that_was_seen_around_it(overhead: ModuleType) -> None:
    assert overhead.median([3.0, 1.0, 2.0]) == overhead.Median(2.0, 1.0, 3.0)


def test_the_interval_is_that_of_the_order_statistics(overhead: ModuleType) -> None:
    # Of a hundred, the 40th and the 61st: what tables of the binomial give for 95 %.
    found = overhead.median([float(value) for value in range(1, 101)])
    assert found.value == 50.5
    assert (found.low, found.high) == pytest.approx((40, 61), abs=1)


@pytest.mark.parametrize(
    ("extra_us", "failing"), [(100, []), (400, ["token_us"]), (1100, ["share_percent", "token_us"])]
)
def test_the_bars_are_those_of_a_call_of_64_tokens(overhead: ModuleType, extra_us: float, failing: list[str]) -> None:
    base_s = 0.1
    rows = []
    for tokens, extra_s in ((1, 1.0), (64, extra_us / 1e6)):
        seconds = {"plain": [base_s] * 9, "llmpower": [base_s + extra_s] * 9}
        rows += overhead.summarise(seconds, tokens, "wall") + overhead.summarise(seconds, tokens, "processor")
    judged = overhead.judge(rows)
    assert [name for name, verdict in judged.items() if not verdict["holds"]] == failing
