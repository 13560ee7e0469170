"""Two points stand for a law of lengths, and the law follows what was seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.routing.policies.lengths import MOST_LABELS, Moments, OutputLengthLearner, exactly, two_points
from llmpower.routing.policies.policy import OutputLengths

NOTHING = Moments(0, 100.0, 100.0**2, 100.0**3)
lengths = st.lists(st.integers(0, 5000), min_size=1, max_size=30)


def learner(*known: OutputLengths) -> OutputLengthLearner:
    return OutputLengthLearner(known, NOTHING)


@given(lengths)
def test_two_points_have_the_first_three_moments_and_lie_within_what_was_seen(seen: list[int]) -> None:
    τ = np.array(seen, float)
    law = two_points(*(float((τ**power).mean()) for power in (1, 2, 3)))
    assert law.w1 + law.w2 == pytest.approx(1)
    assert 0 <= law.w1 <= 1
    slack = 1e-3 * (1 + τ.max())
    assert τ.min() - slack <= law.x1 <= law.x2 or law.w2 == 0
    if law.w2 > 1e-6:
        assert law.x2 <= τ.max() + slack
    for power in (1, 2, 3):
        assert law.w1 * law.x1**power + law.w2 * law.x2**power == pytest.approx((τ**power).mean(), rel=1e-4)


def test_what_is_known_exactly_is_one_point() -> None:
    assert exactly(42.0) == two_points(42.0, 42.0**2, 42.0**3)


def test_of_nothing_known_the_law_is_the_one_it_began_with() -> None:
    assert learner().law(1000).mean == pytest.approx(100)


def test_answers_move_the_law_of_their_bucket_most() -> None:
    lengths = learner()
    for _ in range(50):
        lengths.observe(100, 20)
        lengths.observe(3000, 500)
    assert lengths.law(100).mean == pytest.approx(20, rel=0.05)
    assert lengths.law(3000).mean == pytest.approx(500, rel=0.05)
    # A bucket that has seen nothing says what all say.
    assert 100 < lengths.law(14).mean < 400


def test_a_label_tells_more_than_the_input_does() -> None:
    lengths = learner()
    for _ in range(100):
        lengths.observe(1000, 10, "classify")
        lengths.observe(1000, 800, "write")
    assert lengths.law(1000, "classify").mean == pytest.approx(10, rel=0.1)
    assert lengths.law(1000, "write").mean == pytest.approx(800, rel=0.1)
    assert lengths.law(1000).mean == pytest.approx(405, rel=0.1)
    # Of another input too, where this label has never been seen with it.
    assert lengths.law(50, "classify").mean < 50
    # A label that nobody has used yet says nothing.
    assert lengths.law(1000, "new") == lengths.law(1000)


def test_the_law_follows_an_application_that_changes() -> None:
    lengths = learner()
    for _ in range(1000):
        lengths.observe(1000, 100)
    for _ in range(1000):
        lengths.observe(1000, 300)
    assert lengths.law(1000).mean == pytest.approx(300, rel=0.05)


def test_it_begins_with_what_the_policy_knows() -> None:
    lengths = learner(
        OutputLengths(None, 0, 10, 50.0, 50.0**2, 50.0**3),
        OutputLengths(None, 512, 10, 400.0, 400.0**2, 400.0**3),
        OutputLengths("chat", 0, 10, 7.0, 7.0**2, 7.0**3),
    )
    assert [lengths.law(τin).mean for τin in (0, 511, 512, 9000)] == [50, 50, 400, 400]
    assert lengths.law(600, "chat").mean == 7
    assert lengths.law(600, "other").mean == 400
    # Answers to short inputs say nothing about long ones.
    for _ in range(100):
        lengths.observe(20, 60)
    assert lengths.law(9000).mean == 400


def test_clients_cannot_fill_the_memory_with_labels() -> None:
    lengths = learner()
    for number in range(MOST_LABELS + 50):
        lengths.observe(1000, 10, f"label {number}")
        lengths.law(1000, f"asked {number}")
    assert len({label for label, *_ in lengths.state()}) <= MOST_LABELS
    assert len(lengths._laws) <= MOST_LABELS


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.sampled_from([None, "a", "b"])), max_size=30))
def test_what_is_restored_knows_the_same(answers: list[tuple[int, int, str | None]]) -> None:
    first, second = learner(), learner()
    for answer in answers:
        first.observe(*answer)
    second.restore(first.state())
    assert second.state() == first.state()
    # Both learn on alike: what was in a cache is in the cells.
    for learner_of in (first, second):
        learner_of.observe(100, 20, "a")
    assert second.state() == first.state()
    assert second.law(100, "a") == first.law(100, "a")
