from __future__ import annotations

import copy
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.generation.utils import GenerationMixin

from llmpower.exceptions import InputError
from llmpower.spans import SpanClient, instrument, span, uninstrument, unmeasured
from llmpower.spans.transformers import model_name_of
from llmpower.spans.wire import Begin, Cancel

PROMPT = torch.arange(3, 11).unsqueeze(0)


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": False},
        {"do_sample": True, "top_k": 50},
        {"num_beams": 3, "num_return_sequences": 2},
        {"do_sample": True, "return_dict_in_generate": True, "output_scores": True},
    ],
)
def test_the_output_is_the_same_to_the_bit_and_so_is_the_random_state(
    tiny_llama: Any, client: SpanClient, receiver: Any, settings: dict[str, Any]
) -> None:
    def generate() -> tuple[Any, torch.Tensor]:
        torch.manual_seed(1)
        return tiny_llama.generate(PROMPT, max_new_tokens=12, **settings), torch.get_rng_state()

    plain, plain_state = generate()
    instrument(client=client)
    measured, measured_state = generate()
    receiver.wait_for_spans(1)
    assert torch.equal(plain_state, measured_state)
    assert type(plain) is type(measured)
    if settings.get("return_dict_in_generate"):
        assert torch.equal(plain.sequences, measured.sequences)
        assert all(map(torch.equal, plain.scores, measured.scores))
    else:
        assert torch.equal(plain, measured)


def test_a_span_says_what_ran_where_and_when(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client, model_name="tiny")
    tiny_llama.generate(PROMPT, max_new_tokens=4)
    begin, sent = receiver.wait(2)
    assert begin == Begin(sent.span_id, sent.start_ns)
    assert sent.model_name == "tiny"
    assert sent.device_uuids == ()
    assert sent.start_ns < sent.first_token_ns < sent.end_ns


def test_models_made_before_and_after_are_measured(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    tiny_llama.generate(PROMPT, max_new_tokens=2)
    LlamaForCausalLM(tiny_llama.config).generate(PROMPT, max_new_tokens=2)
    assert len(receiver.wait_for_spans(2)) == 2


def test_a_class_that_overrides_generate_is_measured_once(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    class Polite(LlamaForCausalLM):
        def generate(self, *args: Any, **kwargs: Any) -> Any:
            return super().generate(*args, **kwargs)

    instrument(client=client)
    model = Polite(tiny_llama.config)
    instrument(model, client=client)
    model.generate(PROMPT, max_new_tokens=2)
    model.generate(PROMPT, max_new_tokens=3)
    assert [sent.output_tokens for sent in receiver.wait_for_spans(2)] == [2, 3]
    assert len(receiver.messages) == 4
    uninstrument(model)


def test_instrumenting_again_replaces_the_settings_and_wraps_once(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    plain = GenerationMixin.generate
    for name in ("first", "second"):
        instrument(client=client, model_name=name)
        instrument(tiny_llama, client=client, model_name=name)
    tiny_llama.generate(PROMPT, max_new_tokens=2)
    assert [sent.model_name for sent in receiver.wait_for_spans(1)] == ["second"]
    assert inspect.signature(GenerationMixin.generate) == inspect.signature(plain)
    uninstrument(tiny_llama)
    uninstrument()
    assert GenerationMixin.generate is plain
    assert inspect.isfunction(GenerationMixin._prefill)
    assert "generate" not in vars(tiny_llama)


def test_one_model_alone(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    other = LlamaForCausalLM(tiny_llama.config)
    instrument(tiny_llama, client=client)
    other.generate(PROMPT, max_new_tokens=2)
    tiny_llama.generate(PROMPT, max_new_tokens=3)
    (sent,) = receiver.wait_for_spans(1)
    assert sent.output_tokens == 3
    assert sent.first_token_ns is not None


def test_a_copy_of_a_model_generates_with_its_own_weights(tiny_llama: Any, client: SpanClient) -> None:
    instrument(tiny_llama, client=client)
    twin = copy.deepcopy(tiny_llama)
    with torch.no_grad():
        twin.lm_head.weight.copy_(tiny_llama.lm_head.weight.roll(1, dims=0))
    ours = tiny_llama.generate(PROMPT, max_new_tokens=1, do_sample=False)
    theirs = twin.generate(PROMPT, max_new_tokens=1, do_sample=False)
    assert theirs[0, -1] == ours[0, -1] + 1


def test_a_generate_that_someone_put_on_the_model_stays_there(
    tiny_llama: Any, client: SpanClient, receiver: Any
) -> None:
    def short(*args: Any, **kwargs: Any) -> Any:
        return type(tiny_llama).generate(tiny_llama, *args, **{**kwargs, "max_new_tokens": 1})

    tiny_llama.generate = short
    instrument(tiny_llama, client=client)
    tiny_llama.generate(PROMPT, max_new_tokens=9)
    assert receiver.wait_for_spans(1)[0].output_tokens == 1
    uninstrument(tiny_llama)
    assert tiny_llama.generate is short


def test_what_cannot_generate_is_refused(client: SpanClient) -> None:
    with pytest.raises(InputError, match=r"Linear.*generate"):
        instrument(torch.nn.Linear(1, 1), client=client)
    with pytest.raises(InputError, match="model = str: it has no generate"):
        instrument("gpt2", client=client)
    uninstrument("gpt2")


def test_an_exception_goes_through_and_withdraws_the_span(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    def stop(*_arguments: Any) -> torch.Tensor:
        raise KeyboardInterrupt

    instrument(client=client)
    with pytest.raises(KeyboardInterrupt):
        tiny_llama.generate(PROMPT, max_new_tokens=4, logits_processor=[stop])
    with pytest.raises(ValueError, match="num_return_sequences"):
        tiny_llama.generate(PROMPT, max_new_tokens=4, num_beams=2, num_return_sequences=3)
    tiny_llama.generate(PROMPT, max_new_tokens=4)
    first, cancelled, second, cancelled_too, _, sent = receiver.wait(6)
    assert (cancelled, cancelled_too) == (Cancel(first.span_id), Cancel(second.span_id))
    assert sent.output_tokens == 4


def test_without_a_daemon_generate_works_and_one_line_says_so(
    tiny_llama: Any, nobody: SpanClient, caplog: pytest.LogCaptureFixture
) -> None:
    plain = tiny_llama.generate(PROMPT, max_new_tokens=4, do_sample=False)
    instrument(client=nobody)
    for _ in range(3):
        assert torch.equal(tiny_llama.generate(PROMPT, max_new_tokens=4, do_sample=False), plain)
    assert [record.name for record in caplog.records] == ["llmpower"]


def test_threads_with_one_model_get_a_span_each(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    lengths = range(4, 11)
    threads = [
        threading.Thread(target=tiny_llama.generate, args=(PROMPT[:, : length - 2],), kwargs={"max_new_tokens": length})
        for length in lengths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent = receiver.wait_for_spans(len(lengths))
    assert {(one.input_tokens, one.output_tokens) for one in sent} == {(length - 2, length) for length in lengths}
    assert all(one.start_ns < one.first_token_ns < one.end_ns for one in sent)


def test_inside_a_span_drawn_by_hand_generate_is_part_of_it(tiny_llama: Any, client: SpanClient, receiver: Any) -> None:
    instrument(client=client)
    with span(model_name="pipeline", client=client):
        tiny_llama.generate(PROMPT, max_new_tokens=2)
    with unmeasured():
        tiny_llama.generate(PROMPT, max_new_tokens=2)
    tiny_llama.generate(PROMPT, max_new_tokens=2)
    assert [sent.model_name for sent in receiver.wait_for_spans(2)] == ["pipeline", "LlamaForCausalLM"]
    assert len(receiver.messages) == 4


def test_what_a_model_is_called(tiny_llama_directory: Path, tiny_llama: Any, tmp_path: Path) -> None:
    assert model_name_of(AutoModelForCausalLM.from_pretrained(tiny_llama_directory)) == "tiny-llama"
    names = {
        "": "LlamaForCausalLM",
        "gpt2": "gpt2",
        "meta-llama/Llama-2-7b-hf": "meta-llama/Llama-2-7b-hf",
        f"{tmp_path}/models--org--name/snapshots/0123abcd": "org/name",
        f"{tiny_llama_directory}/": "tiny-llama",
    }
    for source, name in names.items():
        tiny_llama.config._name_or_path = source
        assert model_name_of(tiny_llama) == name


def test_the_environment_names_the_model_before_its_files_do(
    tiny_llama: Any, client: SpanClient, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPOWER_MODEL_NAME", "from-environment")
    instrument(client=client)
    tiny_llama.generate(PROMPT, max_new_tokens=2)
    assert receiver.wait_for_spans(1)[0].model_name == "from-environment"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")
@pytest.mark.parametrize("synchronise", [True, False])
def test_on_a_gpu_the_span_names_it(tiny_llama: Any, client: SpanClient, receiver: Any, synchronise: bool) -> None:
    instrument(client=client, synchronise=synchronise)
    tiny_llama.to("cuda").generate(PROMPT.to("cuda"), max_new_tokens=4)
    (sent,) = receiver.wait_for_spans(1)
    assert [uuid[:4] for uuid in sent.device_uuids] == ["GPU-"]
    assert ("synchronise_s" in sent.attributes) is synchronise
    assert sent.start_ns < sent.first_token_ns < sent.end_ns
