"""The desk turns characters into tokens, learns in the background, and keeps what it learnt."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from online_policies import make, queries
from two_models import two_models

from llmpower.exceptions import InputError
from llmpower.gateways.desk import Desk, from_environment
from llmpower.routing import OnlineRouter, RoutingPolicy, save_policy
from llmpower.routing.online.router import ENOUGH

PAST = queries(1000, 1)


@pytest.fixture(scope="module")
def policy() -> RoutingPolicy:
    return make(two_models(), {"small": 0.5, "large": 0.7}, PAST, shares={"small": 0.5, "large": 0.5})


def test_a_limit_that_allows_no_answer_is_none(policy: RoutingPolicy) -> None:
    desk = Desk(OnlineRouter(policy))
    assert [desk.choose(4000, at_most=limit) for limit in (-1, float("nan"), 10**400)] == [desk.choose(4000)] * 3


def test_shares_are_kept_of_requests_known_by_their_characters(policy: RoutingPolicy) -> None:
    desk = Desk(OnlineRouter(policy, period=400))
    chosen = []
    for τin, τout in zip(PAST[0][:400].tolist(), PAST[1][:400].tolist(), strict=True):
        chosen.append(desk.choose(6 * τin, "chat"))
        desk.complete(6 * τin, τin, τout, "chat")
    desk.close()
    assert chosen.count("small") == chosen.count("large") == 200


def test_how_many_characters_make_a_token_is_learnt(policy: RoutingPolicy) -> None:
    class Recording(OnlineRouter):
        def choose(self, input_tokens: int, *arguments: object, **options: object):  # type: ignore[no-untyped-def]
            self.seen = input_tokens
            return super().choose(input_tokens, *arguments, **options)  # type: ignore[arg-type]

    router = Recording(policy)
    desk = Desk(router)
    desk.choose(1000)
    assert router.seen == 250
    for _ in range(600):
        desk.complete(1000, 500, 10)
    desk.choose(1000)
    assert router.seen == pytest.approx(500, abs=5)
    desk.close()


def test_what_was_learnt_is_there_after_a_restart(policy: RoutingPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "policy.json")
    environment = {
        "LLMPOWER_GATEWAY_POLICY": str(tmp_path / "policy.json"),
        "LLMPOWER_GATEWAY_STATE": str(tmp_path / "state.json"),
        "LLMPOWER_GATEWAY_PERIOD": "400",
        "LLMPOWER_GATEWAY_MODEL": "auto",
    }
    first = from_environment(environment)
    assert first.alias == "auto"
    for _ in range(300):
        first.choose(400)
        first.complete(400, 100, 7)
    first.close()
    second = from_environment(environment)
    assert sum(second.router.served.values()) == 300
    assert second.router.served == first.router.served
    assert second.choose(400) == first.choose(400)
    assert second.router.prices == first.router.prices


def test_what_was_learnt_is_saved_while_the_gateway_runs(policy: RoutingPolicy, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    desk = Desk(OnlineRouter(policy), state=state, save_every_s=0.01)
    desk.choose(400, "chat")
    for _ in range(2):
        deadline = time.monotonic() + 30
        while not state.exists():
            assert time.monotonic() < deadline
            desk.complete(400, 0, 7, "chat")  # a server that reports no prompt says nothing of characters
            time.sleep(0.01)
        saved = json.loads(state.read_text())
        assert saved["memory"] == [[100, None, "chat"]]
        assert "chat" in {label for label, *_ in saved["lengths"]}
        state.unlink()
    desk.close()
    assert state.exists()


def test_prices_are_solved_for_beside_the_requests(policy: RoutingPolicy) -> None:
    desk = Desk(OnlineRouter(policy))
    before = desk.router.prices
    for _ in range(ENOUGH):
        desk.choose(400)
    assert desk.router.learning_due
    desk.complete(400, 100, 7)
    desk.close()
    assert not desk.router.learning_due
    assert desk.router.prices != before


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({}, "LLMPOWER_GATEWAY_POLICY = not set"),
        ({"LLMPOWER_GATEWAY_POLICY": "absent.json"}, "LLMPOWER_GATEWAY_POLICY = absent.json: cannot be read"),
        ({"LLMPOWER_GATEWAY_POLICY": "p", "LLMPOWER_GATEWAY_PERIOD": "many"}, "LLMPOWER_GATEWAY_PERIOD = many"),
    ],
    ids=["no policy", "absent policy", "period"],
)
def test_settings_that_cannot_be_used_are_named(environment: dict[str, str], error: str) -> None:
    with pytest.raises(InputError, match=error):
        from_environment(environment)
