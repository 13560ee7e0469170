"""Every way to generate that this version ships: tokens counted by hand, phases, and results equal to the bit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from scripted import EOS, PAD, Script, prompt, tiny_bart, word_tokenizer
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    TextIteratorStreamer,
    pipeline,
)

from llmpower.spans import SpanClient, instrument, uninstrument

RECIPE = """
import torch
from transformers import GenerationMixin

def _loop(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
    done = False
    while not done:
        inputs = model.prepare_inputs_for_generation(input_ids, **model_kwargs)
        outputs = model(**inputs, return_dict=True)
        model_kwargs = model._update_model_kwargs_for_generation(outputs, model_kwargs)
        scores = logits_processor(input_ids, outputs.logits[:, -1])
        input_ids = torch.cat([input_ids, 3 + scores[:, 3:].argmin(-1, keepdim=True)], dim=-1)
        done = bool(stopping_criteria(input_ids, None).all())
    return input_ids

def generate(model, **kwargs):
    return GenerationMixin.generate(model, custom_generate=_loop, **kwargs)
"""
"""A recipe as they lie on the hub, where this version has moved contrastive search and its like: least likely first."""


@dataclass(frozen=True)
class Mode:
    """One way to call: keywords of ``generate``, and what its span must say.

    ``tokens`` are input and output of the whole call. ``phases`` is whether the mode has a first token to see.
    """

    settings: Mapping[str, Any]
    tokens: tuple[int, int]
    rows: int = 1
    phases: bool = True
    inputs: Callable[[], Mapping[str, Any]] = field(default=lambda: {"inputs": prompt(1, 9)})


def two_rows() -> Mapping[str, Any]:
    """Seven tokens between two rows of five, padded on the left."""
    return {"inputs": prompt(2, 5), "attention_mask": torch.tensor([[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]])}


def padded_right() -> Mapping[str, Any]:
    return {"inputs": prompt(2, 5), "attention_mask": torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])}


def six(**settings: Any) -> dict[str, Any]:
    """Settings for six new tokens exactly."""
    return {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": PAD, **settings}


def own_loop(_model: Any, input_ids: torch.Tensor, **_settings: Any) -> torch.Tensor:
    return torch.cat([input_ids, torch.full((len(input_ids), 6), 7)], dim=1)


def ends_early() -> LogitsProcessorList:
    return LogitsProcessorList([Script([[9, EOS, 9, 9, 9, 9], [9, 9, 9, 9, EOS, 9]], prompt=5)])


MODES = {
    "greedy": Mode(six(), (9, 6)),
    "sampling": Mode(six(do_sample=True, top_k=50, temperature=1.5), (9, 6)),
    "several samples": Mode(six(do_sample=True, num_return_sequences=3), (7, 36), rows=2, inputs=two_rows),
    "beams": Mode(six(num_beams=3), (7, 12), rows=2, inputs=two_rows),
    "several beams": Mode(six(num_beams=4, num_return_sequences=2), (7, 24), rows=2, inputs=two_rows),
    "beam sampling": Mode(six(num_beams=3, do_sample=True), (9, 6)),
    "dictionary": Mode(six(return_dict_in_generate=True, output_scores=True, output_logits=True), (9, 6)),
    "left padding": Mode(six(), (7, 12), rows=2, inputs=two_rows),
    "right padding": Mode(six(), (7, 12), rows=2, inputs=padded_right),
    "early ends": Mode(six(min_new_tokens=None, logits_processor=ends_early()), (7, 2 + 5), rows=2, inputs=two_rows),
    "prompt in chunks": Mode(six(prefill_chunk_size=4), (9, 6)),  # 4 + 4 + 1: the last looks like a decode step
    "static cache": Mode(six(cache_implementation="static"), (7, 12), rows=2, inputs=two_rows),
    "static cache in chunks": Mode(six(cache_implementation="static", prefill_chunk_size=4), (9, 6)),
    "cache of 8-bit floats": Mode(six(cache_implementation="quantized", cache_config={"backend": "fp8"}), (9, 6)),
    "no cache": Mode(six(use_cache=False), (9, 6)),
    "repetition penalty": Mode(six(repetition_penalty=1.3, no_repeat_ngram_size=2), (9, 6)),
    "guidance": Mode(six(guidance_scale=1.5), (9, 6)),
    "renormalised": Mode(six(renormalize_logits=True), (9, 6)),
    "lookup in the prompt": Mode(six(prompt_lookup_num_tokens=2), (9, 6)),
    "early exit": Mode(six(assistant_early_exit=1), (9, 6)),
    "own loop": Mode(six(custom_generate=own_loop), (7, 12), rows=2, inputs=two_rows, phases=False),
    "embeddings": Mode(six(), (14, 12), rows=2, inputs=lambda: {"inputs_embeds": torch.randn(2, 7, 64)}),
    "nothing": Mode(six(), (1, 6), inputs=dict),
}


@pytest.fixture
def twice(client: SpanClient, receiver: Any) -> Callable[..., Any]:
    """Does something without and with instrumentation, compares both, and returns the second one's only span."""

    def run(work: Callable[[], Any]) -> Any:
        torch.manual_seed(1)
        plain, plain_state = work(), torch.get_rng_state()
        done = len(receiver.spans)
        torch.manual_seed(1)
        instrument(client=client)
        measured, measured_state = work(), torch.get_rng_state()
        uninstrument()
        assert_equal(plain, measured)
        assert torch.equal(plain_state, measured_state)
        (span,) = receiver.wait_for_spans(done + 1)[done:]
        assert span.start_ns < (span.first_token_ns or span.end_ns) <= span.end_ns
        return span

    return run


def assert_equal(one: Any, other: Any) -> None:
    """The same to the last bit, tensors within anything too."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys()
        for name in set(one) - {"past_key_values"}:
            assert_equal(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_equal(left, right)
    else:
        assert one == other


@pytest.mark.parametrize("name", MODES)
def test_a_way_to_generate(twice: Any, tiny_llama: Any, name: str) -> None:
    mode = MODES[name]
    inputs = mode.inputs()
    span = twice(lambda: tiny_llama.generate(**inputs, **mode.settings))
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (*mode.tokens, mode.rows)
    assert (span.first_token_ns is not None) is mode.phases
    assert "unknown" not in span.attributes


def test_an_assistant_model_is_part_of_the_call(twice: Any, tiny_llama: Any, receiver: Any) -> None:
    torch.manual_seed(2)
    assistant = LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_diff_dict() | {"num_hidden_layers": 1})).eval()
    ids = prompt(1, 9)
    moments = []
    assistant.register_forward_hook(lambda *_arguments: moments.append(len(receiver.messages)))
    for settings in (six(), six(do_sample=True)):
        span = twice(lambda settings=settings: tiny_llama.generate(ids, assistant_model=assistant, **settings))
        assert (span.input_tokens, span.output_tokens, span.batch_size) == (9, 6, 1)
        assert span.first_token_ns is not None
    assert moments, "the assistant has drafted"


def test_an_assistant_with_a_tokenizer_of_its_own(twice: Any, tiny_llama: Any) -> None:
    assistant = LlamaForCausalLM(LlamaConfig(**tiny_llama.config.to_diff_dict() | {"vocab_size": 160})).eval()
    both = {"tokenizer": word_tokenizer(), "assistant_tokenizer": word_tokenizer()}
    ids = prompt(1, 9)
    span = twice(lambda: tiny_llama.generate(ids, assistant_model=assistant, **both, **six()))
    assert (span.input_tokens, span.output_tokens) == (9, 6)
    assert span.first_token_ns is not None


@pytest.mark.parametrize(
    "settings",
    [
        {"penalty_alpha": 0.6, "top_k": 4},
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"num_beams": 2, "force_words_ids": [[5]]},
        {"dola_layers": "low"},
    ],
    ids=["contrastive search", "group beams", "constrained beams", "DoLa"],
)
def test_modes_that_moved_to_the_hub_fail_as_they_do_without_us(
    tiny_llama: Any, client: SpanClient, receiver: Any, settings: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="trust_remote_code") as plain:
        tiny_llama.generate(prompt(1, 4), max_new_tokens=2, **settings)
    instrument(client=client)
    with pytest.raises(ValueError, match="trust_remote_code") as measured:
        tiny_llama.generate(prompt(1, 4), max_new_tokens=2, **settings)
    assert str(measured.value) == str(plain.value)
    receiver.wait(2)
    assert receiver.spans == []


def test_a_recipe_from_a_folder(twice: Any, tiny_llama: Any, tiny_llama_directory: Path) -> None:
    (tiny_llama_directory / "custom_generate").mkdir()
    (tiny_llama_directory / "custom_generate" / "generate.py").write_text(RECIPE)
    recipe = {"custom_generate": str(tiny_llama_directory), "trust_remote_code": True}
    inputs = two_rows()
    span = twice(lambda: tiny_llama.generate(**inputs, **recipe, **six(use_cache=False)))
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (7, 12, 2)
    assert span.first_token_ns is not None


def test_a_streamer_in_another_thread(twice: Any, tiny_llama: Any) -> None:
    tokenizer = word_tokenizer()
    ids = prompt(1, 9)

    def stream() -> list[str]:
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=30)
        thread = threading.Thread(target=tiny_llama.generate, args=(ids,), kwargs=six(streamer=streamer))
        thread.start()
        texts = list(streamer)
        thread.join()
        return texts

    span = twice(stream)
    assert (span.input_tokens, span.output_tokens) == (9, 6)
    assert span.first_token_ns is not None


def test_a_cache_that_goes_on_counts_the_whole_conversation(twice: Any, tiny_llama: Any) -> None:
    ids = prompt(1, 9)

    def again() -> torch.Tensor:
        cache = DynamicCache(config=tiny_llama.config)
        with torch.no_grad():
            tiny_llama(ids[:, :5], past_key_values=cache)
        return tiny_llama.generate(ids, past_key_values=cache, **six())

    span = twice(again)
    assert (span.input_tokens, span.output_tokens) == (9, 6)


@pytest.mark.parametrize("pad", [PAD, EOS])
def test_a_stop_string_ends_a_row(twice: Any, tiny_llama: Any, pad: int) -> None:
    script = LogitsProcessorList([Script([[9, 7, 9, 9], [9, 8, 9, 9]], prompt=5)])
    inputs = two_rows()
    settings = six(stop_strings=["w7"], tokenizer=word_tokenizer(), logits_processor=script)
    settings |= {"max_new_tokens": 4, "min_new_tokens": None, "pad_token_id": pad}
    span = twice(lambda: tiny_llama.generate(**inputs, **settings))
    assert (span.input_tokens, span.output_tokens) == (7, 2 + 4)


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"do_sample": True}, {"prompt_lookup_num_tokens": 2}])
def test_an_encoder_with_a_decoder(twice: Any, settings: dict[str, Any]) -> None:
    model = tiny_bart()
    rows = 1 if "prompt_lookup_num_tokens" in settings else 2
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])[:rows]
    ids = torch.randint(4, 64, (rows, 5))
    span = twice(lambda: model.generate(ids, attention_mask=mask, **six(**settings)))
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (3 if rows == 1 else 8, 6 * rows, rows)
    assert span.first_token_ns is not None


def test_pipelines_one_by_one_and_in_batches(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    texts = ["w5 w6 w7", "w8 w9", "w5"]
    plain = pipeline("text-generation", model=tiny_llama, tokenizer=word_tokenizer(), device="cpu")
    settings = six(max_new_tokens=4, min_new_tokens=4)
    expected = [plain(texts, batch_size=size, **settings) for size in (1, 2)]
    instrument(client=client)
    measured = [plain(texts, batch_size=size, **settings) for size in (1, 2)]
    assert_equal(expected, measured)
    counts = [(span.input_tokens, span.output_tokens, span.batch_size) for span in receiver.wait_for_spans(5)]
    assert counts == [(3, 4, 1), (2, 4, 1), (1, 4, 1), (5, 8, 2), (1, 4, 1)]
    assert all(span.first_token_ns is not None for span in receiver.spans)


def test_a_chat_template(twice: Any, tiny_llama: Any) -> None:
    tokenizer = word_tokenizer()
    chat = [{"role": "user", "content": "w5 w6"}, {"role": "assistant", "content": "w7"}]
    inputs = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
    span = twice(
        lambda: tiny_llama.generate(**{name: inputs[name] for name in ("input_ids", "attention_mask")}, **six())
    )
    assert (span.input_tokens, span.output_tokens) == (3, 6)
    chats = [chat, [{"role": "user", "content": "w9"}]]
    made = pipeline("text-generation", model=tiny_llama, tokenizer=tokenizer, device="cpu")
    span = twice(lambda: made(chats, batch_size=2, **six()))
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (3 + 1, 12, 2)


@pytest.mark.parametrize("package", ["hqq", "optimum.quanto"])
@pytest.mark.parametrize("settings", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_a_quantised_cache(twice: Any, tiny_llama: Any, package: str, settings: dict[str, Any]) -> None:
    pytest.importorskip(package, reason=f"a cache quantised by {package} is tried by 'make test-caches'")
    cache = {
        "backend": package.rpartition(".")[2],
        "nbits": 4,
        "axis_key": int(package == "hqq"),
        "axis_value": int(package == "hqq"),
        "q_group_size": 16,
        "residual_length": 4,  # so that six tokens fill it, and are quantised in their turn
    }
    inputs = two_rows()
    span = twice(
        lambda: tiny_llama.generate(
            **inputs, **six(cache_implementation="quantized", cache_config=dict(cache), **settings)
        )
    )
    assert (span.input_tokens, span.output_tokens, span.batch_size) == (7, 12, 2)
    assert span.first_token_ns is not None
