"""Where models lie. CUDA itself is a stand-in here: on a real card tests/gpu says the same."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scripted import prompt

from llmpower.spans import SpanClient, instrument, uninstrument
from llmpower.spans.transformers import placement


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Cards that take 2 ms to be done with what they were given; the card of each wait."""
    waited: list[int] = []

    def synchronise(device: torch.device) -> None:
        waited.append(device.index)
        time.sleep(0.002)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronise)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=f"uuid-{index}"))
    placement._uuid.cache_clear()
    yield waited
    placement._uuid.cache_clear()


def on_two_cards(model: Any) -> Any:
    """As accelerate leaves a model that it spreads over two cards, memory and disk."""
    model.hf_device_map = {
        "model.embed_tokens": 1,
        "model.layers.0": "cuda:0",
        "model.layers.1": "cpu",
        "lm_head": "disk",
    }
    return model


@pytest.mark.parametrize("synchronise", [True, False])
def test_a_model_on_two_cards_names_both_and_waits_for_both(
    tiny_llama: Any, client: SpanClient, receiver: Any, waits: list[int], synchronise: bool
) -> None:
    instrument(client=client, synchronise=synchronise)
    on_two_cards(tiny_llama).generate(prompt(1, 4), max_new_tokens=2)
    (span,) = receiver.wait_for_spans(1)
    assert span.device_uuids == ("GPU-uuid-0", "GPU-uuid-1")
    assert waits == ([0, 1] * 3 if synchronise else [])
    if synchronise:
        # Of the first token and the end; what the start waited for is not this call's.
        assert 4 * 0.002 <= float(span.attributes["synchronise_s"]) < span.runtime_s
    else:
        assert "synchronise_s" not in span.attributes


def test_the_environment_turns_waiting_off(
    tiny_llama: Any, client: SpanClient, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPOWER_SYNCHRONISE", "0")
    instrument(client=client)
    on_two_cards(tiny_llama).generate(prompt(1, 4), max_new_tokens=2)
    assert waits == []


@pytest.mark.parametrize(
    ("devices", "uuids"),
    [
        (["cpu"], ()),
        (["cuda:1", "cpu", "cuda:0"], ("GPU-uuid-0", "GPU-uuid-1")),
        (["cuda:10", "cuda:9"], ("GPU-uuid-9", "GPU-uuid-10")),
        (["mps"], None),
        (["xpu:0", "cpu"], None),
    ],
)
@pytest.mark.usefixtures("waits")
def test_devices_as_nvml_names_them(devices: list[str], uuids: tuple[str, ...] | None) -> None:
    assert placement.uuids_of([torch.device(name) for name in devices]) == uuids


def test_weights_that_are_not_there_yet_are_nowhere() -> None:
    with torch.device("meta"):
        model = torch.nn.Linear(1, 1)
    assert placement.devices_of(model) == []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models that were asked for all their weights; the time alone makes no answer old here."""
    monkeypatch.setattr(placement, "REMEMBERED_S", 3600.0)
    models: list[Any] = []
    devices_of = placement.devices_of
    monkeypatch.setattr(placement, "devices_of", lambda model: models.append(model) or devices_of(model))
    return models


@pytest.fixture
def instrumented(client: SpanClient) -> None:
    """All models, as by a program that measures them."""
    instrument(client=client)


def two_layers() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))


def halve_a_layer(model: Any) -> None:
    model[1].half()


def swap_weights_by_hand(model: Any) -> None:
    for module in model:
        module._parameters["weight"] = torch.nn.Parameter(module.weight.to("meta"))


def replace_the_first_layer(model: Any) -> None:
    model[0] = torch.nn.Linear(2, 2)


def dispatch(model: Any) -> None:
    model.hf_device_map = {"": "cpu"}


@pytest.mark.parametrize("move", [halve_a_layer, swap_weights_by_hand, replace_the_first_layer, dispatch])
@pytest.mark.usefixtures("instrumented")
def test_a_model_is_asked_again_once_something_has_moved(asked: list[Any], move: Any) -> None:
    model = two_layers()
    assert placement.placement_of(model) is placement.placement_of(model)
    assert asked == [model]
    move(model)
    placement.placement_of(model)
    placement.placement_of(model)
    assert asked == [model, model]


@pytest.mark.usefixtures("instrumented")
def test_a_model_is_asked_again_after_a_while(asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "REMEMBERED_S", 0.0)
    model = two_layers()
    placement.placement_of(model)
    placement.placement_of(model)
    assert asked == [model, model]


def test_what_moved_while_nobody_watched_is_asked_again(asked: list[Any], client: SpanClient) -> None:
    instrument(client=client)
    model = two_layers()
    placement.placement_of(model)
    uninstrument()
    model.half()
    instrument(client=client)
    placement.placement_of(model)
    assert asked == [model, model]


@pytest.mark.usefixtures("instrumented")
def test_a_model_that_is_gone_is_forgotten() -> None:
    before = len(placement._known)
    model = two_layers()
    placement.placement_of(model)
    assert len(placement._known) == before + 1
    del model
    gc.collect()
    assert len(placement._known) <= before


@pytest.mark.usefixtures("waits")
def test_a_model_that_is_spread_after_its_first_call_names_both_cards(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    instrument(client=client, synchronise=False)
    tiny_llama.generate(prompt(1, 4), max_new_tokens=2)
    on_two_cards(tiny_llama).generate(prompt(1, 4), max_new_tokens=2)
    assert [span.device_uuids for span in receiver.wait_for_spans(2)] == [(), ("GPU-uuid-0", "GPU-uuid-1")]
