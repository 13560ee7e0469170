"""A policy that pursues money decides by the hour: as its plan did, by the clock, after a restart, and in a replay."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_places import changed
from online_policies import queries

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import (
    OnlineRouter,
    RoutingPolicy,
    Trace,
    Workload,
    load_policy,
    make_policy,
    models_per_query,
    route,
    save_policy,
    simulate,
)
from llmpower.routing.online.prices import price_sample
from llmpower.routing.policies.document import dump_policy
from llmpower.routing.policies.tariff import PolicyTariff
from llmpower.routing.problem.tariff import Tariff
from llmpower.units import J_PER_KWH

HOUR = np.arange(24)
PRICES = {"eur_per_kwh": 0.1 + 0.01 * HOUR, "g_co2_per_kwh": 400.0 - 10 * HOUR}
DAY = Tariff(True, HOUR, PRICES)
BERLIN = Tariff(True, HOUR, PRICES, ZoneInfo("Europe/Berlin"))
NIGHT, EVENING = 3 * 3600.0, 20 * 3600.0
MIDNIGHT_S = 1_774_742_400  # 2026-03-29T00:00:00Z, whose second hour Berlin does not have
MARKET = Tariff(False, MIDNIGHT_S + np.array([0, 900, 7200]), {"eur_per_kwh": np.array([0.2, 0.1, 0.4])})


def day_of(n: int, seed: int, longer: float = 1.0) -> pd.DataFrame:
    """Queries of one day."""
    τin, τout = queries(n, seed, longer)
    times = np.sort(np.random.default_rng(seed).uniform(0, 86_400, n))
    return pd.DataFrame({"input_tokens": τin, "output_tokens": τout, "timestamp": times})


PAST = day_of(1500, 1)
Make = Callable[..., RoutingPolicy]


@pytest.fixture(scope="module")
def make(models: list[WorkloadModel], accuracy: dict[str, float]) -> Make:
    def policy(tariff: Tariff = DAY, **options: Any) -> RoutingPolicy:
        plan = route(models, Workload.from_frame(PAST, tariff), accuracy, draws=0, **{"zeta": 0.4} | options)
        return make_policy(plan, tariff)

    return policy


def rates_of(tariff: Tariff) -> PolicyTariff:
    return PolicyTariff("money", tariff, 0.33)


@given(at_s=st.floats(1.6e9, 2.0e9), tariff=st.sampled_from([DAY, BERLIN]))
def test_the_rate_of_a_moment_is_the_tariffs(at_s: float, tariff: Tariff) -> None:
    rates = rates_of(tariff)
    found = rates.stretch(at_s)
    assert found.start_s <= at_s < found.end_s
    # As a workload's times have it, all along the stretch.
    times_s = np.array([at_s, found.start_s, found.end_s - 1])
    assert rates.parts_of_trace(times_s) == pytest.approx([found.part] * 3, rel=1e-15)
    assert rates.parts(times_s.tolist()) == [found.part] * 3


def test_rows_of_a_market_end_and_then_the_mean_holds() -> None:
    rates, mean = rates_of(MARKET), 0.7 / 3 / 0.33
    moments = {-1: mean, 0: 0.2 / 0.33, 899.9: 0.2 / 0.33, 900: 0.1 / 0.33, 4499: 0.1 / 0.33, 4500: mean}
    moments |= {7199: mean, 7200: 0.4 / 0.33, 10_799: 0.4 / 0.33, 10_800: mean, 1e9: mean}
    times_s = [MIDNIGHT_S + after for after in moments]
    assert rates.parts(times_s) == pytest.approx(list(moments.values()))
    for at_s, part in zip(times_s, moments.values(), strict=True):
        start_s, end_s = rates.stretch(at_s)[1:]
        assert start_s <= at_s < end_s
        assert rates.parts([start_s, min(end_s, 1e12) - 1e-3]) == pytest.approx([part] * 2)
    assert rates.parts([None, None]) == pytest.approx([mean] * 2)
    with pytest.raises(InputError, match="when the tariff has no rate"):
        rates.parts_of_trace(np.array([MIDNIGHT_S + 4500.0]))


def test_the_argmin_at_each_hour_gives_the_plan_back(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    plan = route(models, Workload.from_frame(PAST, DAY), accuracy, zeta=0.4, shares={"small": 0.3}, draws=0)
    policy = make_policy(plan, DAY)
    assert (policy.weighs, policy.tariff and policy.tariff.highest_per_kwh) == ("money", pytest.approx(0.33))
    assert policy.tariff is not None
    parts = policy.tariff.parts_of_trace(PAST["timestamp"].to_numpy())
    costs = policy.costs(PAST["input_tokens"], PAST["output_tokens"], part=parts)
    names = [model.name for model in policy.models]
    chosen = np.array([names.index(name) for name in models_per_query(plan)])
    assert costs[np.arange(len(PAST)), chosen] == pytest.approx(costs.min(axis=1), abs=1e-12)
    # The hour decides some of them.
    assert (policy.choose(PAST["input_tokens"], PAST["output_tokens"]) != chosen).mean() > 0.02


@pytest.mark.parametrize("known", [True, False], ids=["lengths known", "lengths learnt"])
def test_a_router_decides_by_its_clock(make: Make, known: bool) -> None:
    policy, now_s = make(BERLIN), 0.0
    router = OnlineRouter(policy, clock=lambda: now_s)
    router.remember(PAST["input_tokens"], PAST["output_tokens"], lengths_known=known)
    assert policy.tariff is not None
    differ = 0
    for τin in range(20, 2000, 60):
        chosen = []
        for now_s in (NIGHT, EVENING):
            model = router.choose(τin, 3000.0 / τin if known else None)
            chosen.append(model.name)
            if known:
                part = policy.tariff.stretch(now_s).part
                assert model is policy.models[int(policy.choose(τin, 3000.0 / τin, part=part))]
        differ += chosen[0] != chosen[1]
        order = [model.name for model in policy.models]
        assert order.index(chosen[0]) <= order.index(
            chosen[1]
        )  # large, medium, small: the costly hour takes the smaller
    assert differ


def test_prices_are_those_of_queries_at_their_hours(make: Make) -> None:
    policy = make(shares={"small": 0.5, "medium": 0.3, "large": 0.2})
    router = OnlineRouter(policy, period=1500, clock=lambda: NIGHT)
    router.remember(PAST["input_tokens"], PAST["output_tokens"], times_s=PAST["timestamp"].tolist(), lengths_known=True)
    assert policy.tariff is not None
    bare = policy.costs(
        PAST["input_tokens"], PAST["output_tokens"], part=policy.tariff.parts_of_trace(PAST["timestamp"].to_numpy())
    ) - [model.price for model in policy.models]
    limits = [300, 450, 750]
    expected = price_sample(np.ascontiguousarray(bare), limits, limits, 1500)
    assert list(router.prices.values()) == pytest.approx(expected.tolist(), abs=1e-9)


def test_what_is_saved_goes_on_at_its_hours(make: Make, tmp_path: Path) -> None:
    policy, state = make(shares={"large": 0.2, "small": 0.5}), tmp_path / "router.json"
    day = day_of(900, 2).itertuples(index=False)
    now = next(day)

    def begin() -> OnlineRouter:
        return OnlineRouter(policy, period=2000, clock=lambda: now.timestamp)

    first = begin()
    first.remember(PAST["input_tokens"], PAST["output_tokens"], times_s=PAST["timestamp"].tolist(), lengths_known=True)
    while now.timestamp < EVENING:
        first.choose(now.input_tokens, now.output_tokens)
        first.observe(now.input_tokens, now.output_tokens)
        now = next(day)
    first.save(state)
    second = begin()
    second.restore(state)
    assert second.served == first.served
    for now in day:
        query = now.input_tokens, now.output_tokens
        assert second.choose(*query) is first.choose(*query)
        for router in (first, second):
            router.observe(*query)
    assert first.learn()
    assert second.learn()
    assert second.prices == first.prices
    # A state of before times were kept is taken up, and its queries came at no known hour.
    document = json.loads(state.read_text())
    assert len(document.pop("times_s")) == len(document["memory"])
    state.write_text(json.dumps(document))
    begin().restore(state)
    state.write_text(json.dumps(document | {"times_s": [0.0]}))
    with pytest.raises(InputError, match="do not fit"):
        begin().restore(state)


@pytest.fixture(scope="module")
def hourly(make: Make) -> RoutingPolicy:
    return make(BERLIN)


@pytest.mark.parametrize("tariff", [DAY, BERLIN, MARKET], ids=["day", "zone", "market"])
def test_round_trip(hourly: RoutingPolicy, tariff: Tariff, tmp_path: Path) -> None:
    prices = replace(tariff, per_kwh={"eur_per_kwh": tariff.per_kwh["eur_per_kwh"]})
    policy = replace(hourly, tariff=rates_of(prices))
    save_policy(policy, tmp_path / "policy.json")
    loaded = load_policy(tmp_path / "policy.json")
    assert dump_policy(loaded) == dump_policy(policy)
    times_s = [MIDNIGHT_S + 100.0 * step for step in range(200)]
    assert loaded.tariff is not None
    assert loaded.tariff.parts(times_s) == rates_of(tariff).parts(times_s)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("weighs",), "energy", "tariff.weighs = .*: unknown; use one of money, carbon"),
        (("highest_per_kwh",), 0, "tariff.highest_per_kwh = 0: is not above 0"),
        (("zone",), "Europe/Bonn", "tariff.zone = .*: no time zone of this name"),
        (("rates",), [], r"tariff.rates = \[\]: holds no rate"),
        (("rates", 3, "hour"), 24, r"tariff.rates\[3\].hour = 24: is not an hour of the day"),
        (("rates", 3, "hour"), 2, r"tariff.rates\[3\].hour = 2: does not come after the row before"),
        (("rates", 3, "per_kwh"), -1.5, r"tariff.rates\[3\].per_kwh = -1.5: is not above 0"),
        (("rates", 3), {"timestamp": "2026-01-01", "per_kwh": 1}, r"tariff.rates\[3\].hour = missing"),
        (("rates",), [{"timestamp": "noon", "per_kwh": 1}], r"tariff.rates\[0\].timestamp = .*: is not an ISO date"),
        (("rates",), [{"timestamp": "2026-01-01", "per_kwh": 1}], "tariff.zone = .*: is of hours of the day"),
    ],
)
def test_what_is_no_tariff_is_refused(
    hourly: RoutingPolicy, tmp_path: Path, place: tuple[str | int, ...], value: Any, message: str
) -> None:
    document = changed(dump_policy(hourly), ("tariff", *place), value)
    (tmp_path / "policy.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        load_policy(tmp_path / "policy.json")


def test_a_plan_of_energy_leaves_no_rates(models: list[WorkloadModel], accuracy: dict[str, float]) -> None:
    energy = route(models, Workload.from_frame(PAST, DAY), accuracy, weigh="energy", draws=0)
    assert make_policy(energy, DAY).tariff is None


@pytest.mark.parametrize("weigh", ["money", "carbon"])
def test_a_replay_is_at_the_hours_of_the_trace(make: Make, weigh: Any) -> None:
    policy = make(shares={"small": 0.5, "medium": 0.3, "large": 0.2}, weigh=weigh)
    frame = day_of(2000, 3)
    found = simulate(policy, Trace.from_frame(frame)).strategies
    assert (found["optimum"].cost_eur is None, found["optimum"].carbon_g is None) == (
        weigh == "carbon",
        weigh == "money",
    )
    rest = frame.iloc[400:]
    per_kwh = PRICES["eur_per_kwh" if weigh == "money" else "g_co2_per_kwh"]
    rate = per_kwh[(rest["timestamp"] // 3600).astype(int)] / J_PER_KWH
    name = policy.models[0].name
    energy_j = policy.models[0].energy.predict(rest["input_tokens"], rest["output_tokens"])
    single = found[f"single:{name}"]
    assert (single.cost_eur or single.carbon_g) == pytest.approx(energy_j @ rate)
    assert policy.tariff is not None
    costs = policy.costs(
        rest["input_tokens"],
        rest["output_tokens"],
        part=policy.tariff.parts_of_trace(rest["timestamp"].to_numpy()),
    )
    assert single.objective == pytest.approx(costs[:, 0].sum() - len(rest) * policy.models[0].price)
    closed = {name: strategy.closed for name, strategy in found.items() if strategy.closed is not None}
    assert max(closed, key=lambda each: closed[each]) == "optimum"
    assert closed["online_lengths_known"] > 0.95
    assert closed["online"] > 0.85 * closed["optimum_same_information"]
    assert closed["re_solving"] > 0.7 * closed["optimum_same_information"]


def test_a_point_is_worth_in_a_replay_what_it_was_in_the_plan(
    models: list[WorkloadModel], accuracy: dict[str, float]
) -> None:
    plan = route(models, Workload.from_frame(PAST, DAY), accuracy, zeta=0.4, draws=0)
    result = simulate(make_policy(plan, DAY), Trace.from_frame(PAST), history=0, only="greedy")
    assert result.amount_per_point == pytest.approx(plan.amount_per_point)
    assert (result.joules_per_point, result.weighs) == (None, plan.weighs)


def test_a_trace_beyond_the_tariff_is_refused(hourly: RoutingPolicy) -> None:
    policy = replace(hourly, tariff=rates_of(MARKET))
    with pytest.raises(InputError, match="came when the tariff has no rate"):
        simulate(policy, Trace.from_frame(PAST))


def test_a_trace_knows_when_it_was() -> None:
    frame = PAST.iloc[:3].assign(timestamp=["2026-03-29T10:00:00.25+02:00", "2026-03-29 09:00", "2026-03-29T08:30Z"])
    trace = Trace.from_frame(frame)
    assert trace.arrival_s.tolist() == [0, 1799.75, 3599.75]
    assert trace.times_s.tolist() == [MIDNIGHT_S + 28_800.25, MIDNIGHT_S + 30_600, MIDNIGHT_S + 32_400]
    later = trace.split(1)[1]
    assert later.times_s.tolist() == trace.times_s[1:].tolist()
