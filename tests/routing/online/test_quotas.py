"""Whatever is chosen among the open models, a period ends within its limits."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmpower.exceptions import InfeasibleError, InputError
from llmpower.routing.online.quotas import SLACK, Quotas
from llmpower.routing.online.router import REFRESH

Ranges = list[tuple[float, float]]


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    """Shares, some exact and some bands around a division that sums to 1."""
    weights = draw(st.lists(st.integers(1, 20), min_size=1, max_size=6))
    found = []
    for weight in weights:
        share = weight / sum(weights)
        down, up = draw(st.sampled_from([(0.0, 0.0), (0.1, 0.1), (0.0, 0.3), (1.0, 1.0)]))
        found.append((max(0.0, share - down), min(1.0, share + up)))
    return found


@settings(deadline=None)
@given(ranges(), st.integers(50, 400), st.integers(0, 2**32), st.booleans())
def test_a_period_ends_within_its_limits_whoever_chooses(shares: Ranges, period: int, seed: int, greedy: bool) -> None:
    try:
        quotas = Quotas(shares, period)
    except InfeasibleError:
        assume(False)
    chance = random.Random(seed)
    for query in range(period):
        assert quotas.remaining == period - query
        assert quotas.open
        if query % REFRESH == 0:
            quotas.refresh(quotas.deviations())
        over = quotas.count(quotas.open[0] if greedy else chance.choice(quotas.open))
        assert over == (query == period - 1)
    low, high = quotas.limits
    assert sum(quotas.served) == period
    assert all(a <= count <= b for a, count, b in zip(low, quotas.served, high, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=6), st.integers(0, 2**32), st.booleans())
def test_no_model_runs_further_from_its_line_than_the_slack(weights: list[int], seed: int, greedy: bool) -> None:
    period = 2000
    quotas, chance = Quotas([(w / sum(weights), w / sum(weights)) for w in weights], period), random.Random(seed)
    for query in range(period):
        if query % REFRESH == 0:
            quotas.refresh(quotas.deviations())
        quotas.count(quotas.open[0] if greedy else chance.choice(quotas.open))
        assert max(map(abs, quotas.deviations())) <= SLACK * period + len(weights) * REFRESH


def test_exact_shares_are_met_to_the_query() -> None:
    quotas = Quotas([(0.05, 0.05), (0.2, 0.2), (0.75, 0.75)], 15_493)
    while not quotas.count(quotas.open[0]):
        pass
    assert quotas.served == [775, 3098, 11620]


def test_within_a_band_nothing_deviates() -> None:
    quotas = Quotas([(0.2, 0.6), (0.0, 1.0)], 100)
    for model in (0, 1, 1):
        quotas.count(model)
    assert quotas.deviations() == [0, 0]
    assert quotas.shares == {0: pytest.approx(0.4)}
    quotas.count(1)
    quotas.count(1)
    quotas.count(1)
    assert quotas.deviations() == pytest.approx([1 - 0.2 * 6, 0])


def test_a_period_is_taken_up_where_it_was() -> None:
    quotas = Quotas([(0.5, 0.5), (0.5, 0.5)], 10)
    quotas.begin([5, 2])
    assert (quotas.remaining, quotas.open) == (3, (1,))
    # What had run away from its line stays closed; a file of a version that did not say so leaves all open.
    quotas.begin([2, 1], [1])
    assert quotas.open == (1,)
    quotas.begin([2, 1])
    assert quotas.open == (0, 1)


def test_what_cannot_be_kept_is_refused() -> None:
    for period in (0, -1, 1.5, float("nan"), 10**30, None):
        with pytest.raises(InputError, match=f"period = {period}: shares are kept over a number of queries"):
            Quotas([(0.5, 0.5), (0.5, 0.5)], period)  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(InfeasibleError, match="no whole number of 10 queries"):
        Quotas([(0.21, 0.29), (0.0, 1.0)], 10)
