"""Tokens counted by hand: every call's true numbers follow from how the call was made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scripted import EOS, PAD, Script, prompt, tiny_bart
from transformers import GenerationConfig, LogitsProcessorList

from llmpower.spans import SpanClient, instrument, uninstrument
from llmpower.types import Span


@pytest.fixture
def count(tiny_llama: Any, client: SpanClient, receiver: Any) -> Any:
    """Generates and returns the call's span."""

    def generate(*args: Any, model: Any = tiny_llama, **kwargs: Any) -> Span:
        instrument(model, client=client)
        done = len(receiver.spans)
        model.generate(*args, **kwargs)
        uninstrument(model)
        return receiver.wait_for_spans(done + 1)[-1]

    return generate


def test_a_plain_call(count: Any) -> None:
    span = count(prompt(1, 9), max_new_tokens=5, do_sample=False)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (9, 5, 1)


@pytest.mark.parametrize("how", ["positional", "input_ids", "inputs"])
def test_the_prompt_may_come_under_any_name(count: Any, how: str) -> None:
    ids = prompt(2, 6)
    args, kwargs = ((ids,), {}) if how == "positional" else ((), {how: ids})
    span = count(*args, max_new_tokens=3, attention_mask=torch.ones_like(ids), **kwargs)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (12, 6, 2)


def test_left_padding_is_no_input(count: Any) -> None:
    mask = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    span = count(prompt(3, 5), attention_mask=mask, max_new_tokens=4, pad_token_id=PAD)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (2 + 4 + 5, 12, 3)


def test_padding_that_generate_infers_is_no_input(count: Any) -> None:
    ids = prompt(2, 5)
    ids[0, :3] = PAD
    assert count(ids, max_new_tokens=2, pad_token_id=PAD).input_tokens == 2 + 5
    # Where padding cannot be told from the end of a sequence, generate infers none, and works on all of it.
    assert count(ids, max_new_tokens=2, pad_token_id=PAD, eos_token_id=PAD).input_tokens == 10


@pytest.mark.parametrize("pad", [PAD, EOS])
def test_a_row_that_ended_early_counts_up_to_its_end(count: Any, pad: int) -> None:
    script = Script([[5, 6, EOS, 9, 9, 9], [5, 6, 7, 8, 9, 10], [EOS, 9, 9, 9, 9, 9]], prompt=4)
    span = count(
        prompt(3, 4),
        attention_mask=torch.ones(3, 4),
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=pad,
        logits_processor=LogitsProcessorList([script]),
    )
    assert span.output_tokens == 3 + 6 + 1


def test_any_of_several_ends_counts(count: Any) -> None:
    script = Script([[5, 7, 9, 9], [5, EOS, 9, 9], [5, 6, 8, 8]], prompt=2)
    span = count(
        prompt(3, 2),
        attention_mask=torch.ones(3, 2),
        max_new_tokens=4,
        do_sample=False,
        eos_token_id=[EOS, 7],
        pad_token_id=PAD,
        logits_processor=LogitsProcessorList([script]),
    )
    assert span.output_tokens == 2 + 2 + 4


def test_a_padding_id_that_was_generated_counts(count: Any) -> None:
    script = Script([[5, PAD, PAD]], prompt=2)
    span = count(
        prompt(1, 2),
        max_new_tokens=3,
        do_sample=False,
        pad_token_id=PAD,
        logits_processor=LogitsProcessorList([script]),
    )
    assert span.output_tokens == 3


@pytest.mark.parametrize("pad", [PAD, EOS])
def test_a_row_that_a_criterion_of_the_caller_ended_counts_up_to_its_end(count: Any, pad: int) -> None:
    def at_seven(input_ids: torch.Tensor, *_scores: Any, **_settings: Any) -> torch.Tensor:
        return input_ids[:, -1] == 7

    script = Script([[5, 7, 9, 9], [5, 6, 8, 8]], prompt=2)
    span = count(
        prompt(2, 2),
        attention_mask=torch.ones(2, 2),
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=pad,
        logits_processor=LogitsProcessorList([script]),
        stopping_criteria=[at_seven],
    )
    assert span.output_tokens == 2 + 4


def test_a_result_as_a_dictionary(count: Any) -> None:
    span = count(prompt(2, 3), attention_mask=torch.ones(2, 3), max_new_tokens=4, return_dict_in_generate=True)
    assert (span.input_tokens, span.output_tokens) == (6, 8)


def test_sampled_sequences_are_all_output_and_their_prompt_is_one(count: Any) -> None:
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    span = count(
        prompt(2, 3), attention_mask=mask, max_new_tokens=4, min_new_tokens=4, do_sample=True, num_return_sequences=3
    )
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (5, 2 * 3 * 4, 2)


def test_only_returned_beams_are_output(count: Any, tiny_llama: Any) -> None:
    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    settings = {"attention_mask": mask, "num_beams": 4, "num_return_sequences": 2, "max_new_tokens": 8}
    ids = prompt(2, 3)
    fixed = count(ids, **settings, min_new_tokens=8)
    assert (fixed.input_tokens, fixed.output_tokens, fixed.batch_size) == (5, 2 * 2 * 8, 2)
    # Any token of a quarter of the vocabulary ends a beam, so that they end at different lengths.
    settings |= {"eos_token_id": list(range(1, 33)), "pad_token_id": PAD, "length_penalty": 0.0}
    result = tiny_llama.generate(ids, **settings, return_dict_in_generate=True, output_logits=True, output_scores=True)
    lengths = (result.beam_indices >= 0).sum(1)
    assert len(set(lengths.tolist())) > 1
    assert count(ids, **settings).output_tokens == int(lengths.sum())


def test_a_prompt_of_embeddings(count: Any) -> None:
    span = count(inputs_embeds=torch.randn(2, 7, 64), max_new_tokens=3, min_new_tokens=3)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (14, 6, 2)


def test_no_prompt_is_the_one_token_that_begins_a_sequence(count: Any) -> None:
    span = count(max_new_tokens=3, min_new_tokens=3)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (1, 3, 1)


def test_a_prompt_in_chunks_and_a_static_cache(count: Any) -> None:
    settings = {"attention_mask": torch.ones(2, 10), "max_new_tokens": 3, "min_new_tokens": 3}
    for kind in ({"prefill_chunk_size": 4}, {"cache_implementation": "static"}, {"use_cache": False}):
        span = count(prompt(2, 10), **settings, **kind)
        assert (span.input_tokens, span.output_tokens) == (20, 6)
        assert span.start_ns < span.first_token_ns < span.end_ns


def test_a_decoding_loop_of_the_callers_own(count: Any) -> None:
    def loop(_model: Any, input_ids: torch.Tensor, **_settings: Any) -> torch.Tensor:
        row = torch.tensor([[5, EOS, EOS], [5, 6, 7]])
        return torch.cat([input_ids, row], dim=1)

    mask = torch.tensor([[0, 1, 1], [1, 1, 1]])
    span = count(prompt(2, 3), attention_mask=mask, custom_generate=loop, max_new_tokens=3)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (5, 2 + 3, 2)
    assert "unknown" not in span.attributes


def test_a_result_that_is_no_tokens_is_said_to_be_unknown(count: Any) -> None:
    span = count(prompt(1, 3), custom_generate=lambda *_args, **_kwargs: torch.randn(1, 8), max_new_tokens=3)
    assert (span.input_tokens, span.output_tokens) == (3, 0)
    assert span.attributes["unknown"] == "output_tokens"


def test_an_encoder_with_a_decoder(count: Any) -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    span = count(
        torch.randint(4, 64, (2, 5)),
        attention_mask=mask,
        model=tiny_bart(),
        max_new_tokens=4,
        min_new_tokens=4,
        num_beams=2,
    )
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (9, 8, 2)


class Answering(torch.nn.Module):
    """A model with a ``generate`` of its own, which repeats a prompt of tokens before the answer that it was given."""

    def __init__(self, answer: list[list[int]]) -> None:
        super().__init__()
        self.answer = torch.tensor(answer)

    def generate(self, inputs: Any = None, *, input_ids: Any = None, **_settings: Any) -> torch.Tensor:
        ids = input_ids if inputs is None else inputs
        return self.answer if ids is None or ids.is_floating_point() else torch.cat([ids, self.answer], dim=1)


@pytest.mark.parametrize("how", ["positional", "input_ids", "inputs"])
def test_a_generate_of_the_models_own_is_counted_by_its_arguments(count: Any, how: str) -> None:
    ids, model = prompt(2, 4), Answering([[5, EOS, PAD], [5, 6, 7]])
    args, kwargs = ((ids,), {}) if how == "positional" else ((), {how: ids})
    span = count(*args, model=model, **kwargs)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (8, 6, 2)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    span = count(*args, model=model, attention_mask=mask, eos_token_id=EOS, **kwargs)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (6, 2 + 3, 2)
    model.generation_config = GenerationConfig(eos_token_id=[EOS, 6])
    assert count(*args, model=model, **kwargs).output_tokens == 2 + 2
    given = GenerationConfig(eos_token_id=torch.tensor([7]))
    assert count(*args, model=model, generation_config=given, **kwargs).output_tokens == 3 + 3


@pytest.mark.parametrize("how", ["positional", "inputs", "inputs_embeds"])
def test_what_a_generate_of_the_models_own_gets_may_be_no_tokens(count: Any, how: str) -> None:
    given, model = torch.randn(2, 4, 8), Answering([[5, 6, 7], [5, 6, 7]])
    args, kwargs = ((given,), {}) if how == "positional" else ((), {how: given})
    span = count(*args, model=model, **kwargs)
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (0, 6, 2)
    assert span.attributes["unknown"] == "input_tokens"


def test_long_prompts_and_large_masks_are_counted_alike(count: Any) -> None:
    ids, mask = prompt(2, 300), torch.ones(2, 300)
    ids[:, 7] = EOS
    mask[0, :100] = 0
    script = Script([[5, 6, EOS, 9], [5, 6, 7, 8]], prompt=300)
    span = count(
        ids,
        attention_mask=mask,
        max_new_tokens=4,
        do_sample=False,
        pad_token_id=PAD,
        logits_processor=LogitsProcessorList([script]),
    )
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (500, 3 + 4, 2)


def test_an_end_within_a_short_prompt_ends_nothing(count: Any) -> None:
    ids = prompt(1, 9)
    ids[0, 4] = EOS
    assert count(ids, max_new_tokens=5, min_new_tokens=5, do_sample=False).output_tokens == 5
