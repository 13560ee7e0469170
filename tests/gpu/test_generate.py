"""transformers on a real card: what CUDA's being asynchronous and compiled calls do to spans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmpower.spans import SpanClient, instrument, uninstrument

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"),
]


def settings(**more: Any) -> dict[str, Any]:
    return {"max_new_tokens": 16, "min_new_tokens": 16, "do_sample": False, **more}


@pytest.fixture
def on_card(tiny_llama: Any) -> Any:
    return tiny_llama.to("cuda")


@pytest.fixture
def span_of(receiver: Any) -> Any:
    """The span of one call."""
    client = SpanClient(receiver.path, retry_after_s=0)

    def call(model: Any, *, synchronise: bool = True, **kwargs: Any) -> Any:
        done = len(receiver.spans)
        ids = torch.arange(3, 35, device="cuda").unsqueeze(0)
        plain = model.generate(ids, **settings(**kwargs))
        instrument(client=client, synchronise=synchronise)
        measured = model.generate(ids, **settings(**kwargs))
        uninstrument()
        assert torch.equal(plain, measured)
        (span,) = receiver.wait_for_spans(done + 1)[done:]
        assert span.device_uuids[0].startswith("GPU-")
        assert (span.input_tokens, span.output_tokens) == (32, 16)
        assert span.start_ns < span.first_token_ns < span.end_ns
        return span

    yield call
    uninstrument()
    client.close()


@pytest.mark.parametrize("cache", ["dynamic", "static", "offloaded", "offloaded_static"])
def test_every_cache_has_its_phases_compiled_or_not(on_card: Any, span_of: Any, cache: str) -> None:
    span = span_of(on_card, cache_implementation=cache)
    assert 0 <= float(span.attributes["synchronise_s"]) < span.runtime_s


def test_without_waiting_the_first_token_comes_no_later(on_card: Any, span_of: Any) -> None:
    span = span_of(on_card, synchronise=False)
    assert "synchronise_s" not in span.attributes


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_model_over_all_cards_names_each_once(tiny_llama_directory: Path, span_of: Any) -> None:
    from transformers import LlamaForCausalLM

    last = torch.cuda.device_count() - 1
    places = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": last, "model.norm": last}
    places |= {"model.rotary_emb": 0, "lm_head": last}
    model = LlamaForCausalLM.from_pretrained(tiny_llama_directory, device_map=places).eval()
    assert len(set(span_of(model).device_uuids)) == 2


def test_batched_requests_are_spans_on_the_card(on_card: Any, receiver: Any) -> None:
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    client = SpanClient(receiver.path, retry_after_s=0)
    instrument(client=client)
    try:
        outputs = on_card.generate_batch(
            [[5, 6, 7], [8, 9, 10, 11]],
            generation_config=GenerationConfig(max_new_tokens=8, do_sample=False, eos_token_id=-1),
            continuous_batching_config=ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=256),
        )
    finally:
        uninstrument()
    spans = {span.attributes["request_id"]: span for span in receiver.wait_for_spans(2)}
    client.close()
    for name, out in outputs.items():
        span = spans[name]
        assert (span.input_tokens, span.output_tokens) == (len(out.prompt_ids), len(out.generated_tokens))
        assert span.device_uuids[0].startswith("GPU-")
        assert span.start_ns < span.first_token_ns < span.end_ns
