"""What has changed between two answers, and what cannot be said."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statuses import answer

from llmpower.cli.watching import MAX_CHART_CHARS, MAX_MODELS, Watch, figures, quantile
from llmpower.daemon import status as daemon_status
from llmpower.exceptions import DaemonUnreachableError, InputError


def watch(answers: list[dict[str, Any] | None], window_s: float = 10.0) -> Watch:
    """One that hears these answers, one after the other; ``None`` is no answer."""
    heard = iter(answers)

    def ask() -> dict[str, Any]:
        if (status := next(heard)) is None:
            raise DaemonUnreachableError("--socket", "/s", "no daemon answers there")
        return status

    clock = iter(range(1000))
    return Watch(ask, window_s, lambda: float(next(clock)))


def test_the_first_answer_tells_of_all_since_the_daemon_began() -> None:
    tick = figures(None, answer(100.0))
    assert tick["window_s"] is None
    device = tick["devices"][0]
    assert (device["energy_per_request_j"], device["energy_per_output_token_j"]) == pytest.approx((44.775, 0.8955))
    assert (device["inference_share"], device["idle_share"], device["unattributed_share"]) == pytest.approx(
        (0.6, 0.3, 0.1)
    )
    # From when on joules were booked is not known.
    assert device["mean_power_w"] is None
    assert tick["requests"]["measured_per_s"] == pytest.approx(4.0)


def test_two_answers_tell_of_what_was_between() -> None:
    before, now = answer(100.0), answer(110.0)
    now["models"][0]["request_energy_j"] = before["models"][0]["request_energy_j"] + 4000.0
    tick = figures(before, now)
    assert tick["window_s"] == 10.0
    assert tick["devices"][0]["mean_power_w"] == pytest.approx(300.0)
    assert tick["devices"][0]["booked_s_ago"] == pytest.approx(0.5)
    assert tick["devices"][1]["mean_power_w"] == pytest.approx(300.0)
    assert tick["models"][0]["energy_per_request_j"] == pytest.approx(100.0)
    assert tick["models"][0]["output_tokens_per_s"] == pytest.approx(200.0)
    assert tick["models"][0]["drift"]["ratio"] == 1.0234
    assert tick["sampler"]["ticks_per_s"] == pytest.approx(200.0)
    assert (tick["sampler"]["lateness_p50_s"], tick["sampler"]["lateness_p99_s"]) == (1e-5, 1e-4)
    assert tick["cost"]["cpu_share"] == pytest.approx(0.01)
    json.dumps(tick, allow_nan=False)


def test_a_mean_does_not_begin_before_the_first_joule_was_booked() -> None:
    """A daemon that has just begun says from when on it reads, and has no joules until a counter has moved."""
    none = {"energy_j": 0.0, "inference_j": 0.0, "idle_j": 0.0, "unattributed_j": 0.0}
    begun = answer(1.0)
    begun["devices"] = [device | none | {"booked_ns": 0} for device in begun["devices"]]
    watched = watch([begun, begun, answer(2.0), answer(3.0), answer(4.0)])
    means_w = [watched.tick()["devices"][0]["mean_power_w"] for _ in range(5)]
    assert means_w[:3] == [None, None, None]
    assert means_w[3:] == pytest.approx([300.0, 300.0])


def test_what_did_not_happen_has_no_cost() -> None:
    tick = figures(answer(100.0), answer(100.0))
    assert tick["devices"][0]["energy_per_request_j"] is None
    assert tick["devices"][0]["mean_power_w"] is None
    assert tick["devices"][0]["idle_share"] is None
    assert tick["models"][0]["energy_per_output_token_j"] is None


def test_a_model_that_may_have_been_left_out_before_has_no_rates() -> None:
    crowd = [answer()["models"][0] | {"model_name": f"m{number}"} for number in range(MAX_MODELS)]
    (model,) = figures(answer(100.0, models=crowd), answer(110.0))["models"]
    assert (model["measured_per_s"], model["energy_per_request_j"]) == (None, None)
    (model,) = figures(answer(100.0, models=crowd[1:]), answer(110.0))["models"]
    assert model["measured_per_s"] == pytest.approx(44.0)


def test_differences_are_over_the_window_and_no_more() -> None:
    seen = watch([answer(100.0 + second) for second in range(30)])
    ticks = [seen.tick() for _ in range(30)]
    assert [tick["window_s"] for tick in ticks[:4]] == [None, 1.0, 2.0, 3.0]
    assert {tick["window_s"] for tick in ticks[10:]} == {10.0}


def test_all_since_the_daemon_began_is_looked_at_without_forgetting_the_window() -> None:
    seen = watch([answer(100.0 + second) for second in range(30)])
    for _ in range(12):
        seen.tick()
    seen.lately = False
    assert [seen.tick()["window_s"] for _ in range(5)] == [None] * 5
    seen.lately = True
    assert seen.tick()["window_s"] == 10.0


def test_an_interval_longer_than_the_window_is_told_whole() -> None:
    seen = watch([answer(100.0), answer(160.0), answer(220.0)])
    assert [seen.tick()["window_s"] for _ in range(3)] == [None, 60.0, 60.0]


@pytest.mark.parametrize("changes", [{"pid": 78}, {}], ids=["another", "the same number"])
def test_a_daemon_that_began_anew_is_counted_anew(changes: dict[str, Any]) -> None:
    seen = watch([answer(100.0), answer(101.0), answer(2.0, taken_ns=10**12, **changes), answer(3.0, **changes)])
    assert [seen.tick()["window_s"] for _ in range(3)] == [None, 1.0, None]


def test_a_daemon_that_is_away_is_said_to_be_and_waited_for() -> None:
    seen = watch([answer(100.0), None, None, answer(101.0)])
    first, lost, still, back = (seen.tick() for _ in range(4))
    assert first["connected"]
    assert back["connected"]
    assert (lost["connected"], lost["error"]) == (False, "no daemon answers there")
    assert still["lost_s"] > lost["lost_s"]
    assert set(lost) == {"time", "connected", "lost_s", "error"}


def test_one_that_never_was_there_is_an_error() -> None:
    with pytest.raises(DaemonUnreachableError):
        watch([None]).tick()


def test_one_from_before_an_upgrade_is_to_be_restarted() -> None:
    old = answer()
    del old["taken_ns"]
    with pytest.raises(InputError, match="restart it"):
        watch([old]).tick()


def test_bounds_are_those_of_the_daemon() -> None:
    assert (MAX_MODELS, MAX_CHART_CHARS) == (daemon_status.MAX_MODELS, daemon_status.MAX_CHART_CHARS)


@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4), st.floats(0.01, 0.99))
def test_so_large_a_part_lies_below_a_quantile(counts: list[int], part: float) -> None:
    bounds = [1.0, 2.0, 4.0]
    found = quantile(bounds, counts, part)
    total = sum(counts)
    if total == 0 or sum(counts[:3]) < part * total:
        assert found is None
    else:
        assert found is not None
        below = sum(counts[: bounds.index(found) + 1])
        assert below >= part * total
        assert below - counts[bounds.index(found)] < part * total
