from __future__ import annotations

from collections.abc import Callable

import pytest

from llmpower.daemon.receiving.answers import MAX_KEPT_OF_USER, MAX_USERS, MAX_WAITING_OF_USER, Answers
from llmpower.types import Measurement


class Desk:
    """Answers with a clock of their own, and what was told."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.answers = Answers(lambda: self.now_s)
        self.told: list[Measurement | None] = []

    def ask(self, span_id: str = "span-0", uid: int = 1, wait_s: float = 0.0) -> list[Measurement | None]:
        """What was told at once."""
        before = len(self.told)
        self.answers.ask(span_id, uid, wait_s, self.told.append)
        return self.told[before:]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_question_waits_for_its_answer(desk: Desk, make_measurement: Callable[..., Measurement]) -> None:
    assert desk.ask(wait_s=5.0) == []
    desk.answers.measured(make_measurement(1, uid=1))
    assert desk.told == []
    made = make_measurement(0, uid=1)
    desk.answers.measured(made)
    assert desk.told == [made]
    assert desk.ask() == [made]


def test_a_question_that_has_waited_long_enough_is_told_that_nothing_is_known(desk: Desk) -> None:
    desk.ask(wait_s=5.0)
    desk.ask(wait_s=9.0)
    for now_s, told in ((4.9, 0), (5.0, 1), (9.0, 2), (99.0, 2)):
        desk.now_s = now_s
        desk.answers.step()
        assert desk.told == [None] * told


def test_nobody_is_told_of_anothers_span(desk: Desk, make_measurement: Callable[..., Measurement]) -> None:
    assert desk.ask(uid=2, wait_s=5.0) == []
    desk.answers.measured(make_measurement(uid=1))
    desk.answers.measured(make_measurement(uid=None))
    assert desk.told == []
    assert desk.ask(uid=2) == [None]


def test_of_many_users_those_are_kept_who_were_measured_last(
    desk: Desk, make_measurement: Callable[..., Measurement]
) -> None:
    for uid in (*range(MAX_USERS), 0, MAX_USERS):
        desk.answers.measured(make_measurement(uid=uid))
    assert desk.ask(uid=0) != [None]
    assert desk.ask(uid=1) == [None]


def test_what_is_kept_and_who_waits_are_bounded(desk: Desk, make_measurement: Callable[..., Measurement]) -> None:
    for number in range(MAX_KEPT_OF_USER + 1):
        desk.answers.measured(make_measurement(number, uid=1))
    assert desk.ask("span-0") == [None]
    assert desk.ask("span-1") != [None]
    for uid in range(2, MAX_USERS + 2):
        desk.answers.measured(make_measurement(uid=uid))
    assert desk.ask("span-1") == [None]
    for _ in range(MAX_WAITING_OF_USER):
        assert desk.ask("never", wait_s=60.0) == []
    assert desk.ask("never", wait_s=60.0) == [None]
    assert desk.ask("never", uid=2, wait_s=60.0) == []
