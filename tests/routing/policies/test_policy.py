"""policy.json: it decides as the plan did, comes back as it was written, and is refused by the key that is wrong."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_places import changed, places

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel
from llmpower.routing import (
    AccuracyTable,
    OnlineRouter,
    RoutingPolicy,
    Workload,
    load_policy,
    make_policy,
    models_per_query,
    route,
    save_policy,
)
from llmpower.routing.policies.document import dump_policy
from llmpower.routing.policies.policy import output_lengths
from llmpower.routing.policies.tariff import PolicyTariff
from llmpower.routing.problem.gpu_seconds import GpuSeconds
from llmpower.routing.problem.tariff import Tariff

Models = list[WorkloadModel]
rng = np.random.default_rng(7)
τin, τout = rng.integers(8, 2000, 300), rng.integers(8, 900, 300)
HOURS = np.arange(24)
WORKLOAD = Workload.from_tokens(τin, τout)


@pytest.fixture(scope="module")
def policy(models: Models, accuracy: dict[str, float]) -> RoutingPolicy:
    shares = {"small": 0.2, "large": (0.1, 0.3)}
    return make_policy(route(models, WORKLOAD, accuracy, zeta=0.4, shares=shares))


@pytest.mark.parametrize("weighting", ["tokens", "queries"])
def test_the_argmin_gives_the_plan_back(models: Models, accuracy: dict[str, float], weighting: Any) -> None:
    shares = {"small": 0.25, "medium": (0.3, 0.5)}
    plan = route(models, WORKLOAD, accuracy, zeta=0.3, shares=shares, accuracy_weighting=weighting)
    policy = make_policy(plan)
    costs = policy.costs(τin, τout)
    names = [model.name for model in policy.models]
    chosen = np.array([names.index(name) for name in models_per_query(plan)])
    # Of tied models the plan may take either; nobody else is off the least.
    assert costs[np.arange(300), chosen] == pytest.approx(costs.min(axis=1), abs=1e-12)
    assert (policy.choose(τin, τout) == chosen).mean() > 0.98
    assert [model.share for model in policy.models] == list(plan.shares.values())


@pytest.mark.parametrize("tokens", [-1, np.nan, np.inf, "many"])
def test_a_length_that_cannot_be_is_no_choice(policy: RoutingPolicy, tokens: Any) -> None:
    for lengths in (([8, tokens], 10), (10, [8, tokens])):
        with pytest.raises(InputError, match=r"put_tokens = .*must be a number"):
            policy.choose(*lengths)


def test_share_ranges_are_what_was_asked_for(policy: RoutingPolicy) -> None:
    ranges = {model.name: model.share_range for model in policy.models}
    assert ranges == {"large": (0.1, 0.3), "medium": (0, 1), "small": (0.2, 0.2)}


def test_shares_of_a_few_queries_are_those_of_many(models: Models, accuracy: dict[str, float]) -> None:
    """Of 7 queries 0.05 are none and 0.1 to 0.3 are 1 or 2, which the plan keeps to; of those to come they are not."""
    few = Workload.from_tokens(τin[:7], τout[:7])
    plan = route(models, few, accuracy, zeta=0.4, shares={"small": 0.05, "large": (0.1, 0.3)})
    policy = make_policy(plan)
    ranges = {model.name: model.share_range for model in policy.models}
    assert ranges == {"large": (0.1, 0.3), "medium": (0, 1), "small": (0.05, 0.05)}
    router = OnlineRouter(policy, period=1000)
    chosen = Counter(router.choose(int(tokens)).name for tokens in rng.integers(8, 2000, 1000))
    assert chosen["small"] == 50
    assert 100 <= chosen["large"] <= 300


def test_limits_that_a_policy_cannot_keep_are_refused(models: Models, accuracy: dict[str, float]) -> None:
    limits = GpuSeconds({"large": 100.0}, {"small": 1, "medium": 1, "large": 4})
    plan = route(models, WORKLOAD, accuracy, zeta=0.1, gpu_seconds=limits, draws=0)
    with pytest.raises(InputError, match="--gpu-seconds = large: a policy knows no limits on sums of seconds"):
        make_policy(plan)


def test_round_trip(policy: RoutingPolicy, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    save_policy(policy, path)
    loaded = load_policy(path)
    assert dump_policy(loaded) == dump_policy(policy)
    assert loaded.costs(τin, τout).tolist() == policy.costs(τin, τout).tolist()


def test_energy_alone_has_no_accuracy(models: Models, tmp_path: Path) -> None:
    plan = route(models, WORKLOAD, zeta=1)
    path = tmp_path / "policy.json"
    save_policy(make_policy(plan), path)
    policy = load_policy(path)
    assert {model.accuracy for model in policy.models} == {None}
    chosen = [policy.models[number].name for number in policy.choose(τin, τout)]
    assert chosen == models_per_query(plan)
    for place, value in ((("zeta",), 0.5), (("models", 0, "accuracy_by_class"), {"chat": 0.5})):
        path.write_text(json.dumps(changed(dump_policy(policy), place, value)))
        with pytest.raises(InputError, match=r"models\[0\]\.accuracy = null: a policy that weighs accuracy needs one"):
            load_policy(path)


def test_classes_may_have_accuracies_of_their_own(policy: RoutingPolicy) -> None:
    small = policy.models[2]
    other = replace(policy, models=(*policy.models[:2], replace(small, accuracy_by_class={"chat": 1.0})))
    assert other.costs(50, 50).tolist() == policy.costs(50, 50).tolist()
    assert other.costs(50, 50, "code").tolist() == policy.costs(50, 50).tolist()
    assert other.costs(50, 50, "chat")[2] < policy.costs(50, 50)[2]


def test_a_plan_hands_on_what_it_knows_of_classes(models: Models, accuracy: dict[str, float]) -> None:
    workload = Workload.from_tokens([8, 8, 90], [10, 20, 30], query_class=["chat", "chat", None])
    table = AccuracyTable(accuracy, by_class={"small": {"chat": 0.9}})
    policy = make_policy(route(models, workload, table, zeta=0))
    by_name = {model.name: model for model in policy.models}
    assert by_name["small"].accuracy_by_class == {"chat": 0.9}
    assert by_name["small"].accuracy == pytest.approx((0.9 + 0.9 + 0.5) / 3)
    assert [policy.models[int(policy.choose(8, 10, name))].name for name in ("chat", None)] == ["small", "small"]
    assert [(entry.query_class, entry.input_from, entry.mean) for entry in policy.output_lengths] == [
        *((None, 8, 15), (None, 64, 30)),
        ("chat", 8, 15),
    ]


def test_moments_of_the_output_are_those_of_the_queries() -> None:
    workload = Workload.from_tokens([0, 3, 2, 4, 7], [10, 1, 2, 4, 8], [1, 2, 1, 1, 3])
    lengths = output_lengths(workload)
    assert [(entry.input_from, entry.queries) for entry in lengths] == [(0, 1), (2, 3), (4, 4)]
    outputs = np.array([4, 8, 8, 8])
    last = lengths[-1]
    assert (last.mean, last.mean_square, last.mean_cube) == tuple(
        (outputs.astype(float) ** n).mean() for n in (1, 2, 3)
    )


@given(data=st.data())
def test_whatever_is_changed_is_refused_or_still_a_policy(
    policy: RoutingPolicy, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    hourly = replace(
        policy, tariff=PolicyTariff("money", Tariff(True, HOURS, {"eur_per_kwh": 0.1 + 0.01 * HOURS}), 0.3)
    )
    document = dump_policy(data.draw(st.sampled_from([policy, hourly])))
    place = data.draw(st.sampled_from(places(document)))
    junk = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just([]), st.just({}))
    path = tmp_path_factory.getbasetemp() / "changed.json"
    path.write_text(json.dumps(changed(document, place, data.draw(junk))))
    try:
        loaded = load_policy(path)
    except InputError:
        return
    json.dumps(dump_policy(loaded), allow_nan=False)


@pytest.mark.parametrize(
    ("place", "value", "key"),
    [
        (("schema",), "llmpower.policy/9", "schema"),
        (("zeta",), 1.5, "zeta"),
        (("accuracy_weighting",), "words", "accuracy_weighting"),
        (("scaling", "energy_max_j"), 0, "scaling.energy_max_j"),
        (("scaling", "accuracy_max"), -0.1, "scaling.accuracy_max"),
        (("models",), [], "models"),
        (("models", 1, "name"), "large", "models[1].name"),
        (("models", 0, "price"), None, "models[0].price"),
        (("models", 0, "share_range"), [0.4, 0.2], "models[0].share_range"),
        (("models", 0, "accuracy"), None, "models[0].accuracy"),
        (("models", 0, "accuracy"), 51, "models[0].accuracy"),
        (("models", 0, "accuracy_by_class"), {"chat": 2}, "models[0].accuracy_by_class.chat"),
        (("models", 0, "energy", "terms"), ["p0"], "models[0].energy.terms"),
        (("models", 0, "runtime", "coefficients", "p0"), "x", "models[0].runtime.coefficients.p0"),
        (("output_lengths", 1, "mean"), -1, "output_lengths[1].mean"),
        (("output_lengths", 1, "input_from"), 8, "output_lengths[1].input_from"),
        (("colour",), "red", "colour"),
    ],
)
def test_refusals_name_the_key(
    policy: RoutingPolicy, tmp_path: Path, place: tuple[Any, ...], value: Any, key: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(changed(dump_policy(policy), place, value)))
    with pytest.raises(InputError) as caught:
        load_policy(path)
    assert caught.value.field == key


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_policy(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match=r"llmpower\.policy/1 = \[\]: is not a JSON object"):
        load_policy(tmp_path / "list.json")
