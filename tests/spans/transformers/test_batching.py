"""Continuous batching: one span per request, counted by hand, with the library's own times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scripted import EOS
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching.requests import RequestState

from llmpower.spans import SpanClient, instrument, span, uninstrument
from llmpower.spans.transformers.batching import perf_counter_offset_ns
from llmpower.spans.wire import Begin, Cancel
from llmpower.types import Span

PROMPTS = [[5, 6, 7, 8, 9], [11, 12], [20, 21, 22, 23, 24, 25, 26]]


def small(**settings: Any) -> ContinuousBatchingConfig:
    return ContinuousBatchingConfig(**{"num_blocks": 64, "max_batch_tokens": 256, **settings})


def tokens(count: int, **settings: Any) -> GenerationConfig:
    return GenerationConfig(**{"max_new_tokens": count, "do_sample": False, "eos_token_id": -1, **settings})


def by_request(spans: list[Span]) -> dict[str, Span]:
    return {one.attributes["request_id"]: one for one in spans}


@pytest.fixture
def generate(tiny_llama: Any) -> Callable[..., dict[str, Any]]:
    def run(inputs: list[list[int]] = PROMPTS, config: GenerationConfig | None = None, **settings: Any) -> Any:
        settings.setdefault("continuous_batching_config", small())
        return tiny_llama.generate_batch(inputs, generation_config=config or tokens(6), warmup=False, **settings)

    return run


def test_every_request_is_a_span_with_the_librarys_own_times(generate: Any, client: SpanClient, receiver: Any) -> None:
    plain = generate(record_timestamps=True)
    instrument(client=client, model_name="tiny")
    measured = generate(record_timestamps=True)
    assert [out.generated_tokens for out in measured.values()] == [out.generated_tokens for out in plain.values()]
    spans = by_request(receiver.wait_for_spans(3))
    assert len(receiver.messages) == 6, "a beginning and an end each"
    assert list(measured) == ["req_0", "req_1", "req_2"]
    for (name, out), given in zip(measured.items(), PROMPTS, strict=True):
        one = spans[name]
        assert (one.model_name, one.device_uuids, one.batch_size) == ("tiny", (), 1)
        assert (one.input_tokens, one.output_tokens) == (len(given), 6)
        assert one.start_ns == round(out.lifespan[0] * 1e9)
        assert one.end_ns == round(out.lifespan[1] * 1e9)
        assert one.start_ns < one.first_token_ns <= round(out.timestamps[0] * 1e9) < one.end_ns
        assert float(one.attributes["queue_s"]) == pytest.approx(out.lifespan[0] - out.created_time, abs=1e-6)


def test_requests_begin_when_they_are_admitted(generate: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    generate(continuous_batching_config=small(max_requests_per_batch=1))
    spans = sorted(receiver.wait_for_spans(3), key=lambda one: one.start_ns)
    begun = {message.span_id: message.start_ns for message in receiver.messages if isinstance(message, Begin)}
    assert begun == {one.span_id: one.start_ns for one in spans}


def test_a_prompt_that_is_worked_on_in_parts_has_its_first_token_after_the_last(
    generate: Any, client: SpanClient, receiver: Any
) -> None:
    instrument(client=client)
    out = generate([list(range(3, 43))], record_timestamps=True, continuous_batching_config=small(max_batch_tokens=16))
    (one,) = receiver.wait_for_spans(1)
    assert (one.input_tokens, one.output_tokens) == (40, 6)
    assert one.start_ns < one.first_token_ns <= round(out["req_0"].timestamps[0] * 1e9)


def test_a_request_that_ends_early_counts_up_to_its_end(generate: Any, client: SpanClient, receiver: Any) -> None:
    # Whatever the third token of the first request is, make it end a sequence.
    end = next(iter(generate().values())).generated_tokens[2]
    config = tokens(6, eos_token_id=end)
    instrument(client=client)
    outputs = generate(config=config)
    expected = {name: len(out.generated_tokens) for name, out in outputs.items()}
    assert expected["req_0"] <= 3
    spans = by_request(receiver.wait_for_spans(3))
    assert {name: one.output_tokens for name, one in spans.items()} == expected


def test_several_sequences_share_their_prompt(generate: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    outputs = generate(PROMPTS[:2], tokens(4, num_return_sequences=3, do_sample=True))
    spans = by_request(receiver.wait_for_spans(6))
    assert spans.keys() == outputs.keys()
    assert sum(one.input_tokens for one in spans.values()) == len(PROMPTS[0]) + len(PROMPTS[1])
    assert sum(one.output_tokens for one in spans.values()) == 2 * 3 * 4
    assert spans["req_0"].input_tokens == len(PROMPTS[0])
    assert all(one.start_ns < one.first_token_ns < one.end_ns for one in spans.values())


def test_a_cache_that_is_full_throws_requests_out_and_they_stay_one_span(
    generate: Any, client: SpanClient, receiver: Any
) -> None:
    prompts = [[3 + number] * 30 for number in range(6)]
    crowded = small(num_blocks=8, block_size=32, max_batch_tokens=64, cpu_offload_space=0)
    thrown_out = []
    original = RequestState.create_equivalent_initial_request
    RequestState.create_equivalent_initial_request = lambda state: thrown_out.append(state) or original(state)
    try:
        instrument(client=client)
        outputs = generate(prompts, tokens(40), continuous_batching_config=crowded)
    finally:
        RequestState.create_equivalent_initial_request = original
    assert thrown_out, "the cache was large enough for all"
    assert len(outputs) == 6
    spans = by_request(receiver.wait_for_spans(6))
    assert len(receiver.messages) == 12
    assert {(one.input_tokens, one.output_tokens) for one in spans.values()} == {(30, 40)}


def test_a_manager_that_a_program_keeps(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    manager = tiny_llama.init_continuous_batching(tokens(5), small())
    manager.start()
    try:
        for number, ids in enumerate(PROMPTS):
            manager.add_request(ids, request_id=f"mine-{number}", max_new_tokens=3 + number, streaming=number == 0)
        ends = 0
        while ends < len(PROMPTS):
            output = manager.get_result(timeout=10)
            assert output is not None
            ends += output.is_finished()
        # Each is sent before its result is delivered.
        counts = {
            name: (one.input_tokens, one.output_tokens) for name, one in by_request(receiver.wait_for_spans(3)).items()
        }
        assert counts == {"mine-0": (5, 3), "mine-1": (2, 4), "mine-2": (7, 5)}
    finally:
        manager.stop(block=True)


def test_handlers_of_an_event_loop_get_their_results(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    manager = tiny_llama.init_continuous_batching(tokens(4), small())
    manager.start()

    async def ask(ids: list[int], name: str) -> Any:
        answer = asyncio.get_running_loop().create_future()
        manager.register_result_handler(name, answer.set_result)
        manager.add_request(ids, request_id=name, max_new_tokens=4)
        return await answer

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(*(ask(ids, f"task-{number}") for number, ids in enumerate(PROMPTS)))

    try:
        answers = asyncio.run(all_at_once())
    finally:
        manager.stop(block=True)
    spans = by_request(receiver.wait_for_spans(3))
    for answer in answers:
        one = spans[answer.request_id]
        assert (one.input_tokens, one.output_tokens) == (len(answer.prompt_ids), len(answer.generated_tokens))


def test_what_is_cancelled_or_cut_off_is_withdrawn(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    manager = tiny_llama.init_continuous_batching(tokens(200), small())
    manager.start()
    manager.add_request(PROMPTS[0], request_id="cancelled", max_new_tokens=200, streaming=True)
    manager.get_result(timeout=10)  # it is under way
    manager.cancel_request("cancelled")
    manager.add_request(PROMPTS[1], request_id="cut off", max_new_tokens=200, streaming=True)
    while (output := manager.get_result(timeout=10)) is None or output.request_id != "cut off":
        pass
    manager.stop(block=True, hard_stop=True)
    messages = receiver.wait(4)
    begun = {message.span_id for message in messages if isinstance(message, Begin)}
    assert {message.span_id for message in messages if isinstance(message, Cancel)} == begun
    assert receiver.spans == []


def test_an_error_in_the_loop_withdraws_what_was_under_way(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    def fail(*_arguments: Any) -> None:
        raise RuntimeError("no memory")

    instrument(client=client)
    handle = tiny_llama.register_forward_hook(fail)
    try:
        outputs = tiny_llama.generate_batch(
            PROMPTS[:1], generation_config=tokens(3), continuous_batching_config=small(), warmup=False
        )
    finally:
        handle.remove()
    assert all(output.error for output in outputs.values())
    begin, cancel = receiver.wait(2)
    assert cancel == Cancel(begin.span_id)


def test_requests_inside_a_span_are_part_of_it(generate: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    with span(model_name="mine", client=client):
        generate()
    generate(PROMPTS[:1])
    assert [one.model_name for one in receiver.wait_for_spans(2)] == ["mine", "LlamaForCausalLM"]
    assert len(receiver.messages) == 4


def test_generate_with_a_paged_cache_is_a_span_a_row(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    config = tokens(4, continuous_batching_config=small())
    rows = torch.tensor([[5, 6, 7], [8, 9, 10]])
    plain = tiny_llama.generate(rows, generation_config=config, cache_implementation="paged", warmup=False)
    instrument(client=client)
    measured = tiny_llama.generate(rows, generation_config=config, cache_implementation="paged", warmup=False)
    assert torch.equal(plain, measured)
    assert [(one.input_tokens, one.output_tokens) for one in receiver.wait_for_spans(2)] == [(3, 4)] * 2


def test_only_the_instrumented_model_is_measured(
    tiny_llama: Any, generate: Any, client: SpanClient, receiver: Any
) -> None:
    other = type(tiny_llama)(tiny_llama.config).eval()
    instrument(tiny_llama, client=client)
    other.generate_batch(PROMPTS[:1], generation_config=tokens(3), continuous_batching_config=small(), warmup=False)
    generate(PROMPTS[:1], tokens(4))
    assert [one.output_tokens for one in receiver.wait_for_spans(1)] == [4]


def test_without_instrumentation_nothing_of_ours_is_left(client: SpanClient) -> None:
    before = dict(vars(RequestState))
    instrument(client=client)
    assert vars(RequestState)["status"] is not before["status"]
    uninstrument()
    assert dict(vars(RequestState)) == before


def test_both_clocks_are_one_or_their_difference_is_known() -> None:
    offset_ns = perf_counter_offset_ns()
    before_ns, between_ns, after_ns = time.monotonic_ns(), time.perf_counter_ns(), time.monotonic_ns()
    assert before_ns <= between_ns + offset_ns <= after_ns


def test_the_end_of_a_sequence_counts(generate: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    outputs = generate(PROMPTS, tokens(64, eos_token_id=[EOS, *range(3, 60)]))
    spans = by_request(receiver.wait_for_spans(3))
    assert {name: one.output_tokens for name, one in spans.items()} == {
        name: len(out.generated_tokens) for name, out in outputs.items()
    }
